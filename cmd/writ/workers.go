package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/writhq/writ/intent"
)

func (a *app) workersCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "workers",
		Short: "List the worker processes: what they are at, which shut down, died or have handlers that do not return",
		Args:  words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withPool(cmd.Context(), func(pool *pgxpool.Pool) error { return a.workers(cmd.Context(), pool) })
		},
	}
}

func (a *app) workers(ctx context.Context, pool *pgxpool.Pool) error {
	found, err := intent.Workers(ctx, pool)
	if err != nil {
		return err
	}
	if a.isJSON() {
		return emitAll(a, found)
	}
	if len(found) == 0 {
		a.note("there are no workers; start the application's (package workers)")
		return nil
	}
	at := now(ctx, pool)
	g := a.grid("host", "pid", "status", "running", "stuck", "up for", "heartbeat", "version", "kinds")
	for _, w := range found {
		g.row(clean(w.Host), fmt.Sprint(w.PID), w.Status, fmt.Sprintf("%d of %d", w.Running, w.Slots), fmt.Sprint(w.Stuck),
			span(at.Sub(w.StartedAt)), span(at.Sub(w.HeartbeatAt))+" ago", clean(w.Version), short(clean(strings.Join(w.Kinds, " ")), 60))
	}
	return g.print()
}
