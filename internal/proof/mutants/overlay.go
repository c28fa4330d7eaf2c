package mutants

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Overlay writes the mutant's files and the overlay that names them into dir, and returns the overlay's path. root is
// the module's. A text that does not stand exactly once is an error: the mutant no longer applies.
func (m Mutant) Overlay(root, dir string) (string, error) {
	texts := map[string]string{}
	for _, e := range m.Edits {
		path := filepath.Join(root, e.File)
		text, read := texts[path]
		if !read {
			raw, err := os.ReadFile(path)
			if err != nil {
				return "", err
			}
			text = string(raw)
		}
		if n := strings.Count(text, e.Old); n != 1 {
			return "", fmt.Errorf("the mutant no longer applies: %s holds %q %d times; bring mutants.go up to date", e.File, e.Old, n)
		}
		texts[path] = strings.Replace(text, e.Old, e.New, 1)
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for path, text := range texts {
		file := filepath.Join(dir, fmt.Sprintf("%d-%s", len(overlay.Replace), filepath.Base(path)))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return "", err
		}
		overlay.Replace[path] = file
	}
	raw, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, raw, 0o600)
}

// Verdict is how a test ended.
type Verdict int

// The verdicts. Broken is anything but a test that passed or failed by itself: it did not run, or hung.
const (
	Broken Verdict = iota
	Passed
	Failed
)

// Build builds the tests of a package of the module at root into the file binary, with an overlay unless that is empty. What
// the compiler said is in the error.
func Build(ctx context.Context, root, pkg, overlay, binary string) error {
	args := []string{"test", "-c", "-vet=off", "-ldflags=-s -w", "-o", binary} // nobody debugs it: half of the linker's work
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go test -c %s: %w: %s", pkg, err, out)
	}
	return nil
}

// Run runs the test out of what Build built of its package, in the module at root. The output is the test's.
func (c Catch) Run(ctx context.Context, root, binary string) (Verdict, string, error) {
	var levels []string
	for level := range strings.SplitSeq(c.Test, "/") {
		levels = append(levels, "^"+level+"$")
	}
	cmd := exec.CommandContext(ctx, binary, "-test.count=1", "-test.v", "-test.timeout=90s", "-test.run", strings.Join(levels, "/"))
	cmd.Dir = filepath.Join(root, c.Package)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return Broken, out.String(), fmt.Errorf("%s: %w", c.Package, err)
	}
	return c.judge(out.String(), err == nil), out.String(), nil
}

// judge reads what the tests printed. A failure counts only if this test says so itself: a test that times out or is not
// there, and a crash of the process show nothing about the check.
func (c Catch) judge(out string, ok bool) Verdict {
	says := func(word string) bool { return strings.Contains(out, "--- "+word+": "+c.Test+" (") }
	switch {
	case ok && says("PASS"):
		return Passed
	case !ok && says("FAIL") && !strings.Contains(out, "panic: test timed out"):
		return Failed
	}
	return Broken
}
