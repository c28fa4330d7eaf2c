package workload

import (
	"context"
	"errors"
	"time"

	"github.com/writhq/writ/cmd/bench/contender"
)

const (
	idleSettle = 5 * time.Second
	idleFor    = 20 * time.Second
)

// Idle counts what a process asks of Postgres while there is nothing to do.
func Idle(turns []Turn) Workload {
	return Workload{
		Name: "idle", Title: "statements per second, BEGIN and COMMIT included, of one process with nothing to do, over 20 s", Rounds: 1, Turns: turns,
		Run: func(ctx context.Context, e *Env, t Turn) (_ Sample, err error) {
			f, err := e.enter(ctx, t.Contender, contender.Options{})
			if err != nil {
				return Sample{}, err
			}
			defer func() { err = errors.Join(err, f.leave(ctx)) }()
			if err := f.begin(ctx); err != nil {
				return Sample{}, err
			}
			if err := pause(ctx, e.scaledTime(idleSettle)); err != nil { // it falls asleep
				return Sample{}, err
			}
			meter := f.meter()
			before, err := meter.Read(ctx)
			if err != nil {
				return Sample{}, err
			}
			if err := pause(ctx, e.scaledTime(idleFor)); err != nil {
				return Sample{}, err
			}
			after, err := meter.Read(ctx)
			if err != nil {
				return Sample{}, err
			}
			if _, err := f.stop(); err != nil {
				return Sample{}, err
			}
			c := after.Since(before)
			return Sample{Metrics: Metrics{
				"queries_per_s": c.Counters.Statements / c.Wall.Seconds(),
				"postgres_pct":  100 * c.Postgres.Seconds() / c.Wall.Seconds(),
				"worker_pct":    100 * c.Workers.Seconds() / c.Wall.Seconds(),
			}}, nil
		},
	}
}
