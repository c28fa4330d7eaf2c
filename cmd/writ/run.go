package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/lmittmann/tint"
	"github.com/spf13/cobra"

	"github.com/writhq/writ"
	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/migrations"
	"github.com/writhq/writ/reconciler"
)

const (
	roleRelay      = string(writ.RoleRelay)
	roleReconciler = string(writ.RoleReconciler)
)

func (a *app) runCommand() *cobra.Command {
	var roles, schedules []string
	var listen string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run relay and reconciler until SIGINT or SIGTERM; a second signal ends it at once",
		Long: `Run relay and reconciler until SIGINT or SIGTERM; a second signal ends it at once.

Any number may run side by side. Workers are not here: handlers are the application's own code
(package workers). Outages of the database and of the broker are survived once it runs.`,
		Example: "  writ run --listen 127.0.0.1:9464",
		Args:    words(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.run(cmd.Context(), roles, schedules, listen) },
	}
	cmd.Flags().StringSliceVar(&roles, "roles", []string{roleRelay, roleReconciler}, "what to run")
	cmd.Flags().StringVar(&listen, "listen", "", "address of /livez, /readyz and /metrics, like 127.0.0.1:9464 (default: not served)")
	cmd.Flags().StringArrayVar(&schedules, "schedule", nil, "when a duty of the reconciler is done: DUTY=CRON in UTC, DUTY='@every 5s' or DUTY=never;\nthe duties are requeue, recover, flag (default: every 5 s), sweep and prune (every minute)")
	return cmd
}

// parseSchedules reads DUTY=WHEN.
func parseSchedules(words []string) (map[reconciler.Duty]string, error) {
	out := map[reconciler.Duty]string{}
	for _, word := range words {
		duty, when, ok := strings.Cut(word, "=")
		if !ok {
			return nil, usage("--schedule %s: give DUTY=WHEN, like prune='0 3 * * *'", clean(word))
		}
		out[reconciler.Duty(duty)] = when
	}
	return out, nil
}

func (a *app) run(ctx context.Context, roles, schedules []string, listen string) error {
	for _, role := range roles {
		if role == "workers" || role == "worker" {
			return usage("--roles %s: handlers are the application's own code; run them with package workers", role)
		}
		if role != roleRelay && role != roleReconciler {
			return usage("--roles %s: the roles are %s and %s", clean(role), roleRelay, roleReconciler)
		}
	}
	if len(roles) == 0 {
		return usage("--roles is empty: give %s, %s or both", roleRelay, roleReconciler)
	}
	when, err := parseSchedules(schedules)
	if err != nil {
		return err
	}
	if err := (reconciler.Config{Schedules: when}).Check(); err != nil {
		return usage("--schedule: %v", err)
	}
	pool, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	log := a.logger()
	if err := a.checkSchema(ctx, pool, log); err != nil {
		return err
	}
	if slices.Contains(roles, roleRelay) && a.amqp == "" {
		return &exitError{Code: exitUsage, Err: errNoBroker}
	}

	parts := make([]writ.Role, len(roles))
	for i, role := range roles {
		parts[i] = writ.Role(role)
	}
	log.Info("running", "roles", strings.Join(roles, ","))
	if err := writ.Run(ctx, pool, a.amqp, nil, writ.Config{
		Roles: parts, Listen: listen, Log: log, Reconciler: reconciler.Config{Schedules: when},
	}); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

// checkSchema refuses to start on a database that cannot work. What would only be degraded is logged.
func (a *app) checkSchema(ctx context.Context, pool *pgxpool.Pool, log *slog.Logger) error {
	status, err := migrations.Read(ctx, pool.Config().ConnConfig)
	switch {
	case isDenied(err):
		log.Warn("may not read the schema's version; going on", "error", err)
	case err != nil && errors.Is(err, migrations.ErrNewer):
		return err
	case err != nil:
		return fmt.Errorf("look at the schema: %w", err)
	case status.Current < status.Target:
		return intent.ErrNoSchema
	case !status.UpToDate():
		log.Warn("the database's functions differ from this binary's; run writ migrate up", "differ", status.Stale)
	}
	return nil
}

// logger writes for people on a terminal and for machines elsewhere.
func (a *app) logger() *slog.Logger {
	if isTerminal(a.stderr) {
		return slog.New(tint.NewTextHandler(a.stderr, &tint.Options{TimeFormat: time.TimeOnly, NoColor: !a.colored(a.stderr)}))
	}
	return slog.New(slog.NewTextHandler(a.stderr, nil))
}
