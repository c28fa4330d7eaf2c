package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/writhq/writ/intent"
)

// outputCSV is a value of --format alone.
const outputCSV = "csv"

type auditFlags struct {
	since, until, id, format string
	actors                   []string
}

func (a *app) auditCommand() *cobra.Command {
	var f auditFlags
	formats := append(slices.Clone(outputs), outputCSV)
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show what people did, and why: verdicts, notes, bulks, adoptions; for export",
		Long: `Show what people, and programs in their place, did: who, as which database user, when, to what,
and why. In the order of time, without an end and without a limit unless --since and --until
give one. It is written out row by row, however much it is.`,
		Example: `  writ audit --since 7d
  writ audit --since 2026-03-01T00:00:00Z --until 2026-04-01T00:00:00Z --format csv > march.csv`,
		Args: words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.format == "" {
				f.format = a.output
			}
			if !slices.Contains(formats, f.format) {
				return usage("--format %s: one of %s", f.format, strings.Join(formats, ", "))
			}
			return a.audit(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.since, "since", "", "not before: a time like 2026-03-01T08:00:00Z, or how long ago, like 2h or 3d")
	flags.StringVar(&f.until, "until", "", "before")
	flags.StringSliceVar(&f.actors, "actor", nil, "only these actors; may be given more than once")
	flags.StringVar(&f.id, "id", "", "only what was done to this intent")
	flags.StringVar(&f.format, "format", "", "as -o, or csv")
	return cmd
}

func (f auditFlags) filter(ctx context.Context, pool *pgxpool.Pool) (out intent.AuditFilter, err error) {
	out.Actors = f.actors
	at := func() time.Time { return now(ctx, pool) }
	if out.Since, err = parseAgo("--since", f.since, at); err != nil {
		return out, err
	}
	if out.Until, err = parseAgo("--until", f.until, at); err != nil || f.id == "" {
		return out, err
	}
	out.Intent, err = parseID(f.id)
	return out, err
}

func (a *app) audit(ctx context.Context, f auditFlags) error {
	pool, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	filter, err := f.filter(ctx, pool)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(a.stdout)
	write, end := a.auditWriter(f.format, out)
	if err := intent.Audit(ctx, pool, filter, write); err != nil {
		_ = out.Flush() // what was read is shown; the error says that it is not all
		return err
	}
	if err := end(); err != nil {
		return err
	}
	return out.Flush()
}

// auditWriter returns what writes an act, and what ends the whole.
func (a *app) auditWriter(format string, out *bufio.Writer) (write func(intent.Act) error, end func() error) {
	inner := *a
	inner.stdout = out
	n := 0
	switch format {
	case outputCSV:
		w := csv.NewWriter(out)
		header := []string{"entry", "at", "intent_id", "epoch", "event", "actor", "db_user", "why", "evidence"}
		if err := w.Write(header); err != nil {
			return func(intent.Act) error { return err }, func() error { return err }
		}
		return func(act intent.Act) error { return w.Write(csvRow(act)) }, func() error { w.Flush(); return w.Error() }
	case outputJSON:
		inner.output = outputJSONL // one act a line, within an array
		_, _ = io.WriteString(out, "[")
		return func(act intent.Act) error {
			if n++; n > 1 {
				_, _ = io.WriteString(out, ",") // a bufio.Writer keeps its first error for Flush
			}
			return inner.emit(act)
		}, func() error { _, err := io.WriteString(out, "]\n"); return err }
	case outputJSONL:
		inner.output = outputJSONL
		return func(act intent.Act) error { return inner.emit(act) }, func() error { return nil }
	}
	// A table's columns would have to be measured first; lines are enough for people.
	return func(act intent.Act) error {
		about := ""
		if act.IntentID != (intent.ID{}) {
			about = " " + act.IntentID.String()
		}
		who := clean(act.Actor)
		if act.DBUser != act.Actor {
			who += " (as " + clean(act.DBUser) + ")"
		}
		_, err := fmt.Fprintf(out, "%s  %s%s  %s: %s\n", clock(act.At), clean(act.Event), about, who, joined(clean(act.Why), evidence(act.Evidence)))
		return err
	}, func() error { return nil }
}

func csvRow(act intent.Act) []string {
	id := ""
	if act.IntentID != (intent.ID{}) {
		id = act.IntentID.String()
	}
	row := []string{
		fmt.Sprint(act.Entry), act.At.UTC().Format(time.RFC3339Nano), id, fmt.Sprint(act.Epoch),
		act.Event, act.Actor, act.DBUser, act.Why, string(act.Evidence),
	}
	for i, cell := range row {
		row[i] = csvCell(cell)
	}
	return row
}

// csvCell keeps a spreadsheet from taking somebody's text for a formula.
func csvCell(s string) string {
	s = strings.Map(func(r rune) rune {
		if r != '\n' && isUnprintable(r) {
			return -1
		}
		return r
	}, s)
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}
