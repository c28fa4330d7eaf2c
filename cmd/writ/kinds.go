package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
)

func (a *app) kindsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "kinds", Short: "List kinds and what holds them back; keep a typed view per kind"}
	group(cmd)
	cmd.AddCommand(&cobra.Command{
		Use:   "list",
		Short: "All kinds that workers declared, and what holds them back: pauses and circuit breakers",
		Args:  words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withPool(cmd.Context(), func(pool *pgxpool.Pool) error { return a.listKinds(cmd.Context(), pool) })
		},
	}, &cobra.Command{
		Use:   "sync [KIND…]",
		Short: "Make a view of each kind, like writ.kind_blog_comment_notify, or bring it up to date",
		Long: `Make a view of each kind, like writ.kind_blog_comment_notify for blog.comment.notify, or bring it
up to date. Its columns are the arguments that the workers' code declares, then others that a
sample of the newest rows has. Run it after each deployment.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withPool(cmd.Context(), func(pool *pgxpool.Pool) error { return a.syncKinds(cmd.Context(), pool, args) })
		},
	})
	return cmd
}

// synced is what became of a kind's view.
type synced struct {
	Kind string `json:"kind"`
	View string `json:"view"`
	Did  string `json:"did"`
}

func (a *app) syncKinds(ctx context.Context, pool *pgxpool.Pool, kinds []string) error {
	var err error
	if len(kinds) == 0 {
		if kinds, err = store.KnownKinds(ctx, pool); err != nil {
			return fmt.Errorf("kinds sync: %w", err)
		}
	}
	var all []synced
	kept := 0
	for _, kind := range kinds {
		s, err := store.SyncKind(ctx, pool, kind)
		if err != nil {
			return fmt.Errorf("kinds sync: %s: %w", clean(kind), explain(err))
		}
		if strings.HasPrefix(s.Did, "kept") {
			kept++
		}
		if s.View != "" {
			s.View = "writ." + s.View
		}
		all = append(all, synced{kind, s.View, s.Did})
	}
	if kept > 0 {
		a.note("%d of %d views were left as they are", kept, len(all))
	}
	if a.isJSON() {
		return emitAll(a, all)
	}
	if len(all) == 0 {
		a.note("no kind is declared, and there are no intents")
		return nil
	}
	g := a.grid("kind", "view", "did")
	for _, s := range all {
		g.row(clean(s.Kind), clean(s.View), s.Did)
	}
	return g.print()
}

func (a *app) listKinds(ctx context.Context, pool *pgxpool.Pool) error {
	all, err := intent.Kinds(ctx, pool)
	if err != nil {
		return err
	}
	if a.isJSON() {
		return emitAll(a, all)
	}
	if len(all) == 0 {
		a.note("no worker ever declared a kind")
		return nil
	}
	g := a.grid("kind", "queue", "class", "workers", "waiting", "state")
	for _, k := range all {
		waiting := "-"
		if k.Waiting != nil {
			waiting = strconv.FormatInt(*k.Waiting, 10)
		}
		g.row(clean(k.Kind), clean(k.Queue), k.Class, strconv.FormatInt(k.Workers, 10), waiting, clean(stateOf(k)))
	}
	return g.print()
}

// stateOf says in words what holds a kind back.
func stateOf(k intent.KindState) string {
	var parts []string
	if k.Paused {
		parts = append(parts, k.PauseWhy)
	}
	switch {
	case k.Breaker == "open" && k.Until != nil:
		parts = append(parts, "breaker open until "+k.Until.UTC().Format(time.RFC3339)+": "+k.BreakerWhy)
	case k.Breaker != "closed":
		parts = append(parts, "breaker "+k.Breaker+": "+k.BreakerWhy)
	}
	if len(parts) == 0 {
		return "open"
	}
	return strings.Join(parts, "; ")
}
