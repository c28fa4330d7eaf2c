// Command run plants each mutant of the table and demands that its test catches it. It needs the servers of DATABASE_URL
// and AMQP_URL («make mutants» brings up its own).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/writhq/writ/internal/proof/inorder"
	"github.com/writhq/writ/internal/proof/mutants"
)

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	flags := flag.NewFlagSet("mutants", flag.ContinueOnError)
	flags.SetOutput(stderr)
	only := flags.String("only", "", "only the mutants whose name holds this")
	verbose := flags.Bool("v", false, "print what the tests print")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	var chosen []mutants.Mutant
	for _, m := range mutants.Mutants {
		if strings.Contains(m.Name, *only) {
			chosen = append(chosen, m)
		}
	}
	if len(chosen) == 0 {
		fmt.Fprintf(stderr, "no mutant's name holds %q; run without -only for the list\n", *only)
		return 2
	}
	output := io.Discard
	if *verbose {
		output = stderr
	}
	dir, err := os.MkdirTemp("", "writ-mutants-")
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	return hunt(ctx, &hunter{root: root, dir: dir, output: output}, chosen, stdout)
}

func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if mod == "" || mod == os.DevNull {
		return "", errors.New("not inside the module; run this from the project's directory")
	}
	return filepath.Dir(mod), nil
}

// atOnce is how many are hunted side by side. A test that is to fail waits most of its time, for what will not come.
const atOnce = 6

// hunt hunts all and prints the table; the return value is the exit code.
func hunt(ctx context.Context, h *hunter, chosen []mutants.Mutant, stdout io.Writer) int {
	fmt.Fprintf(stdout, "%-32s %-58s %7s\n", "mutant", "caught by", "time")
	began, survived := time.Now(), 0
	for m, got := range inorder.Do(chosen, atOnce, func(m mutants.Mutant) answer { return h.timed(ctx, m) }) {
		if ctx.Err() != nil {
			fmt.Fprintln(stdout, "interrupted")
			return 1
		}
		result := m.Catch.Package + " " + m.Catch.Test
		if got.fault != "" {
			survived++
			result = "NOT CAUGHT: " + got.fault
		}
		fmt.Fprintf(stdout, "%-32s %-58s %6.1fs\n", m.Name, result, got.took.Seconds())
	}
	fmt.Fprintf(stdout, "%d mutants, %d not caught, %.0f s\n", len(chosen), survived, time.Since(began).Seconds())
	if survived > 0 {
		return 1
	}
	return 0
}

// hunter plants mutants. Safe for concurrent use.
type hunter struct {
	root   string
	dir    string // for what is built
	output io.Writer

	plain sync.Map // by catch: the test without a mutant, run once
	built sync.Map // by package: its tests without a mutant, built once

	printing sync.Mutex
}

type answer struct {
	fault string
	took  time.Duration
}

func (h *hunter) timed(ctx context.Context, m mutants.Mutant) answer {
	began := time.Now()
	return answer{h.hunt(ctx, m), time.Since(began)}
}

// hunt plants one mutant and returns why it was not caught; empty: it was.
func (h *hunter) hunt(ctx context.Context, m mutants.Mutant) string {
	dir, err := os.MkdirTemp(h.dir, "mutant-")
	if err != nil {
		return err.Error()
	}
	defer os.RemoveAll(dir)
	overlay, err := m.Overlay(h.root, dir)
	if err != nil {
		return err.Error()
	}
	if fault := h.sound(ctx, m.Catch); fault != "" {
		return fault
	}
	binary := filepath.Join(dir, "mutant.test")
	if err := mutants.Build(ctx, h.root, m.Catch.Package, overlay, binary); err != nil {
		return err.Error()
	}
	verdict, out, err := m.Catch.Run(ctx, h.root, binary)
	h.print(m.Name, out)
	switch {
	case err != nil:
		return err.Error()
	case verdict == mutants.Passed:
		return m.Catch.Test + " passes with it"
	case verdict == mutants.Broken:
		return m.Catch.Test + " did not fail by itself: " + tail(out)
	}
	return ""
}

// sound runs a test without a mutant, once, and tells what is wrong with it.
func (h *hunter) sound(ctx context.Context, c mutants.Catch) string {
	return once(&h.plain, c, func() string {
		binary := filepath.Join(h.dir, strings.ReplaceAll(c.Package, "/", "_")+".test")
		if err := once(&h.built, c.Package, func() error { return mutants.Build(ctx, h.root, c.Package, "", binary) }); err != nil {
			return err.Error()
		}
		verdict, out, err := c.Run(ctx, h.root, binary)
		h.print("no mutant", out)
		if err != nil {
			return err.Error()
		}
		if verdict != mutants.Passed {
			return c.Test + " does not pass without it: " + tail(out)
		}
		return ""
	})
}

// once returns what do returned for a key, which it is called for once; who comes meanwhile waits.
func once[V any](results *sync.Map, key any, do func() V) V {
	result, _ := results.LoadOrStore(key, sync.OnceValue(do))
	return result.(func() V)()
}

func (h *hunter) print(name, out string) {
	h.printing.Lock()
	defer h.printing.Unlock()
	fmt.Fprintf(h.output, "== %s\n%s\n", name, out)
}

// tail is the end of a test's output, after what the test says is wrong.
func tail(out string) string {
	const most = 600
	out = strings.TrimSpace(out)
	var wrong strings.Builder
	for line := range strings.Lines(out) {
		if strings.Contains(line, "_test.go:") {
			wrong.WriteString(line)
		}
	}
	return wrong.String() + out[max(0, len(out)-most):]
}
