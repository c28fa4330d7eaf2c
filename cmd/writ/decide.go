package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/writhq/writ/fsm"
	"github.com/writhq/writ/intent"
)

// verdict is one of the four verbs with which a person decides.
type verdict struct {
	event       fsm.Event
	short, long string
	decide      func(context.Context, intent.DB, intent.Verdict) (intent.Position, error)
}

var verdicts = []verdict{
	{
		fsm.Happened, "Record that it was done: ambiguous, error → sent",
		"Nothing is run. Say in --why how you know, with --evidence what shows it.", intent.Happened,
	},
	{
		fsm.Retry, "Record that it was not done, and run it again: ambiguous, error → pending",
		`Attempts start from 0. The idempotency key stays, so that an outside system that keeps keys
still guards a wrong verdict, unless --args changes the arguments or --new-key asks for another.
Before the deadline and settle time are over, or while its worker lives, an effect may still
land: then it takes --override, which is recorded.`, intent.Retry,
	},
	{
		fsm.GiveUp, "Stop without a word on whether it was done: ambiguous → error",
		"Nothing is run, except the kind's recovery function if it has one.", intent.GiveUp,
	},
	{
		fsm.Cancel, "Say that it is never to be run: pending, error → cancelled",
		"What is being sent cannot be cancelled.", intent.Cancel,
	},
}

type verdictFlags struct {
	reasonFlags
	evidence       string
	state          string
	epoch          int32
	dryRun         bool
	override, args string
	newKey         bool
}

func (a *app) verdictCommand(v verdict) *cobra.Command {
	var f verdictFlags
	cmd := &cobra.Command{
		Use:   string(v.event) + " ID",
		Short: v.short,
		Long: v.short + ".\n\n" + v.long + `

It is decided on the position that was seen: the row is read, and if it moves before the
decision is written, nothing changes (exit code 5). --state and --epoch give the position
that you saw earlier, on a screen or in a list.`,
		Example: fmt.Sprintf("  writ %s ID --why 'the provider shows charge ch_71 for this key' --dry-run", v.event),
		Args:    words("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("state") != cmd.Flags().Changed("epoch") {
				return usage("writ %s: --state and --epoch go together: they are the position that you saw", v.event)
			}
			return a.decide(cmd.Context(), v, args[0], f)
		},
	}
	flags := cmd.Flags()
	f.bind(cmd)
	flags.StringVar(&f.evidence, "evidence", "", "anything worth keeping with it: JSON, @FILE, or -")
	flags.StringVar(&f.state, "state", "", "state that you saw (default: as read now)")
	flags.Int32Var(&f.epoch, "epoch", 0, "epoch that you saw (default: as read now)")
	flags.BoolVar(&f.dryRun, "dry-run", false, "show the exact transition and change nothing")
	if v.event == fsm.Retry {
		flags.StringVar(&f.override, "override", "", "how you know that the last attempt cannot land any more; recorded")
		flags.StringVar(&f.args, "args", "", "run with these arguments, under a new idempotency key: JSON, @FILE, or -")
		flags.BoolVar(&f.newKey, "new-key", false, "run under a new idempotency key")
	}
	return cmd
}

// outcome is what a verdict did, or would do.
type outcome struct {
	ID     intent.ID       `json:"id"`
	Verb   string          `json:"verb"`
	From   intent.Position `json:"from"`
	To     intent.Position `json:"to"`
	Key    string          `json:"idempotency_key,omitempty"` // as it is after
	Actor  string          `json:"actor"`
	DryRun bool            `json:"dry_run"`

	oldKey string
}

func (a *app) decide(ctx context.Context, v verdict, word string, f verdictFlags) error {
	decision, err := a.decision(word, f)
	if err != nil {
		return err
	}
	pool, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	o := outcome{ID: decision.ID, Verb: string(v.event), From: decision.Seen, Actor: decision.Actor, DryRun: f.dryRun}
	// A dry run does it all and rolls back: whatever would refuse the real one refuses this one.
	err = inTransaction(ctx, pool, !f.dryRun, func(tx pgx.Tx) error { return o.apply(ctx, tx, v, decision) })
	if err != nil {
		if isUnknown(err) && o.To.State != "" && !f.dryRun {
			return fmt.Errorf("%w\nwhether it was written is not known; look with writ timeline %s before you decide again", err, o.ID)
		}
		return err
	}
	return a.report(o)
}

// apply decides within a transaction. A position that was given is not read again: whoever may only cancel may not look.
func (o *outcome) apply(ctx context.Context, tx pgx.Tx, v verdict, d intent.Verdict) error {
	look := d.Seen.State == ""
	if look {
		before, err := intent.Get(ctx, tx, d.ID)
		if err != nil {
			return err
		}
		d.Seen, o.oldKey = before.Position(), before.IdempotencyKey
		o.From = d.Seen
	}
	to, err := v.decide(ctx, tx, d)
	if err != nil {
		return err
	}
	o.To = to
	if look {
		after, err := intent.Get(ctx, tx, d.ID)
		if err != nil {
			return err
		}
		o.Key = after.IdempotencyKey
	}
	return nil
}

func (a *app) decision(word string, f verdictFlags) (d intent.Verdict, err error) {
	if d.ID, err = parseID(word); err != nil {
		return d, err
	}
	if d.Actor, d.Why, err = f.reason(); err != nil {
		return d, err
	}
	d.Seen = intent.Position{State: f.state, Epoch: f.epoch}
	d.Override = f.override
	if f.newKey {
		d.NewKey = intent.FreshKey
	}
	if f.args == "-" && f.evidence == "-" {
		return d, usage("--args and --evidence cannot both be standard input; put one into a file and give @FILE")
	}
	for _, in := range []struct {
		flag, value string
		to          *json.RawMessage
	}{{"--args", f.args, &d.NewArgs}, {"--evidence", f.evidence, &d.Evidence}} {
		if in.value == "" {
			continue
		}
		if *in.to, err = a.readJSON(in.flag, in.value); err != nil {
			return d, err
		}
	}
	return d, nil
}

func (a *app) report(o outcome) error {
	if o.DryRun {
		a.note("dry run: nothing was changed")
	}
	switch {
	case o.Verb != string(fsm.Retry) || o.Key == "":
	case o.Key == o.oldKey:
		a.note("attempts start from 0; the idempotency key stays %s", o.Key)
	default:
		a.note("attempts start from 0; the idempotency key changes from %s to %s", o.oldKey, o.Key)
	}
	if a.isJSON() {
		return a.emit(o)
	}
	_, err := fmt.Fprintf(a.stdout, "%s %s: %s → %s\n", o.Verb, o.ID, position(o.From), position(o.To))
	return err
}

func position(p intent.Position) string {
	flag := ""
	if p.Flagged {
		flag = " (ambiguous)"
	}
	return fmt.Sprintf("%s%s at epoch %d", clean(p.State), flag, p.Epoch)
}
