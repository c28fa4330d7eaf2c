package devstack

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseStatWhenNameHoldsParentheses(t *testing.T) {
	t.Parallel()
	line := "42 (a) b (c) S 1 40 41 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2"
	st, err := parseStat([]byte(line))
	if want := (procStat{comm: "a) b (c", state: 'S', ppid: 1, pgrp: 40, start: 98765}); err != nil || st != want {
		t.Errorf("parseStat = %+v, %v; want %+v", st, err, want)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (x) S 1 40 41 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2"))
	f.Add([]byte(") ("))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = parseStat(data) })
}

func TestProcessIsNotAliveWhenPidWasRecycled(t *testing.T) {
	t.Parallel()
	self, err := readStat(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !(process{PID: os.Getpid(), Start: self.start}).alive() {
		t.Error("we are not alive")
	}
	if (process{PID: os.Getpid(), Start: self.start + 1}).alive() {
		t.Error("a process with our pid and another start time is alive")
	}
}

func TestReservePortsKeepsBlocksApart(t *testing.T) {
	t.Parallel()
	bases := map[int]bool{}
	for range 20 {
		st := newState(t.TempDir())
		if err := st.save(); err != nil {
			t.Fatal(err)
		}
		p, err := reservePorts(testContext(t), st.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if bases[p.Postgres] {
			t.Errorf("port %d was given twice", p.Postgres)
		}
		bases[p.Postgres] = true
	}
}

func TestLockWaitsUntilContextEnds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	held, err := lockDir(testContext(t), dir, lockExisting, &notes{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*lockPoll)
	defer cancel()
	if _, err := lockDir(ctx, dir, lockExisting, &notes{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second lock: %v, want a deadline error", err)
	}
	held.release()
	again, err := lockDir(testContext(t), dir, lockExisting, &notes{})
	if err != nil {
		t.Fatalf("lock after release: %v", err)
	}
	again.release()
}

func TestPlaceFileRestoresWhatWasThere(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	path := filepath.Join(base, "a", "b", "policy")
	restore, err := placeFile(path, "ours", 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(path); string(text) != "ours" {
		t.Errorf("the file holds %q", text)
	}
	// A second run finds the file of a run that was killed: it is ours to remove.
	second, err := placeFile(path, "ours", 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if err := second(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is left (%v)", err)
	}
	if err := os.WriteFile(path, []byte("ours"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(base); len(left) != 0 {
		t.Errorf("%v is left", left)
	}

	foreign := filepath.Join(base, "foreign")
	if err := os.WriteFile(foreign, []byte("theirs"), 0o755); err != nil {
		t.Fatal(err)
	}
	restore, err = placeFile(foreign, "ours", 0o755)
	if err := errors.Join(err, restore()); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(foreign); string(text) != "theirs" {
		t.Errorf("a foreign file now holds %q", text)
	}
}

func TestIsDebianReadsOSRelease(t *testing.T) {
	t.Parallel()
	for release, want := range map[string]bool{
		"ID=debian\nVERSION_ID=\"12\"\n":             true,
		"NAME=\"Ubuntu\"\nID=ubuntu\nID_LIKE=debian": true,
		"ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n":  true,
		"ID=fedora\n": false,
		"":            false,
	} {
		if got := isDebian(release); got != want {
			t.Errorf("isDebian(%q) = %v, want %v", release, got, want)
		}
	}
}

func TestFindPostgresTakesHighestVersion(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	for _, v := range []string{"9.6", "15", "17"} {
		dir := filepath.Join(base, v, "bin")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"initdb", "postgres"} {
			if v == "17" && name == "postgres" {
				continue // only its client tools are installed
			}
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got, err := findPostgres(base); err != nil || got != filepath.Join(base, "15", "bin") {
		t.Errorf("findPostgres = %q, %v; want version 15's", got, err)
	}
}

func TestErlangClosureFollowsApplications(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for name, needs := range map[string]string{
		"rabbit": "kernel, ra,\n  'rabbit_common'", "ra": "aten", "aten": "stdlib, rabbit", "rabbit_common": "", "rabbitmq_mqtt": "rabbit",
	} {
		dir := filepath.Join(root, name+"-1.0", "ebin")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		text := "{application, '" + name + "', [{applications, [" + needs + "]}]}."
		if err := os.WriteFile(filepath.Join(dir, name+".app"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, dir := range erlangClosure(root, "rabbit") {
		got = append(got, strings.TrimSuffix(filepath.Base(dir), "-1.0"))
	}
	slices.Sort(got)
	if want := []string{"aten", "ra", "rabbit", "rabbit_common"}; !slices.Equal(got, want) {
		t.Errorf("erlangClosure = %v, want %v", got, want)
	}
	if got := erlangClosure(t.TempDir(), "rabbit"); got != nil {
		t.Errorf("erlangClosure of nothing = %v, want nil", got)
	}
}

func TestDockerCommandsNameOurProjectOnly(t *testing.T) {
	t.Parallel()
	common := []string{"compose", "--project-name", "writ-dev", "--file", "/p/docker-compose.yml"}
	if got, want := upArgs("/p/docker-compose.yml"), append(slices.Clone(common), "up", "--detach", "--wait"); !slices.Equal(got, want) {
		t.Errorf("up runs docker %v, want %v", got, want)
	}
	if got, want := downArgs("/p/docker-compose.yml"), append(slices.Clone(common), "down", "--volumes"); !slices.Equal(got, want) {
		t.Errorf("down runs docker %v, want %v", got, want)
	}
}

func TestProjectRootIsThisModules(t *testing.T) {
	t.Parallel()
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := projectRoot(cwd), filepath.Join(cwd, "..", ".."); got != want {
		t.Errorf("projectRoot = %q, want %q", got, want)
	}
	elsewhere := t.TempDir()
	if got := projectRoot(elsewhere); got != elsewhere {
		t.Errorf("projectRoot outside = %q, want %q", got, elsewhere)
	}
}
