package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/reconciler"
)

func (a *app) reconcileCommand() *cobra.Command {
	var once bool
	cmd := &cobra.Command{
		Use:   "reconcile --once",
		Short: "Look once for lost hints, dead workers' attempts and rows past their retention",
		Long: `Look once, whoever leads: write lost hints again, flag or retry what dead workers held, and
remove rows past their retention. For cron jobs and drills; writ run --roles reconciler does
it all the time. Where workers seem dead it first watches the database for ten seconds.`,
		Args: words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !once {
				return usage("writ reconcile: add --once; to go on reconciling, writ run --roles reconciler")
			}
			return a.reconcile(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "look once and end")
	return cmd
}

func (a *app) reconcile(ctx context.Context) error {
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
	if suspects, err := engine.Orphans(ctx, nil, 1); err == nil && len(suspects) > 0 {
		a.note("some attempts have no living worker; watching the database for a while before that is believed")
	}
	r, err := reconciler.New(pool, reconciler.Config{Log: slog.New(slog.DiscardHandler)}) // the report says it all
	if err != nil {
		return err
	}
	report, err := r.Once(ctx)
	if err != nil {
		return fmt.Errorf("reconcile: %w", err)
	}
	if report.Suspended {
		a.note("lost hints were not looked for: the relay is far behind, so lost cannot be told from late; see writ doctor, and look again later")
	}
	if a.isJSON() {
		return a.emit(struct {
			Requeued  int  `json:"requeued"`
			Flagged   int  `json:"flagged"`
			Retried   int  `json:"retried"`
			Pruned    int  `json:"pruned"`
			Probed    int  `json:"probed"`
			Suspended bool `json:"suspended"`
		}(report))
	}
	return a.columns([][2]string{
		{"requeued", fmt.Sprint(report.Requeued)},
		{"flagged", fmt.Sprint(report.Flagged)},
		{"retried", fmt.Sprint(report.Retried)},
		{"pruned", fmt.Sprint(report.Pruned)},
		{"probed", fmt.Sprint(report.Probed)},
	})
}
