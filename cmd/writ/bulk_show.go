package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/writhq/writ/intent"
)

func (a *app) bulkShowCommand() *cobra.Command {
	var rows bool
	cmd := &cobra.Command{
		Use:   "show BULK",
		Short: "Show a bulk: how far it is, what it is made of, and what became of its rows",
		Args:  words("BULK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseID(args[0])
			if err != nil {
				return err
			}
			return a.withPool(cmd.Context(), func(pool *pgxpool.Pool) error {
				if rows {
					return a.bulkRows(cmd.Context(), pool, id)
				}
				return a.showBulk(cmd.Context(), pool, id)
			})
		},
	}
	cmd.Flags().BoolVar(&rows, "rows", false, "each row with its result instead")
	return cmd
}

func (a *app) bulkListCommand() *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List bulks, the newest first",
		Args:  words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 {
				return usage("--limit %d: give at least 1", limit)
			}
			return a.withPool(cmd.Context(), func(pool *pgxpool.Pool) error { return a.bulkList(cmd.Context(), pool, limit) })
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 20, "at most so many")
	return cmd
}

// bulkView is a bulk as JSON shows it.
type bulkView struct {
	intent.Bulk
	State   string              `json:"state"`
	Left    int                 `json:"left"`
	Groups  []intent.BulkGroup  `json:"groups,omitempty"`
	Results []intent.BulkResult `json:"results,omitempty"`
}

func (a *app) showBulk(ctx context.Context, pool *pgxpool.Pool, id intent.ID) error {
	b, err := intent.GetBulk(ctx, pool, id)
	if err != nil {
		return err
	}
	view := bulkView{Bulk: b, State: b.State(), Left: b.Left()}
	if b.Left() > 0 && b.AbortedAt == nil {
		if view.Groups, err = intent.PreviewBulk(ctx, pool, id); err != nil {
			return err
		}
	}
	if b.StartedAt != nil {
		if view.Results, err = intent.BulkResults(ctx, pool, id); err != nil {
			return err
		}
	}
	if a.isJSON() {
		return a.emit(view)
	}
	at := now(ctx, pool)
	rate, stepped, aborted := "", "", ""
	if b.Rate != nil {
		rate = fmt.Sprintf("%g a second", *b.Rate)
	}
	if b.SteppedAt != nil {
		stepped = when(*b.SteppedAt, at)
	}
	if b.AbortedBy != nil {
		aborted = fmt.Sprintf("%s by %s: %s", when(*b.AbortedAt, at), clean(*b.AbortedBy), said(b.AbortedWhy))
	}
	err = a.columns([][2]string{
		{"bulk", b.ID.String()},
		{"verb", string(b.Verb)},
		{"state", fmt.Sprintf("%s: %d of %d done, %d refused, %d left", b.State(), b.Done, b.Total, b.Refused, b.Left())},
		{"by", clean(b.Actor)},
		{"why", clean(b.Why)},
		{"override", said(b.Override)},
		{"merges", clean(string(b.Merge))},
		{"chosen by", clean(string(b.Filter))},
		{"planned", when(b.PlannedAt, at)},
		{"last step", stepped},
		{"rate", rate},
		{"aborted", aborted},
	})
	if err != nil {
		return err
	}
	return a.bulkTables(view)
}

func (a *app) bulkTables(v bulkView) error {
	if len(v.Groups) > 0 && v.StartedAt == nil {
		g := a.grid("intents", "kind", "status", "flagged for", "moved", "need --override", "for example")
		for _, x := range v.Groups {
			g.row(fmt.Sprint(x.N), clean(x.Kind), a.paint(x.Status), clean(x.FlagReason), fmt.Sprint(x.Moved), fmt.Sprint(x.NeedOverride), x.Example.String())
		}
		if err := g.print(); err != nil {
			return err
		}
		if err := a.bulkChanges(v); err != nil {
			return err
		}
	}
	if len(v.Results) == 0 {
		return nil
	}
	g := a.grid("rows", "result", "why", "for example")
	for _, r := range v.Results {
		g.row(fmt.Sprint(r.N), r.Result, clean(r.Message), r.Example.String())
	}
	g.wrap(3, a.width()-8-10-36)
	return g.print()
}

// bulkChanges shows what becomes of the arguments, by the example of each group.
func (a *app) bulkChanges(v bulkView) error {
	for _, x := range v.Groups {
		if x.Before == nil {
			continue
		}
		if _, err := fmt.Fprintf(a.stdout, "\narguments of %s, which change for %d of %d\n  before  %s\n  after   %s\n",
			x.Example, x.Changed, x.N, clean(string(x.Before)), clean(string(x.After))); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) bulkRows(ctx context.Context, pool *pgxpool.Pool, id intent.ID) error {
	if _, err := intent.GetBulk(ctx, pool, id); err != nil {
		return err
	}
	if a.isJSON() {
		inner := *a
		inner.output = outputJSONL // row by row, however many
		return intent.BulkRows(ctx, pool, id, func(r intent.BulkRow) error { return inner.emit(r) })
	}
	return intent.BulkRows(ctx, pool, id, func(r intent.BulkRow) error {
		result := r.Result
		if result == "" {
			result = "to do"
		}
		_, err := fmt.Fprintf(a.stdout, "%s  %s  %s\n", r.ID, result, joined(position(r.Seen), clean(r.Message)))
		return err
	})
}

func (a *app) bulkList(ctx context.Context, pool *pgxpool.Pool, limit int) error {
	bulks, err := intent.Bulks(ctx, pool, limit)
	if err != nil {
		return err
	}
	if a.isJSON() {
		views := make([]bulkView, len(bulks))
		for i, b := range bulks {
			views[i] = bulkView{Bulk: b, State: b.State(), Left: b.Left()}
		}
		return emitAll(a, views)
	}
	if len(bulks) == 0 {
		a.note("no bulks")
		return nil
	}
	at := now(ctx, pool)
	g := a.grid("bulk", "verb", "state", "total", "done", "refused", "planned", "by", "why")
	for _, b := range bulks {
		g.row(b.ID.String(), string(b.Verb), b.State(), fmt.Sprint(b.Total), fmt.Sprint(b.Done), fmt.Sprint(b.Refused),
			span(at.Sub(b.PlannedAt))+" ago", brief(clean(b.Actor)), short(clean(b.Why), 40))
	}
	return g.print()
}
