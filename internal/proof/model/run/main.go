// Command run checks the protocol's models with spin: all rows of the table, or one with its trace.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"time"

	"github.com/writhq/writ/internal/proof/inorder"
	"github.com/writhq/writ/internal/proof/model"
)

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	flags := flag.NewFlagSet("model", flag.ContinueOnError)
	flags.SetOutput(stderr)
	only := flags.String("only", "", "check only the rows whose name holds this, and print their traces")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	rows := make([]model.Row, 0, len(model.Rows))
	for _, r := range model.Rows {
		if strings.Contains(r.Name, *only) {
			rows = append(rows, r)
		}
	}
	if len(rows) == 0 {
		fmt.Fprintf(stderr, "no row's name holds %q; run without -only for the list\n", *only)
		return 2
	}
	fmt.Fprintf(stdout, "%-26s %12s %7s  %s\n", "run", "states", "time", "result")
	began := time.Now()
	var states int64
	faults := 0
	for row, got := range inorder.Do(rows, runtime.NumCPU(), func(r model.Row) outcome { return check(ctx, r) }) {
		states += got.States
		if !got.print(stdout, row, *only != "") {
			faults++
		}
	}
	if ctx.Err() != nil {
		fmt.Fprintln(stderr, "interrupted")
		return 1
	}
	fmt.Fprintf(stdout, "%d runs, %d states, %.0f s; %d not as expected\n", len(rows), states, time.Since(began).Seconds(), faults)
	if faults > 0 {
		return 1
	}
	return 0
}

// outcome of one row.
type outcome struct {
	model.Result
	err error
}

func check(ctx context.Context, row model.Row) outcome {
	got, err := row.Check(ctx)
	return outcome{got, err}
}

// print writes the row and reports whether it is as expected.
func (o outcome) print(w io.Writer, row model.Row, trace bool) bool {
	fault := row.Fault(o.Result)
	result := "holds"
	switch {
	case o.err != nil:
		result = "FAILED: " + o.err.Error()
	case fault != "":
		result = "FAILED: " + fault
	case row.Violates != "":
		result = "violated, as it must be: " + row.Why
	}
	fmt.Fprintf(w, "%-26s %12d %6.1fs  %s\n", row.Name, o.States, o.Took.Seconds(), result)
	if trace || fault != "" {
		for _, step := range o.Trace {
			fmt.Fprintf(w, "    %s\n", step)
		}
	}
	return o.err == nil && fault == ""
}
