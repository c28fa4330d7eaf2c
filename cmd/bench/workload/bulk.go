package workload

import (
	"context"
	"errors"

	"github.com/writhq/writ/cmd/bench/contender"
)

// Bulk creates many jobs in one transaction, with no worker running.
func Bulk(turns []Turn) Workload {
	return Workload{
		Name: "bulk", Title: "100,000 jobs created in one transaction", Rounds: 3, Turns: turns,
		Run: func(ctx context.Context, e *Env, t Turn) (_ Sample, err error) {
			f, err := e.enter(ctx, t.Contender, contender.Options{})
			if err != nil {
				return Sample{}, err
			}
			defer func() { err = errors.Join(err, f.leave(ctx)) }()
			if err := e.exec(ctx, "CHECKPOINT"); err != nil {
				return Sample{}, err
			}
			jobs := e.scaled(drainJobs)
			cost, err := f.fill(ctx, drainPlan{jobs: jobs})
			if err != nil {
				return Sample{}, err
			}
			m := Metrics{"create_per_s": float64(jobs) / cost.Wall.Seconds()}
			m.add(cost, jobs)
			return Sample{Metrics: m}, nil
		},
	}
}
