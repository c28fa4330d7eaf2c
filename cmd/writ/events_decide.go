package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/writhq/writ/intent"
)

// eventVerb is what a person can decide about an event.
type eventVerb struct {
	name, short, past string
	decide            func(context.Context, intent.DB, intent.Unsettled, intent.Word) error
}

type eventFlags struct {
	eventFilter
	reasonFlags
	all, dryRun, yes bool
}

func (a *app) eventCommand(v eventVerb) *cobra.Command {
	var f eventFlags
	cmd := &cobra.Command{
		Use:   v.name + " [SUBSCRIPTION SOURCE EVENT]",
		Short: v.short,
		Long: v.short + `.

Without an event the flags choose, and each that they choose when it begins is decided by itself:
who interrupts it leaves nothing half done. What was settled meanwhile is left out (exit code 6).`,
		Example: fmt.Sprintf(`  writ events %[1]s pheidi/user.authorized/greet api 019a3c5e-8f5c-7a10-9d54-0b6f9e3d2c11 --why 'fixed in release 41'
  writ events %[1]s --status dead --error 'no such user 7' --why 'fixed in release 41' --dry-run`, v.name),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 0 && len(args) != 3 {
				return usage("%s takes SUBSCRIPTION SOURCE EVENT, or flags that choose; got %d arguments", cmd.CommandPath(), len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			actor, why, err := f.reason()
			if err != nil {
				return err
			}
			if err := f.check(); err != nil {
				return err
			}
			word := intent.Word{Actor: actor, Why: why}
			chosen := f.UnsettledFilter != intent.UnsettledFilter{}
			switch {
			case len(args) == 3 && (chosen || f.all || f.dryRun):
				return usage("writ events %s: give an event, or flags that choose, not both", v.name)
			case len(args) == 0 && !chosen && !f.all:
				return usage("writ events %s: say which, with SUBSCRIPTION SOURCE EVENT or flags like --status and --error; --all if you mean all", v.name)
			}
			return a.withPool(cmd.Context(), func(pool *pgxpool.Pool) error {
				if len(args) == 0 {
					return a.decideEvents(cmd.Context(), pool, v, f, word)
				}
				return a.decideEvent(cmd.Context(), pool, v, intent.Unsettled{Subscription: args[0], Source: args[1], EventID: args[2]}, word)
			})
		},
	}
	flags := cmd.Flags()
	f.add(flags)
	flags.StringVar(&f.why, "why", "", "the reason, at least 10 characters; recorded (required)")
	flags.StringVar(&f.actor, "actor", "", "who decides; recorded (default: the OS user and host)")
	flags.BoolVar(&f.all, "all", false, "all that are not settled: needed where no other flag chooses")
	flags.BoolVar(&f.dryRun, "dry-run", false, "say how many it would be and change nothing")
	flags.BoolVar(&f.yes, "yes", false, fmt.Sprintf("do not ask; required off a terminal above %d events", unasked))
	return cmd
}

func (a *app) decideEvent(ctx context.Context, pool *pgxpool.Pool, v eventVerb, u intent.Unsettled, word intent.Word) error {
	if err := v.decide(ctx, pool, u, word); err != nil {
		return err
	}
	if a.isJSON() {
		return a.emit(struct {
			Did          string `json:"did"`
			Subscription string `json:"subscription"`
			Source       string `json:"source"`
			EventID      string `json:"event_id"`
			Actor        string `json:"actor"`
		}{v.past, u.Subscription, u.Source, u.EventID, word.Actor})
	}
	_, err := fmt.Fprintf(a.stdout, "%s: event %s of %s at %s\n", v.past, clean(u.EventID), clean(u.Source), clean(u.Subscription))
	return err
}

// decidedEvents is what became of many.
type decidedEvents struct {
	Did    string `json:"did"`
	Chosen int    `json:"chosen"`
	Done   int    `json:"done"`
	Actor  string `json:"actor"`
	DryRun bool   `json:"dry_run"`
}

func (a *app) decideEvents(ctx context.Context, pool *pgxpool.Pool, v eventVerb, f eventFlags, word intent.Word) error {
	all, err := intent.ListUnsettled(ctx, pool, intent.UnsettledFilter{Subscription: f.Subscription, Type: f.Type, Status: f.Status, Error: f.Error, KeysOnly: true})
	if err != nil {
		return err
	}
	d := decidedEvents{Did: v.past, Chosen: len(all), Actor: word.Actor, DryRun: f.dryRun}
	if f.dryRun {
		a.note("dry run: nothing was changed")
		return a.showDecided(d)
	}
	if err := a.confirmEvents(v, len(all), f.yes); err != nil {
		return err
	}
	for _, u := range all {
		switch err := v.decide(ctx, pool, u, word); {
		case err == nil:
			d.Done++
		case errors.Is(err, intent.ErrIllegal), errors.Is(err, intent.ErrNotFound): // settled meanwhile, or forgotten since
		default:
			a.note("%d of %d were %s; nothing is half done, and the same command goes on with the rest", d.Done, d.Chosen, v.past)
			return err
		}
	}
	if err := a.showDecided(d); err != nil {
		return err
	}
	if d.Done < d.Chosen {
		a.note("%d were settled by others meanwhile", d.Chosen-d.Done)
		return &exitError{Code: exitPartly}
	}
	return nil
}

func (a *app) showDecided(d decidedEvents) error {
	if a.isJSON() {
		return a.emit(d)
	}
	n := d.Done
	if d.DryRun {
		n = d.Chosen
	}
	_, err := fmt.Fprintf(a.stdout, "%s: %d of %d events\n", d.Did, n, d.Chosen)
	return err
}

// confirmEvents lets a person at a terminal type the number of events, if it is high; nobody else is asked.
func (a *app) confirmEvents(v eventVerb, n int, yes bool) error {
	if yes || n <= unasked {
		return nil
	}
	if !isTerminal(a.stdin) {
		return usage("writ events %s decides %d events; if you mean it, add --yes", v.name, n)
	}
	_, _ = fmt.Fprintf(a.stderr, "This decides %d events: %s.\nType the number to go on: ", n, v.name)
	answer, _ := bufio.NewReader(a.stdin).ReadString('\n') // nothing read is no confirmation
	if strings.TrimSpace(answer) != fmt.Sprint(n) {
		return errors.New("not confirmed; nothing was changed")
	}
	return nil
}
