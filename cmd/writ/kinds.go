package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/writhq/writ/internal/store"
)

func (a *app) kindsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "kinds", Short: "Keep a typed view per kind, with the arguments as columns"}
	group(cmd)
	cmd.AddCommand(&cobra.Command{
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
