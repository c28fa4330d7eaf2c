package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os/signal"
	"syscall"
)

const usage = `bench measures Writ beside its peers.

  bench run [flags]            run workloads on private servers; bench run -h lists the flags
  bench list                   list the workloads
  bench report [-docs DIR] FILE…   draw the tables, and with -docs the pages, from results of earlier runs
  bench work NAME [flags]      a worker process; bench run starts it
`

// run is the program. Exit codes: 0 all was measured, 1 a failure, 2 wrong usage.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return 2
	}
	verbs := map[string]func(context.Context, []string, io.Reader, io.Writer, io.Writer) error{
		"run": runCommand, "list": listCommand, "report": reportCommand, "work": workCommand,
	}
	verb, ok := verbs[args[0]]
	if !ok {
		fmt.Fprint(stderr, usage)
		return 2
	}
	if args[0] != "work" { // a worker ends when its standard input does, and drains first
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
		defer stop()
	}
	err := verb(ctx, args[1:], stdin, stdout, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 2
	case err != nil:
		fmt.Fprintf(stderr, "bench %s: %v\n", args[0], err)
		return 1
	}
	return 0
}
