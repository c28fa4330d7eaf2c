// Package writ wires the parts of Writ for an application that wants one call: workers, relay and reconciler in one
// process. Each can also be run by itself, from its own package or with the writ command.
//
// The application declares kinds and creates intents with package intent, and registers handlers with package workers.
package writ

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/writhq/writ/dispatch"
	"github.com/writhq/writ/internal/ops"
	"github.com/writhq/writ/reconciler"
	"github.com/writhq/writ/workers"
)

// Config of [Run]. The zero value is the default. Log goes to the parts that have none of their own.
type Config struct {
	Workers    workers.Config
	Relay      dispatch.Config
	Reconciler reconciler.Config

	// Roles are the parts to run. Default: relay, reconciler and, if there is a mux, workers.
	Roles []Role

	// Listen is the address of /livez, /readyz and /metrics, like "127.0.0.1:9464". Default: none are served.
	Listen string

	// Log for all parts. Default: slog.Default().
	Log *slog.Logger
}

// Role is a part of Writ that [Run] runs.
type Role string

// The roles.
const (
	RoleRelay      Role = "relay"
	RoleReconciler Role = "reconciler"
	RoleWorkers    Role = "workers"
)

// Run works until ctx is cancelled, drains, and returns nil; see the Run methods of workers, dispatch and reconciler. A
// nil mux runs relay and reconciler only. pool stays the caller's. Faults of the config are returned at once, all of them.
func Run(ctx context.Context, pool *pgxpool.Pool, amqpURL string, mux *workers.Mux, cfg Config) error {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	registry := prometheus.NewRegistry()
	for _, part := range []struct {
		log     **slog.Logger
		metrics *prometheus.Registerer
	}{
		{&cfg.Workers.Log, &cfg.Workers.Metrics},
		{&cfg.Relay.Log, &cfg.Relay.Metrics},
		{&cfg.Reconciler.Log, &cfg.Reconciler.Metrics},
	} {
		if *part.log == nil {
			*part.log = cfg.Log
		}
		if *part.metrics == nil {
			*part.metrics = registry
		}
	}

	if len(cfg.Roles) == 0 {
		cfg.Roles = []Role{RoleRelay, RoleReconciler}
		if mux != nil {
			cfg.Roles = append(cfg.Roles, RoleWorkers)
		}
	}
	var runs []func(context.Context) error
	var checks []ops.Check
	var faults []error
	roles := slices.Clone(cfg.Roles)
	if i := slices.Index(roles, RoleWorkers); i > 0 {
		roles[0], roles[i] = roles[i], roles[0] // first, for the relay offers them hints
	}
	for _, role := range roles {
		part, err := newPart(role, pool, amqpURL, mux, cfg)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		if w, ok := part.(*workers.Pool); ok {
			cfg.Relay.Near = w.Offer
		}
		runs, checks = append(runs, part.Run), append(checks, part.Ready)
	}
	if len(faults) > 0 {
		return fmt.Errorf("writ: %w", errors.Join(faults...))
	}
	if cfg.Listen != "" {
		registry.MustRegister(ops.Collector(pool))
		serving, stop := context.WithCancel(context.WithoutCancel(ctx)) // until all is drained: a supervisor looks as long
		defer stop()
		parts := runs
		runs = []func(context.Context) error{
			func(ctx context.Context) error { defer stop(); return together(ctx, parts) },
			func(context.Context) error {
				return ops.Serve(serving, cfg.Listen, ops.Handler(pool, registry, checks), cfg.Log)
			},
		}
	}
	return together(ctx, runs)
}

// part is what all roles have in common.
type part interface {
	Run(ctx context.Context) error
	Ready() error
}

func newPart(role Role, pool *pgxpool.Pool, amqpURL string, mux *workers.Mux, cfg Config) (part, error) {
	switch {
	case role == RoleRelay:
		return dispatch.New(pool, amqpURL, cfg.Relay)
	case role == RoleReconciler:
		return reconciler.New(pool, cfg.Reconciler)
	case role == RoleWorkers && mux != nil:
		return workers.New(pool, amqpURL, mux, cfg.Workers)
	case role == RoleWorkers:
		return nil, errors.New("role workers needs a mux with handlers")
	}
	return nil, fmt.Errorf("there is no role %q; the roles are %s, %s and %s", role, RoleRelay, RoleReconciler, RoleWorkers)
}

// together runs all parts; the first that fails stops the others.
func together(ctx context.Context, runs []func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	errs := make([]error, len(runs))
	var wg sync.WaitGroup
	for i, run := range runs {
		wg.Go(func() {
			if errs[i] = run(ctx); errs[i] != nil {
				stop()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
