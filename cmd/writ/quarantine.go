package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/writhq/writ/intent"
	writsql "github.com/writhq/writ/sql"
)

type quarantineFlags struct {
	reasonFlags
	since, evidence string
	dryRun          bool
}

func (a *app) quarantineCommand() *cobra.Command {
	var f quarantineFlags
	cmd := &cobra.Command{
		Use:   "quarantine --since TIME",
		Short: "After a restore or an unclean failover: hold all that may have been run in what was lost",
		Long: `After a restore or an unclean failover: hold all that may have been run in what was lost.

The database went back in time, but the effects of its intents did not. Every open intent that
is due, of a kind that is not idempotent, may have been run since --since: it becomes ambiguous,
and its probe or a person settles it. The epochs of all open intents are raised by 1000, so that
workers and messages that are left from then find nothing. Errors stand as they are.

It is refused where work goes on: the database must be paused, or not adopted yet, as it is
after a restore. It is one transaction; if its answer is lost, do it again. Then:
writ adopt, and settle what is ambiguous. The whole way is in docs/operations.md.`,
		Example: "  writ quarantine --since 2026-03-01T02:55:00Z --why 'db1 restored to 02:55 (INC-431)' --dry-run",
		Args:    words(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.quarantine(cmd.Context(), f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.since, "since", "", "the moment that the database went back to, rather too early than too late: a time, or a span before now like 30m, 12h or 3d (required)")
	flags.StringVar(&f.evidence, "evidence", "", "anything worth keeping with it: JSON, @FILE, or -")
	flags.BoolVar(&f.dryRun, "dry-run", false, "say how many it would be and change nothing; it holds their locks for as long")
	f.bind(cmd)
	return cmd
}

func (a *app) quarantine(ctx context.Context, f quarantineFlags) error {
	actor, why, err := f.reason()
	if err != nil {
		return err
	}
	var evidence []byte
	if f.evidence != "" {
		if evidence, err = a.readJSON("--evidence", f.evidence); err != nil {
			return err
		}
	}
	pool, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	since, err := parseSince(f.since, func() time.Time { return now(ctx, pool) })
	if err != nil {
		return err
	}
	var q intent.Quarantined
	err = inTransaction(ctx, pool, !f.dryRun, func(tx pgx.Tx) error {
		q, err = intent.Quarantine(ctx, tx, since, intent.Word{Actor: actor, Why: why}, evidence)
		return err
	})
	if isUnknown(err) && !f.dryRun {
		return fmt.Errorf("%w\nwhether it was done is not known; do it again, which does no harm", err)
	}
	if err != nil {
		return err
	}
	return a.quarantined(ctx, pool, since, q, f.dryRun)
}

func (a *app) quarantined(ctx context.Context, pool *pgxpool.Pool, since time.Time, q intent.Quarantined, dryRun bool) error {
	if dryRun {
		a.note("dry run: nothing was changed")
	} else if settings, err := a.settings(ctx, pool); err == nil && !settings.Adopted {
		a.note("next: writ adopt, so that work goes on and probes are asked; what is ambiguous waits")
	} else if err == nil {
		a.note("next: writ resume, so that work goes on and probes are asked; what is ambiguous waits")
	}
	if q.Errors > 0 {
		a.note("intents in error stand as they are (%d); somebody may have retried one since %s: look outside before you do", q.Errors, clock(since))
	}
	if a.isJSON() {
		return a.emit(struct {
			Since  time.Time `json:"since"`
			DryRun bool      `json:"dry_run"`
			intent.Quarantined
		}{since, dryRun, q})
	}
	return a.columns([][2]string{
		{"ambiguous", strconv.FormatInt(q.Flagged, 10) + " may have been run since " + clock(since)},
		{"fenced", strconv.FormatInt(q.Fenced, 10) + " are due later or idempotent, and go on"},
		{"errors", strconv.FormatInt(q.Errors, 10) + " stand as they were"},
	})
}

// parseSince reads --since: a time, or a span before the database's now.
func parseSince(s string, now func() time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, usage("--since is missing: give the moment that the database went back to, like 2026-03-01T02:55:00Z")
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	d, err := time.ParseDuration(s)
	if days, isDays := strings.CutSuffix(s, "d"); isDays {
		var n int
		n, err = strconv.Atoi(days)
		d = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || d <= 0 || d >= 100*365*24*time.Hour {
		return time.Time{}, usage("--since %s: give a time like 2026-03-01T02:55:00Z, or a span before now like 30m, 12h or 3d", clean(s))
	}
	return now().Add(-d), nil
}

// quarantinedHere is whether a quarantine was made in this database since it became the one that it is, how long ago, and
// by whom.
func quarantinedHere(ctx context.Context, pool *pgxpool.Pool) (yes bool, ago time.Duration, by string, err error) {
	var seconds float64
	err = pool.QueryRow(ctx, writsql.Statement("QuarantinedHere")).Scan(&yes, &seconds, &by)
	return yes, time.Duration(seconds * float64(time.Second)), by, err
}
