package demo

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/writhq/writ/intent"
)

// report prints the summary and checks everything; the error says how many checks failed.
func (d *director) report(ctx context.Context) error {
	d.say.title("\nSummary")
	intents, err := d.readIntents(ctx)
	if err != nil {
		return err
	}
	d.timings(intents)
	if err := d.states(ctx); err != nil {
		return err
	}
	d.say.title("\nChecked against the mail server's own log")
	failed, err := d.check(ctx, intents)
	if err != nil {
		return err
	}
	d.say.line("")
	if failed > 0 {
		return fmt.Errorf("%d checks failed", failed)
	}
	d.say.title("All true, in %.0f s.", time.Since(d.say.began).Seconds())
	return nil
}

// readIntents reads all intents, by id.
func (d *director) readIntents(ctx context.Context) (map[intent.ID]intent.Intent, error) {
	all, err := intent.List(ctx, d.db, intent.Filter{Kind: d.Kind, Limit: 1 << 20})
	if err != nil {
		return nil, err
	}
	byID := make(map[intent.ID]intent.Intent, len(all))
	for _, i := range all {
		byID[i.ID] = i
	}
	return byID, nil
}

// timings prints how long it took from the comment's commit to its mail, per act.
func (d *director) timings(intents map[intent.ID]intent.Intent) {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Options = table.OptionsNoBordersAndSeparators
	t.Style().Format.Header = text.FormatDefault
	t.AppendHeader(table.Row{"created → sent", "comments", "sent", "p50", "p95", "max"})
	t.SetColumnConfigs([]table.ColumnConfig{
		{Number: 4, Align: text.AlignRight}, {Number: 5, Align: text.AlignRight}, {Number: 6, Align: text.AlignRight},
	})
	var all []time.Duration
	row := func(name string, posted int, took []time.Duration) {
		slices.Sort(took)
		t.AppendRow(table.Row{name, posted, len(took), percentile(took, 50), percentile(took, 95), percentile(took, 100)})
	}
	for n, a := range d.acts {
		var took []time.Duration
		posted := 0
		for _, p := range d.postings {
			if p.act != n {
				continue
			}
			posted++
			if i, ok := intents[p.Intent]; ok && i.Status == "sent" {
				took = append(took, i.FinishedAt.Sub(i.RequestedAt))
			}
		}
		all = append(all, took...)
		row(a.name, posted, took)
	}
	row("all", len(d.postings), all)
	t.SuppressTrailingSpaces()
	d.say.line(t.Render())
}

// percentile by the nearest rank; sorted ascending.
func percentile(sorted []time.Duration, p int) string {
	if len(sorted) == 0 {
		return "-"
	}
	v := sorted[max(0, (len(sorted)*p+99)/100-1)]
	if v < time.Second {
		return fmt.Sprintf("%d ms", v.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", v.Seconds())
}

// states prints how many intents stand where.
func (d *director) states(ctx context.Context) error {
	rows, err := d.db.Query(ctx, `SELECT status, count(*) FROM writ.status GROUP BY 1 ORDER BY 2 DESC`)
	if err != nil {
		return err
	}
	line := " writ.status:"
	var status string
	var n int
	_, err = pgx.ForEachRow(rows, []any{&status, &n}, func() error {
		line += fmt.Sprintf("  %s %d", status, n)
		return nil
	})
	d.say.line("\n" + line)
	return err
}
