package model

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Result is what the checker found.
type Result struct {
	States int64
	Took   time.Duration
	Found  string   // the violated assertion, or Cycle; empty: none
	Trace  []string // the steps that lead to it, as the model tells them
}

// Fault says in words how the result differs from what the row expects; empty: it does not.
func (r Row) Fault(got Result) string {
	switch {
	case r.Violates == "" && got.Found != "":
		return "must hold, but violates " + got.Found
	case r.Violates != "" && got.Found == "":
		return "must be violated, but holds: the model has lost its teeth"
	case !strings.Contains(got.Found, r.Violates):
		return fmt.Sprintf("must violate %s, but violates %s", r.Violates, got.Found)
	}
	return ""
}

// live reports whether the row is about coming to rest, which needs the search for cycles.
func (r Row) live() bool { return r.File == restFile }

// Check runs spin, gcc and the checker that they make, in a directory of its own. It blocks until the whole space was
// searched, or a violation found. The error says what could not be run.
func (r Row) Check(ctx context.Context) (Result, error) {
	began := time.Now()
	dir, err := os.MkdirTemp("", "writ-model-")
	if err != nil {
		return Result{}, err
	}
	defer os.RemoveAll(dir)
	text, err := files.ReadFile(r.File)
	if err != nil {
		return Result{}, err
	}
	if err := os.WriteFile(filepath.Join(dir, r.File), text, 0o600); err != nil {
		return Result{}, err
	}
	if _, err := tool(ctx, dir, "spin", append(r.switches(), "-a", r.File)...); err != nil {
		return Result{}, err
	}
	if _, err := tool(ctx, dir, "gcc", append(r.flags(), "-o", "pan", "pan.c")...); err != nil {
		return Result{}, err
	}
	out, err := tool(ctx, dir, "./pan", r.search()...)
	if err != nil && out == "" {
		return Result{}, err
	}
	got, err := read(out)
	got.Took = time.Since(began)
	if err != nil || got.Found == "" {
		return got, err
	}
	replay, err := tool(ctx, dir, "spin", append(r.switches(), "-t", r.File)...)
	if err != nil {
		return got, err
	}
	got.Trace = steps(replay)
	return got, nil
}

func (r Row) switches() []string {
	out := make([]string, 0, len(r.Defines)+2)
	for _, d := range r.Defines {
		out = append(out, "-D"+d)
	}
	return out
}

// flags of the compiler. A violation is searched breadth first, so that its trace is a shortest one.
func (r Row) flags() []string {
	optimise := "-O1"
	if r.Violates != "" {
		optimise = "-O0" // compiling takes longer than searching
	}
	flags := []string{optimise, "-w", "-DVECTORSZ=512", "-DMEMLIM=3000"}
	switch {
	case r.live():
		return append(flags, "-DCOLLAPSE", "-DNFAIR=4")
	case r.Violates != "":
		return append(flags, "-DSAFETY", "-DBFS")
	}
	return append(flags, "-DSAFETY", "-DCOLLAPSE")
}

// search is how the checker is called. -E: a state without a way on is no fault here, the intent may be at rest.
func (r Row) search() []string {
	if r.live() {
		return []string{"-a", "-f", "-m200000", "-w22"}
	}
	return []string{"-E", "-m200000", "-w22"}
}

// tool runs a program and returns what it said. The error of a missing one says how to get it.
func tool(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%s is missing; on Debian: sudo apt-get install spin gcc libc6-dev (make model does it as root)", name)
	} else if err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out.String())
	}
	return out.String(), nil
}

var (
	violated = regexp.MustCompile(`(?m)^pan:\d+: (assertion violated (.*)|acceptance cycle) \(at depth \d+\)`)
	stored   = regexp.MustCompile(`(?m)^\s*(\d+) states, stored`)
	complete = regexp.MustCompile(`(?m)^State-vector .* errors: (\d+)`)
)

// read understands what the checker printed.
func read(out string) (Result, error) {
	var got Result
	found := violated.FindStringSubmatch(out)
	ended := complete.FindStringSubmatch(out)
	if m := stored.FindStringSubmatch(out); m != nil {
		got.States, _ = strconv.ParseInt(m[1], 10, 64) // digits only
	}
	switch {
	case ended == nil || got.States == 0:
		return got, fmt.Errorf("the checker did not end properly: %s", out)
	case found == nil && (ended[1] != "0" || strings.Contains(out, "Search not completed") || strings.Contains(out, "max search depth too small")):
		return got, fmt.Errorf("the checker did not search everything: %s", out)
	case found == nil:
	case found[2] != "":
		got.Found = strings.TrimSpace(found[2])
	default:
		got.Found = Cycle
	}
	return got, nil
}

// steps are the lines that the model itself printed in a replay, as far as they are words.
func steps(replay string) []string {
	var out []string
	for line := range strings.Lines(replay) {
		line = strings.TrimSpace(line)
		who, _, told := strings.Cut(line, ": ")
		switch who, _, _ = strings.Cut(who, " "); who {
		case "slot", "server", "clock", "reconciler", "person", "probe", "postgres", "creator", "relay":
			if told {
				out = append(out, line)
			}
		}
	}
	return out
}
