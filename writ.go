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

	// Listen is the address of /livez, /readyz and /metrics, like "127.0.0.1:9464". Default: none are served.
	Listen string

	// Log for all parts. Default: slog.Default().
	Log *slog.Logger
}

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

	var runs []func(context.Context) error
	var checks []ops.Check
	var faults []error
	relay, err := dispatch.New(pool, amqpURL, cfg.Relay)
	if err != nil {
		faults = append(faults, err)
	} else {
		runs, checks = append(runs, relay.Run), append(checks, relay.Ready)
	}
	reconcile, err := reconciler.New(pool, cfg.Reconciler)
	if err != nil {
		faults = append(faults, err)
	} else {
		runs, checks = append(runs, reconcile.Run), append(checks, reconcile.Ready)
	}
	if mux != nil {
		work, err := workers.New(pool, amqpURL, mux, cfg.Workers)
		if err != nil {
			faults = append(faults, err)
		} else {
			runs, checks = append(runs, work.Run), append(checks, work.Ready)
		}
	}
	if len(faults) > 0 {
		return fmt.Errorf("writ: %w", errors.Join(faults...))
	}
	if cfg.Listen != "" {
		registry.MustRegister(ops.Collector(pool))
		runs = append(runs, func(ctx context.Context) error {
			return ops.Serve(ctx, cfg.Listen, ops.Handler(pool, registry, checks), cfg.Log)
		})
	}
	return together(ctx, runs)
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
