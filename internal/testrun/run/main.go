// Command run runs go test -json and prints what go test prints, or holds a document against the tests that passed:
//
//	run -record FILE -- go test -json ./...
//	run -doc DOCUMENT FILE…
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
	"syscall"
	"time"

	"github.com/writhq/writ/internal/testrun"
)

const module = "github.com/writhq/writ"

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run returns the exit code: that of the tests, or 1 if the document says what is not so.
func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("testrun", flag.ContinueOnError)
	flags.SetOutput(stderr)
	record := flags.String("record", "", "run the command that follows, and write the tests that passed to this file")
	doc := flags.String("doc", "", "hold this document against the records that follow")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case (*record == "") == (*doc == "") || flags.NArg() == 0:
		fmt.Fprintln(stderr, "testrun: give either -record FILE -- COMMAND… or -doc DOCUMENT RECORD…")
		return 2
	}
	// A terminal sends its interrupt to the command as well, and this waits for what that does about it.
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	defer signal.Stop(interrupts)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	do := func() error { return check(*doc, flags.Args(), stdout) }
	if *record != "" {
		do = func() error { return tests(ctx, *record, flags.Args(), stdout, stderr) }
	}
	err := do()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode() // the command has said why
	} else if err != nil {
		fmt.Fprintln(stderr, "testrun:", err)
		return 1
	}
	return 0
}

// tests runs the command. Without a record of this run there is none: an older one is gone.
func tests(ctx context.Context, file string, command []string, stdout, stderr io.Writer) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	passed, reading := testrun.Read(out, stdout)
	if err := errors.Join(cmd.Wait(), reading); err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(passed.Write(f), f.Close())
}

func check(doc string, records []string, stdout io.Writer) error {
	text, err := os.ReadFile(doc)
	if err != nil {
		return err
	}
	passed := testrun.Record{}
	for _, name := range records {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		if err := errors.Join(passed.Add(f), f.Close()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	rows, n, faults := testrun.Claims(string(text), module, passed)
	for _, fault := range faults {
		fmt.Fprintf(stdout, "%s: %s\n", doc, fault)
	}
	if len(faults) > 0 {
		return fmt.Errorf("%s names what did not pass: mend the tests, or the table", doc)
	}
	fmt.Fprintf(stdout, "%s: all %d tests of its %d rows passed\n", doc, n, rows)
	return nil
}
