package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/reconciler"
)

type reconcileFlags struct {
	once, dryRun bool
	limit        int
}

func (a *app) reconcileCommand() *cobra.Command {
	var f reconcileFlags
	cmd := &cobra.Command{
		Use:   "reconcile --once",
		Short: "Look once for lost hints, dead workers' attempts and rows past their retention",
		Long: `Look once, whoever leads: write lost hints again, flag or retry what dead workers held, and
remove rows past their retention; and say of each row what was done and why. For cron jobs and
drills; writ run --roles reconciler does it all the time. Where workers seem dead it first
watches the database for ten seconds.`,
		Example: "  writ reconcile --once --dry-run\n  writ reconcile --once -o jsonl | jq .acts",
		Args:    words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !f.once {
				return usage("writ reconcile: add --once; to go on reconciling, writ run --roles reconciler")
			}
			if f.limit < 0 {
				return usage("--limit %d: how many rows to show, 0 or more", f.limit)
			}
			return a.reconcile(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.once, "once", false, "look once and end")
	flags.BoolVar(&f.dryRun, "dry-run", false, "do it all and roll it back: say what would be done; each part ends after 10,000 rows")
	flags.IntVar(&f.limit, "limit", 50, "how many rows to show; all are counted")
	return cmd
}

// reconciled is what one look did, or would do.
type reconciled struct {
	DryRun     bool             `json:"dry_run"`
	Requeued   int              `json:"requeued"`
	Flagged    int              `json:"flagged"`
	Retried    int              `json:"retried"`
	Pruned     int              `json:"pruned"`
	Probed     int              `json:"probed"`
	Forgotten  int              `json:"forgotten"` // settled events, long ago
	Left       int              `json:"left"`      // attempts without a living worker that could not be settled now, up to 1,000
	Suspended  bool             `json:"suspended"`
	Unfinished bool             `json:"unfinished"` // a dry run ended a part after 10,000 rows
	Acts       []reconciler.Act `json:"acts"`
	NotShown   int              `json:"not_shown"` // acts beyond --limit
}

func (a *app) reconcile(ctx context.Context, f reconcileFlags) error {
	pool, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	engine := store.New(pool)
	settings, err := engine.Settings(ctx)
	if err != nil {
		return err
	}
	if reason := settings.Reason(); reason != "" {
		return &exitError{Code: exitNotAllowed, Err: fmt.Errorf("nothing is reconciled: %s", reason)}
	}
	suspects, err := engine.Orphans(ctx, nil, 1)
	dead, deadErr := engine.DeadWorkers(ctx)
	if err == nil && deadErr == nil && len(suspects)+len(dead) > 0 {
		a.note("some workers seem dead, or attempts have no living one; watching the database for a while before that is believed")
	}
	out := reconciled{DryRun: f.dryRun, Acts: []reconciler.Act{}}
	r, err := reconciler.New(pool, reconciler.Config{
		Log: slog.New(slog.DiscardHandler), // the report says it all
		OnAct: func(act reconciler.Act) {
			if len(out.Acts) < f.limit {
				out.Acts = append(out.Acts, act)
			} else {
				out.NotShown++
			}
		},
	})
	if err != nil {
		return err
	}
	do := r.Once
	if f.dryRun {
		do = r.Rehearse
	}
	report, failed := do(ctx)
	out.Requeued, out.Flagged, out.Retried, out.Pruned = report.Requeued, report.Flagged, report.Retried, report.Pruned
	out.Probed, out.Forgotten = report.Probed, report.Forgotten
	out.Left, out.Suspended, out.Unfinished = report.Left, report.Suspended, report.Unfinished
	if err := a.printReconciled(out); err != nil {
		return err
	}
	if failed != nil {
		return fmt.Errorf("reconcile: %w", failed) // what was done before stands, and was shown
	}
	return nil
}

func (a *app) printReconciled(out reconciled) error {
	if out.DryRun {
		a.note("dry run: nothing was changed")
	}
	if out.Suspended {
		a.note("lost hints were not looked for: the relay is far behind, so lost cannot be told from late; see writ doctor, and look again later")
	}
	if out.Unfinished {
		a.note("there is more to be done: a dry run ends each part after 10,000 rows")
	}
	if out.Left > 0 {
		a.note("%d attempts without a living worker were left: somebody's transaction holds their rows, or their workers were not silent for long enough; look again", out.Left)
	}
	if out.NotShown > 0 {
		a.note("not shown: %d more; --limit shows more", out.NotShown)
	}
	if a.isJSON() {
		return a.emit(out)
	}
	if len(out.Acts) > 0 {
		g := a.grid("did", "id", "kind", "why")
		for _, act := range out.Acts {
			g.row(act.Did, act.ID.String(), clean(act.Kind), clean(act.Why))
		}
		g.wrap(4, a.width()-60)
		if err := g.print(); err != nil {
			return err
		}
	}
	return a.columns([][2]string{
		{"requeued", fmt.Sprint(out.Requeued)},
		{"flagged", fmt.Sprint(out.Flagged)},
		{"retried", fmt.Sprint(out.Retried)},
		{"pruned", fmt.Sprint(out.Pruned)},
		{"probed", fmt.Sprint(out.Probed)},
		{"forgotten", fmt.Sprint(out.Forgotten)},
		{"left", fmt.Sprint(out.Left)},
	})
}
