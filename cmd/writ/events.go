package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/writhq/writ/intent"
)

func (a *app) eventsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Events that subscriptions could not turn into intents: list, retry, drop",
	}
	group(cmd)
	cmd.AddCommand(a.eventsListCommand(),
		a.eventCommand("retry", "Have an event tried again soon", "retried", intent.RetryEvent),
		a.eventCommand("drop", "Settle an event without creating anything", "dropped", intent.DropEvent))
	return cmd
}

func (a *app) eventsListCommand() *cobra.Command {
	var subscription, status string
	var limit int
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the unsettled ones, the oldest first",
		Args:  words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case limit < 1 || limit > 100_000:
				return usage("--limit %d: give 1 to 100000", limit)
			case status != "" && status != "retrying" && status != "dead":
				return usage("--status %q: give retrying or dead", status)
			}
			return a.withPool(cmd.Context(), func(pool *pgxpool.Pool) error {
				return a.listEvents(cmd.Context(), pool, subscription, status, limit)
			})
		},
	}
	cmd.Flags().StringVar(&subscription, "subscription", "", "only those of this one: application/event/name")
	cmd.Flags().StringVar(&status, "status", "", "retrying or dead")
	cmd.Flags().IntVar(&limit, "limit", 50, "at most so many")
	return cmd
}

func (a *app) listEvents(ctx context.Context, pool *pgxpool.Pool, subscription, status string, limit int) error {
	found, err := intent.ListUnsettled(ctx, pool, subscription, status, limit+1)
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

func (a *app) eventCommand(verb, what, past string, do func(context.Context, intent.DB, intent.Unsettled, intent.Word) error) *cobra.Command {
	var f reasonFlags
	cmd := &cobra.Command{
		Use:     verb + " SUBSCRIPTION SOURCE EVENT",
		Short:   what,
		Example: fmt.Sprintf("  writ events %s pheidi/user.authorized/greet api 019a3c5e-8f5c-7a10-9d54-0b6f9e3d2c11 --why 'fixed in release 41'", verb),
		Args:    words("SUBSCRIPTION", "SOURCE", "EVENT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			actor, why, err := f.reason()
			if err != nil {
				return err
			}
			u := intent.Unsettled{Subscription: args[0], Source: args[1], EventID: args[2]}
			return a.withPool(cmd.Context(), func(pool *pgxpool.Pool) error {
				if err := do(cmd.Context(), pool, u, intent.Word{Actor: actor, Why: why}); err != nil {
					return err
				}
				if a.isJSON() {
					return a.emit(struct {
						Did          string `json:"did"`
						Subscription string `json:"subscription"`
						Source       string `json:"source"`
						EventID      string `json:"event_id"`
						Actor        string `json:"actor"`
					}{past, u.Subscription, u.Source, u.EventID, actor})
				}
				_, err := fmt.Fprintf(a.stdout, "%s: event %s of %s at %s\n", past, clean(u.EventID), clean(u.Source), clean(u.Subscription))
				return err
			})
		},
	}
	f.bind(cmd)
	return cmd
}
