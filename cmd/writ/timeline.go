package main

import (
	"context"
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/writhq/writ/intent"
)

func (a *app) timelineCommand() *cobra.Command {
	return a.lookCommand("timeline", "Show what happened to an intent: attempts, flags, verdicts, who and why", a.timeline)
}

func (a *app) timeline(ctx context.Context, pool *pgxpool.Pool, id intent.ID) error {
	entries, err := intent.Timeline(ctx, pool, id)
	if err != nil {
		return err
	}
	if a.isJSON() {
		return emitAll(a, entries)
	}
	wide := a.output == outputWide
	zone, _ := entries[0].At.Local().Zone()
	g := a.grid("time ("+zone+")", "event", "actor", "epoch", "why")
	actors := len("actor")
	for _, e := range entries {
		at, actor := e.At.Local().Format("2006-01-02 15:04:05.000"), clean(e.Actor)
		if !wide {
			at, actor = at[:len("2006-01-02 15:04:05")], brief(actor)
		}
		actors = max(actors, len([]rune(actor)))
		g.row(at, clean(e.Event), actor, fmt.Sprint(e.Epoch), joined(clean(e.Why), evidence(e.Evidence)))
	}
	g.wrap(5, a.width()-19-2-9-2-actors-2-5-2)
	return g.print()
}

var longID = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}([0-9a-f]{8})`)

// brief shows only the random end of ids, and cuts what is long even so.
func brief(actor string) string { return short(longID.ReplaceAllString(actor, "…$1"), 24) }
