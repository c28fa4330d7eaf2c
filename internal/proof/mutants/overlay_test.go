package mutants

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOverlay: every mutant still applies to the code as it is.
func TestOverlay(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, m := range Mutants {
		if _, err := m.Overlay("../../..", t.TempDir()); err != nil {
			t.Errorf("%s: %v", m.Name, err)
		}
		if names[m.Name] {
			t.Errorf("two mutants are named %q", m.Name)
		}
		names[m.Name] = true
	}
}

func TestOverlay_whenItNoLongerApplies(t *testing.T) {
	t.Parallel()
	for _, old := range []string{"no such text", "func "} {
		m := Mutant{Edits: []Edit{{File: "internal/proof/mutants/overlay.go", Old: old, New: "x"}}}
		if _, err := m.Overlay("../../..", t.TempDir()); err == nil || !strings.Contains(err.Error(), "no longer applies") {
			t.Errorf("%q: got %v", old, err)
		}
	}
}

// TestBuild_whenItDoesNotCompile: such a mutant is no catch, whatever its test would say.
func TestBuild_whenItDoesNotCompile(t *testing.T) {
	t.Parallel()
	const file = "internal/proof/inorder/inorder.go"
	m := Mutant{Edits: []Edit{{File: file, Old: "defer close(enough)", New: "defer close(nothing)"}}}
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := m.Overlay(root, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	err = Build(t.Context(), root, "./internal/proof/inorder", overlay, filepath.Join(t.TempDir(), "mutant.test"))
	if err == nil || !strings.Contains(err.Error(), "undefined: nothing") {
		t.Errorf("got %v; want what the compiler says", err)
	}
}

// TestJudge: only a failure that the test itself reports counts as a catch.
func TestJudge(t *testing.T) {
	t.Parallel()
	c := Catch{Package: "./p", Test: "TestX/y"}
	for out, want := range map[string]struct {
		ok bool
		v  Verdict
	}{
		"    --- PASS: TestX/y (0.1s)\nPASS\nok  	p":                           {true, Passed},
		"    --- FAIL: TestX/y (0.1s)\nFAIL":                                   {false, Failed},
		"--- FAIL: TestX/yes (0.1s)\nFAIL":                                     {false, Broken},
		"FAIL	p [build failed]":                                                {false, Broken},
		"testing: warning: no tests to run\nPASS\nok  	p":                      {true, Broken},
		"    --- FAIL: TestX/y (90s)\npanic: test timed out after 1m30s\nFAIL": {false, Broken},
	} {
		if got := c.judge(out, want.ok); got != want.v {
			t.Errorf("%q: got %v, want %v", out, got, want.v)
		}
	}
}

// TestDoc: docs/model.md names every mutant, and what catches it.
func TestDoc(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../../docs/model.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range Mutants {
		row := fmt.Sprintf("| %s | `%s` in %s |\n", m.Name, m.Catch.Test, strings.TrimPrefix(m.Catch.Package, "./"))
		if !strings.Contains(string(doc), row) {
			t.Errorf("docs/model.md has no row %s", row)
		}
	}
	if n := strings.Count(string(doc), "` in "); n != len(Mutants) {
		t.Errorf("docs/model.md has %d rows; there are %d mutants", n, len(Mutants))
	}
}
