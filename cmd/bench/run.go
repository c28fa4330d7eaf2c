package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/writhq/writ/cmd/bench/contender"
	"github.com/writhq/writ/cmd/bench/report"
	"github.com/writhq/writ/cmd/bench/workload"
)

// plan is what the flags of run say.
type plan struct {
	dir, out string
	only     string
	peers    string
	rounds   int
	scale    float64
	long     bool
	profile  bool
}

func runCommand(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench run", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var p plan
	flags.StringVar(&p.dir, "dir", ".writ/bench", "directory of the private servers, of workers' logs and of installed peers")
	flags.StringVar(&p.out, "out", "", "file for the results (default: DIR/DATE.json)")
	flags.StringVar(&p.only, "only", "", "workloads to run, with commas (default: all of make bench)")
	flags.StringVar(&p.peers, "peers", "", "contenders to run, with commas (default: all)")
	flags.IntVar(&p.rounds, "pairs", 0, "rounds of each workload (default: its own)")
	flags.BoolVar(&p.long, "long", false, "run the workloads of make bench-long instead")
	flags.BoolVar(&p.profile, "profile", false, "list the statements on which Postgres spent most time, after each run")
	flags.Float64Var(&p.scale, "scale", 1, "make all counts and times smaller by this, to try the program out: such a run judges nothing")
	if err := flags.Parse(args); err != nil {
		return err
	}
	workloads, err := p.choose(catalogue(p.dir))
	if err != nil {
		return err
	}
	return p.run(ctx, workloads, stdout, stderr)
}

// choose leaves the workloads, and in them the turns, that the flags ask for.
func (p plan) choose(all []workload.Workload) ([]workload.Workload, error) {
	only := split(p.only)
	var chosen []workload.Workload
	for _, w := range all {
		wanted := slices.Contains(only, w.Name)
		if len(only) == 0 {
			wanted = (w.Length == workload.Long) == p.long
		}
		if !wanted {
			continue
		}
		if peers := split(p.peers); len(peers) > 0 {
			w.Turns = slices.DeleteFunc(slices.Clone(w.Turns), func(t workload.Turn) bool { return !slices.Contains(peers, t.Contender.Name()) })
		}
		if p.rounds > 0 {
			w.Rounds = p.rounds
		}
		if len(w.Turns) > 0 {
			chosen = append(chosen, w)
		}
	}
	for _, name := range only {
		if !slices.ContainsFunc(all, func(w workload.Workload) bool { return w.Name == name }) {
			return nil, fmt.Errorf("there is no workload %q; bench list names them", name)
		}
	}
	if len(chosen) == 0 {
		return nil, errors.New("nothing is left to run; bench list names workloads and contenders")
	}
	return chosen, nil
}

func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

// run brings up servers, runs the workloads, writes the results and prints the report. What was measured before a failure
// is written all the same.
func (p plan) run(ctx context.Context, workloads []workload.Workload, stdout, stderr io.Writer) (err error) {
	dir, err := filepath.Abs(p.dir)
	if err != nil {
		return err
	}
	logs := filepath.Join(dir, "logs")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return err
	}
	began := time.Now()
	s, err := start(ctx, dir, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.down(ctx)) }()

	f := report.File{
		Date: began.UTC().Truncate(time.Second), Commit: commit(ctx), Machine: machine(), Versions: s.versions, Settings: s.settings,
		Trial: p.scale < 1,
	}
	for _, c := range contendersOf(workloads) {
		f.About = append(f.About, c.Name()+": "+c.About())
	}
	f.About = append(f.About, fmt.Sprintf("creators: one Go process with a pool of %d for all contenders, each job by the contender's own call for a job that belongs to no other write (CreateAlone; Client.Insert; add_job on a pool)", workload.CreatorPool))
	env := &workload.Env{
		DatabaseURL: s.DatabaseURL, AMQPURL: s.AMQPURL, Postgres: s.postgres, Broker: s.broker, LogDir: logs, Progress: stderr, Scale: p.scale,
	}
	if p.profile {
		env.Detail = workload.WithStatements
	}
	if err := env.Open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, env.Close(context.WithoutCancel(ctx))) }()

	var failure error
	for _, w := range workloads {
		results, err := workload.Run(ctx, env, w, w.Rounds)
		f.Results = append(f.Results, results...)
		f.Notes = append(f.Notes, fmt.Sprintf("%s: %s (rounds: %d)", w.Name, w.Title, w.Rounds))
		if err != nil {
			failure = err
			break
		}
	}
	path := p.out
	if path == "" {
		path = filepath.Join(dir, began.UTC().Format("20060102-150405")+".json")
	}
	if err := f.Write(path); err != nil {
		return errors.Join(failure, err)
	}
	fmt.Fprintf(stdout, "%s\nresults are in %s; measured in %s\n", report.Markdown(f), path, time.Since(began).Round(time.Second))
	return failure
}

// contendersOf lists each contender once, in order of appearance.
func contendersOf(workloads []workload.Workload) []contender.Contender {
	var all []contender.Contender
	seen := map[string]bool{}
	for _, w := range workloads {
		for _, t := range w.Turns {
			if name := t.Contender.Name(); !seen[name] {
				seen[name] = true
				all = append(all, t.Contender)
			}
		}
	}
	return all
}

func listCommand(_ context.Context, _ []string, _ io.Reader, stdout, _ io.Writer) error {
	for _, w := range catalogue(".writ/bench") {
		command := "bench"
		if w.Length == workload.Long {
			command = "bench-long"
		}
		var turns []string
		for _, t := range w.Turns {
			turns = append(turns, strings.TrimSpace(t.Contender.Name()+" "+t.Variant))
		}
		fmt.Fprintf(stdout, "%-10s %-10s %d rounds  %s\n%s%s\n", w.Name, command, w.Rounds, w.Title, strings.Repeat(" ", 22), strings.Join(turns, ", "))
	}
	return nil
}

func reportCommand(_ context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench report", flag.ContinueOnError)
	flags.SetOutput(stderr)
	docs := flags.String("docs", "", "directory whose benchmarks.md and benchmarks.svg are drawn again (default: none, print only)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("name the files with results")
	}
	f, err := report.Read(flags.Args())
	if err != nil {
		return err
	}
	if *docs != "" {
		return report.WriteDocs(*docs, f)
	}
	_, err = fmt.Fprintln(stdout, report.Markdown(f))
	return err
}
