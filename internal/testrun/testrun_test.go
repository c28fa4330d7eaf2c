package testrun

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// module is one with all that a run may meet.
var module = map[string]string{
	"go.mod":       "module example.org/some/shop\n\ngo 1.26\n",
	"root_test.go": "package shop\n\nimport \"testing\"\n\nfunc TestRoot(t *testing.T) { t.Log(\"quiet\") }\n",
	"a/a_test.go": `package a

import (
	"fmt"
	"testing"
)

func TestFine(t *testing.T) {
	fmt.Println("said to nobody")
	for _, name := range []string{"one", "with space"} {
		t.Run(name, func(t *testing.T) { t.Log("fine") })
	}
}

func TestSkipped(t *testing.T) { t.Skip("not here") }

func Example() {
	fmt.Println("hello")
	// Output: hello
}
`,
	"b/b_test.go": `package b

import "testing"

func TestBroken(t *testing.T) {
	t.Log("before")
	t.Run("fine", func(t *testing.T) { t.Log("of no interest") })
	t.Run("broken", func(t *testing.T) { t.Error("as it must\nin two lines") })
}

func TestAlsoFine(t *testing.T) { t.Log("of no interest") }
`,
	"c/c.go":      "package c\n",
	"d/d_test.go": "package d\n\nimport \"testing\"\n\nfunc TestUnbuilt(t *testing.T) { none() }\n",
}

// TestRead_asGoTestPrints: what is printed is what go test prints without -json, and the record has what passed.
func TestRead_asGoTestPrints(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range module {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	goTest := func(args ...string) []byte {
		cmd := exec.CommandContext(t.Context(), "go", append([]string{"test", "-count=1", "-p=1"}, args...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
		out, err := cmd.Output()
		if err == nil {
			t.Fatalf("go test %v passed", args)
		}
		return out
	}
	var printed bytes.Buffer
	record, err := Read(bytes.NewReader(goTest("-json", "./...")), &printed)
	if err != nil {
		t.Fatal(err)
	}
	// Without -json the compiler's errors go to the other output, and the last line says once more that it failed.
	times := regexp.MustCompile(`\d+\.\d+s`)
	plain := func(out string) (kept []string) {
		for line := range strings.Lines(times.ReplaceAllString(out, "0s")) {
			if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "d/") && line != "FAIL\n" {
				kept = append(kept, line)
			}
		}
		return kept
	}
	if diff := cmp.Diff(plain(string(goTest("./..."))), plain(printed.String())); diff != "" {
		t.Errorf("printed (-go test +here):\n%s", diff)
	}
	if !strings.Contains(printed.String(), "undefined: none") {
		t.Errorf("the compiler's error is not printed:\n%s", printed.String())
	}
	want := Record{}
	for _, name := range []string{" TestRoot", "/a TestFine", "/a TestFine/one", "/a TestFine/with_space", "/a Example", "/b TestBroken/fine", "/b TestAlsoFine"} {
		path, test, _ := strings.Cut(name, " ")
		want[Test{"example.org/some/shop" + path, test}] = true
	}
	if diff := cmp.Diff(want, record); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}

	var file bytes.Buffer
	if err := record.Write(&file); err != nil {
		t.Fatal(err)
	}
	again := Record{}
	if err := again.Add(&file); err != nil || !cmp.Equal(record, again) {
		t.Errorf("written and read again it is %v, %v", again, err)
	}
}

// TestRead_unfinished: a test that took its process with it is printed, though nothing says how it ended.
func TestRead_unfinished(t *testing.T) {
	t.Parallel()
	const run = `{"Action":"start","Package":"p"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"panic: test timed out\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t1.000s\n"}
{"Action":"fail","Package":"p","Elapsed":1}
`
	var printed bytes.Buffer
	record, err := Read(strings.NewReader("go: a warning\n"+run), &printed)
	if err != nil || len(record) > 0 {
		t.Errorf("record %v, %v; want nothing passed", record, err)
	}
	if diff := cmp.Diff("go: a warning\npanic: test timed out\nFAIL\tp\t1.000s\n", printed.String()); diff != "" {
		t.Error(diff)
	}
}

func TestClaims(t *testing.T) {
	t.Parallel()
	passed := Record{{"example.org/shop", "TestRoot"}: true, {"example.org/shop/a", "TestFine/with_space"}: true, {"example.org/shop/a/b", "ExampleOf"}: true}
	const fine = "| idea | tests |\n|---|---|\n| one | `a.TestFine/with_space`, `shop.TestRoot` |\n| two | `a/b.ExampleOf` and words |\n\n| other |\n|---|\n| x |\n"
	for name, tt := range map[string]struct {
		doc         string
		rows, tests int
		faults      []string
	}{
		"fine":      {fine, 2, 3, nil},
		"no table":  {"| other |\n|---|\n| x |\n", 0, 0, []string{"there is no table whose last column is headed «tests»"}},
		"no test":   {"| idea | tests |\n|---|---|\n| one | `a.Fine` |\n", 1, 0, []string{"line 3: no test is named for «one»"}},
		"no pass":   {"| idea | tests |\n|---|---|\n| one | `a.TestFine` |\n", 1, 1, []string{"line 3: a.TestFine did not pass in this run"}},
		"elsewhere": {"| idea | tests |\n|---|---|\n| one | `b.TestRoot` |\n", 1, 1, []string{"line 3: b.TestRoot did not pass in this run"}},
	} {
		rows, tests, faults := Claims(tt.doc, "example.org/shop", passed)
		if diff := cmp.Diff(tt.faults, faults); rows != tt.rows || tests != tt.tests || diff != "" {
			t.Errorf("%s: %d rows, %d tests, faults (-want +got):\n%s", name, rows, tests, diff)
		}
	}
}
