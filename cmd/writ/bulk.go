package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/writhq/writ/fsm"
	"github.com/writhq/writ/intent"
)

func (a *app) bulkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bulk",
		Short: "Decide many intents at once: plan, run, abort, show, list",
		Long: `Decide many intents at once, with the same verbs and rules as one.

plan freezes the set and shows it; nothing is decided yet. run carries it out, each row as a
verdict of its own on the position that was seen when it was planned: what has moved since is
refused, and the result says what changed. If it is interrupted or killed nothing is half
done, and run goes on with it, from any terminal; abort ends it, from any terminal.`,
		Example: `  writ bulk plan retry --worker web3 --flag-reason worker-died --why 'web3 ran out of memory before it sent any'
  writ bulk run BULK --limit 1                 # a canary
  writ bulk run BULK --rate 20 --yes`,
	}
	group(cmd)
	cmd.AddCommand(a.bulkPlanCommand(), a.bulkRunCommand(), a.bulkAbortCommand(), a.bulkShowCommand(), a.bulkListCommand())
	return cmd
}

type bulkPlanFlags struct {
	filterFlags
	reasonFlags
	evidence, override, merge string
	newKey, all               bool
}

func (a *app) bulkPlanCommand() *cobra.Command {
	var f bulkPlanFlags
	cmd := &cobra.Command{
		Use:   "plan VERB [ID…|-]",
		Short: "Freeze the set of intents to decide, and show it; decides nothing",
		Long: `Freeze the set of intents to decide, and show it: those that the flags choose and from which the
verb is legal. IDs narrow it to a selection; - reads them from standard input, one a line.`,
		Example: `  writ bulk plan retry --status error --error 'customer 7 is locked' --since 2h --why 'the lock was lifted at ten'
  writ bulk plan retry --kind shop.invoice.mail --status error --merge '{"sender": "billing@example.com"}' --why 'the old sender is blocked'
  writ list --subject order:71 --status error -o jsonl | jq -r .id | writ bulk plan cancel - --why 'order 71 was withdrawn'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("writ bulk plan takes VERB (happened, retry, give-up or cancel), then IDs or flags that choose")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.bulkPlan(cmd.Context(), args[0], args[1:], f) },
	}
	flags := cmd.Flags()
	f.add(flags)
	flags.BoolVar(&f.all, "all", false, "all from which the verb is legal: needed where no other flag chooses")
	flags.StringVar(&f.why, "why", "", "the reason, at least 10 characters; recorded with each verdict (required)")
	flags.StringVar(&f.actor, "actor", "", "who decides; recorded (default: the OS user and host)")
	flags.StringVar(&f.evidence, "evidence", "", "anything worth keeping with each verdict: JSON, @FILE, or -")
	flags.StringVar(&f.override, "override", "", "retry: how you know that none of them can land any more; recorded")
	flags.BoolVar(&f.newKey, "new-key", false, "retry: under new idempotency keys")
	flags.StringVar(&f.merge, "merge", "", "retry: change the arguments of all by this JSON merge patch, under new idempotency keys: JSON, @FILE, or -")
	return cmd
}

func (a *app) bulkPlan(ctx context.Context, verb string, words []string, f bulkPlanFlags) error {
	actor, why, err := f.reason()
	if err != nil {
		return err
	}
	plan := intent.BulkPlan{Verb: fsm.Event(verb), Actor: actor, Why: why, Override: f.override}
	if f.newKey {
		plan.NewKey = intent.FreshKey
	}
	if plan.IDs, err = a.readIDs(words); err != nil {
		return err
	}
	if err := a.readPlan(&plan, words, f); err != nil {
		return err
	}
	if plan.IDs == nil && f.filterFlags == (filterFlags{}) && !f.all {
		return usage("writ bulk plan %s: say which intents, with IDs or flags like --kind and --status; --all if you mean all", clean(verb))
	}
	pool, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	if plan.Filter, err = f.filter(func() time.Time { return now(ctx, pool) }); err != nil {
		return err
	}
	id, err := intent.PlanBulk(ctx, pool, plan)
	if err != nil {
		return err
	}
	a.note("nothing is decided yet; carry it out with: writ bulk run %s", id)
	return a.showBulk(ctx, pool, id)
}

// readPlan reads what the flags give as JSON.
func (a *app) readPlan(plan *intent.BulkPlan, words []string, f bulkPlanFlags) (err error) {
	inputs := 0
	for _, in := range append([]string{f.evidence, f.merge}, words...) {
		if in == "-" {
			inputs++
		}
	}
	if inputs > 1 {
		return usage("only one of the IDs, --evidence and --merge can be standard input; put the others into files and give @FILE")
	}
	if f.evidence != "" {
		if plan.Evidence, err = a.readJSON("--evidence", f.evidence); err != nil {
			return err
		}
	}
	if f.merge != "" {
		plan.Merge, err = a.readJSON("--merge", f.merge)
	}
	return err
}

// readIDs reads IDs from the arguments, or from standard input if there is one argument, -. No arguments: nil.
func (a *app) readIDs(words []string) ([]intent.ID, error) {
	if len(words) == 0 {
		return nil, nil
	}
	if len(words) == 1 && words[0] == "-" {
		words = nil
		lines := bufio.NewScanner(a.stdin)
		for lines.Scan() {
			if line := strings.TrimSpace(lines.Text()); line != "" {
				words = append(words, line)
			}
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("read IDs: %w", err)
		}
	}
	ids := make([]intent.ID, len(words))
	for i, word := range words {
		var err error
		if ids[i], err = parseID(word); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

type bulkRunFlags struct {
	actor string
	rate  float64
	limit int
	yes   bool
}

// unasked is how many rows are decided without asking.
const unasked = 100

func (a *app) bulkRunCommand() *cobra.Command {
	var f bulkRunFlags
	cmd := &cobra.Command{
		Use:   "run BULK",
		Short: "Carry a planned bulk out, or go on with it; exit code 6 if some rows were refused",
		Args:  words("BULK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !(f.rate >= 0) || math.IsInf(f.rate, 0) || f.limit < 0 { // NaN is not above 0 either
				return usage("--rate and --limit are positive numbers")
			}
			return a.bulkRun(cmd.Context(), args[0], f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.actor, "actor", "", "who carries it out; recorded (default: the OS user and host)")
	flags.Float64Var(&f.rate, "rate", 0, "rows a second, for all who run it (default: as it was set before; at first no limit)")
	flags.IntVar(&f.limit, "limit", 0, "stop after so many rows; 1 makes a canary (default: none)")
	flags.BoolVar(&f.yes, "yes", false, fmt.Sprintf("do not ask; required off a terminal above %d rows", unasked))
	return cmd
}

func (a *app) bulkRun(ctx context.Context, word string, f bulkRunFlags) error {
	id, err := parseID(word)
	if err != nil {
		return err
	}
	actor := strings.TrimSpace(f.actor)
	if actor == "" {
		actor = whoami()
	}
	pool, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	b, err := intent.GetBulk(ctx, pool, id)
	if err != nil {
		return err
	}
	if err := a.confirmBulk(b, f); err != nil {
		return err
	}
	b, err = intent.RunBulk(ctx, pool, id, intent.BulkRun{Actor: actor, Rate: f.rate, Limit: f.limit, Progress: a.bulkProgress()})
	if err != nil {
		if ctx.Err() != nil {
			a.note("interrupted; nothing is half done. Go on with writ bulk run %s, or end it with writ bulk abort %s", id, id)
		}
		return err
	}
	if err := a.showBulk(ctx, pool, id); err != nil {
		return err
	}
	switch {
	case b.State() == "aborted":
		a.note("aborted by %s: %s", clean(*b.AbortedBy), clean(*b.AbortedWhy))
		return &exitError{Code: exitPartly}
	case b.Refused > 0:
		a.note("%d of %d were refused; what changed is in writ bulk show %s --rows", b.Refused, b.Total, id)
		return &exitError{Code: exitPartly}
	}
	return nil
}

// bulkProgress says now and then how far it has come.
func (a *app) bulkProgress() func(intent.Bulk) {
	said := time.Now()
	return func(b intent.Bulk) {
		if time.Since(said) > 2*time.Second {
			said = time.Now()
			a.note("%d of %d", b.Total-b.Left(), b.Total)
		}
	}
}

// confirmBulk lets a person at a terminal type the number of rows, if it is high; nobody else is asked.
func (a *app) confirmBulk(b intent.Bulk, f bulkRunFlags) error {
	n := b.Left()
	if f.limit > 0 {
		n = min(n, f.limit)
	}
	if f.yes || n <= unasked || b.State() == "aborted" {
		return nil
	}
	if !isTerminal(a.stdin) {
		return usage("bulk %s decides %d intents (%s); if you mean it, add --yes, or try one first with --limit 1", b.ID, n, b.Verb)
	}
	_, _ = fmt.Fprintf(a.stderr, "This decides %d intents: %s, %s.\nType the number to go on: ", n, b.Verb, clean(b.Why))
	answer, _ := bufio.NewReader(a.stdin).ReadString('\n') // nothing read is no confirmation
	if strings.TrimSpace(answer) != fmt.Sprint(n) {
		return errors.New("not confirmed; nothing was changed")
	}
	return nil
}

func (a *app) bulkAbortCommand() *cobra.Command {
	var f reasonFlags
	cmd := &cobra.Command{
		Use:   "abort BULK",
		Short: "End a bulk, wherever it is run: no further row is decided",
		Args:  words("BULK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseID(args[0])
			if err != nil {
				return err
			}
			actor, why, err := f.reason()
			if err != nil {
				return err
			}
			return a.withPool(cmd.Context(), func(pool *pgxpool.Pool) error {
				if _, err := intent.AbortBulk(cmd.Context(), pool, id, actor, why); err != nil {
					return err
				}
				return a.showBulk(cmd.Context(), pool, id)
			})
		},
	}
	cmd.Flags().StringVar(&f.why, "why", "", "the reason, at least 10 characters; recorded (required)")
	cmd.Flags().StringVar(&f.actor, "actor", "", "who aborts it; recorded (default: the OS user and host)")
	cmd.Flags().Bool("yes", false, "accepted by all writes; this one never asks")
	return cmd
}

// withPool opens a pool for the time of do.
func (a *app) withPool(ctx context.Context, do func(*pgxpool.Pool) error) error {
	pool, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	return do(pool)
}
