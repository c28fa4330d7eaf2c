// Command storm breaks Writ at random on private servers and counts what was lost or done twice: see package storm.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/writhq/writ/internal/proof/storm"
)

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run returns the exit code: 0 all held, 1 something was violated, 2 it could not be run.
func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) int {
	if code, ok := storm.Child(os.Getenv, stdout, stderr); ok {
		return code
	}
	var cfg storm.Config
	flags := flag.NewFlagSet("storm", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.DurationVar(&cfg.Duration, "duration", time.Minute, "how long faults are made")
	flags.Uint64Var(&cfg.Seed, "seed", 0, "seed of all dice; 0: by the clock")
	flags.StringVar(&cfg.Binary, "binary", "", "another build of this command, which plays workers, relays and reconcilers")
	flags.DurationVar(&cfg.Bound, "bound", 3*time.Minute, "within which all must be at rest after the last fault")
	flags.IntVar(&cfg.Intents, "intents", 0, "fail if fewer were created; of a drill: how many are created")
	drill := flags.String("drill", "", "instead of a storm, kill workers only: probed (a truthful probe decides what nobody knows) or unprobed (nobody does); or drains: ask them to end, under full load, -faults times")
	flags.IntVar(&cfg.Faults, "faults", 0, "fail if fewer were made")
	flags.StringVar(&cfg.Dir, "dir", "", "keep logs and journals here; default: a temporary directory, kept only if something is wrong")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	cfg.Drill = storm.Drill(*drill)
	if err := cfg.Drill.Check(); err != nil {
		fmt.Fprintln(stderr, err)
		return 2
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg.Log = stderr
	out, err := storm.Run(ctx, cfg)
	if err != nil {
		fmt.Fprintln(stderr, "storm:", err)
		return 2
	}
	return report(out, stdout)
}

func report(out storm.Outcome, w io.Writer) int {
	out.Report.Print(w, 5)
	for _, err := range out.Faulty {
		fmt.Fprintln(w, err)
	}
	var sorts []string
	for name, n := range out.Faults {
		sorts = append(sorts, fmt.Sprintf("%s %d", name, n))
	}
	slices.Sort(sorts)
	fmt.Fprintf(w, "seed %d; %d faults: %s; at rest %v after the last\n", out.Seed, out.Total(), strings.Join(sorts, ", "), out.Rest.Round(100*time.Millisecond))
	v := out.Verdicts
	fmt.Fprintf(w, "attempts flagged %d; the probe says: %d happened, %d not done and tried again, %d not done and attempts spent; decided by others %d; left flagged %d\n",
		v.Flagged, v.Happened, v.Retried, v.GaveUp, v.Persons, v.Left)
	if n := len(out.Drains); n > 0 {
		fmt.Fprintf(w, "drains %d: half of them within %v, the longest %v; jobs handed over at a safe point %d times\n",
			n, out.Drains[n/2].Round(10*time.Millisecond), out.Drains[n-1].Round(10*time.Millisecond), out.HandedOver)
	}
	fmt.Fprintln(w, out.Report.Line())
	if err := out.Err(); err != nil {
		fmt.Fprintf(w, "FAILED: %v; logs and journals are in %s\n", out.Report.Err(), out.Dir)
		return 1
	}
	return 0
}
