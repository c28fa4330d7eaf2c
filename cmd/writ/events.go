package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/writhq/writ/intent"
)

func (a *app) eventsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Events that subscriptions could not turn into intents: list, retry, drop",
	}
	group(cmd)
	cmd.AddCommand(a.eventsListCommand(),
		a.eventCommand(eventVerb{"retry", "Have an event, or all that the flags choose, tried again soon", "retried", intent.RetryEvent}),
		a.eventCommand(eventVerb{"drop", "Settle an event, or all that the flags choose, without creating anything", "dropped", intent.DropEvent}))
	return cmd
}

// eventFilter are the flags that choose events.
type eventFilter struct{ intent.UnsettledFilter }

func (f *eventFilter) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.Subscription, "subscription", "", "only those of this one: application/event/name")
	flags.StringVar(&f.Type, "type", "", "only this event, like user.authorized")
	flags.StringVar(&f.Status, "status", "", "retrying or dead")
	flags.StringVar(&f.Error, "error", "", "only those with this error, give or take numbers, ids, addresses and quoted strings")
}

func (f *eventFilter) check() error {
	if f.Status != "" && f.Status != "retrying" && f.Status != "dead" {
		return usage("--status %q: give retrying or dead", f.Status)
	}
	return nil
}

func (a *app) eventsListCommand() *cobra.Command {
	var f eventFilter
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the unsettled ones, the oldest first",
		Args:  words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.Limit < 1 || f.Limit > 100_000 {
				return usage("--limit %d: give 1 to 100000", f.Limit)
			}
			if err := f.check(); err != nil {
				return err
			}
			return a.withPool(cmd.Context(), func(pool *pgxpool.Pool) error {
				return a.listEvents(cmd.Context(), pool, f.UnsettledFilter)
			})
		},
	}
	f.add(cmd.Flags())
	cmd.Flags().IntVar(&f.Limit, "limit", 50, "at most so many")
	return cmd
}

func (a *app) listEvents(ctx context.Context, pool *pgxpool.Pool, f intent.UnsettledFilter) error {
	limit := f.Limit
	f.Limit++
	found, err := intent.ListUnsettled(ctx, pool, f)
	if err != nil {
		return err
	}
	if len(found) > limit {
		found = found[:limit]
		a.note("there are more than these %d; raise --limit or narrow the search", limit)
	}
	if a.isJSON() {
		return emitAll(a, found)
	}
	if len(found) == 0 {
		a.note("no events wait to be settled")
		return nil
	}
	at := now(ctx, pool)
	g := a.grid("subscription", "source", "event", "status", "failures", "age", "error")
	for _, u := range found {
		g.row(clean(u.Subscription), clean(u.Source), clean(u.EventID), a.paint(u.Status), fmt.Sprint(u.Failures), span(at.Sub(u.ReceivedAt)),
			short(clean(u.LastError), 80))
	}
	return g.print()
}
