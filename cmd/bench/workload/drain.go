package workload

import (
	"context"
	"errors"
	"time"

	"github.com/writhq/writ/cmd/bench/contender"
	"github.com/writhq/writ/cmd/bench/measure"
)

// drainJobs is how many no-op jobs are drained.
const drainJobs = 100_000

// Drain inserts jobs in bulk, then starts a worker process and waits until all are finished.
func Drain(turns []Turn) Workload {
	return Workload{
		Name: "drain", Title: "100,000 no-op jobs inserted in bulk, then drained by one process", Rounds: 5, Turns: turns,
		Run: func(ctx context.Context, e *Env, t Turn) (Sample, error) {
			return drainOnce(ctx, e, t.Contender, drainPlan{jobs: drainJobs, processes: 1})
		},
	}
}

// drainPlan is a drain's variations.
type drainPlan struct {
	jobs      int
	processes int
	kinds     int
	slots     int   // of each process; 0: the contender's
	wait      int64 // milliseconds each job takes
	// before is done to the fresh database. May be nil.
	before func(ctx context.Context, f *field) error
	// beside is done once the jobs are inserted and settled, and undone after they are drained. May be nil.
	beside func(ctx context.Context, f *field) (undo func(), err error)
}

// drainOnce makes a fresh database, fills and drains it.
func drainOnce(ctx context.Context, e *Env, c contender.Contender, plan drainPlan) (_ Sample, err error) {
	f, err := e.enter(ctx, c, contender.Options{Kinds: plan.kinds, Slots: plan.slots})
	if err != nil {
		return Sample{}, err
	}
	defer func() { err = errors.Join(err, f.leave(ctx)) }()
	if plan.before != nil {
		if err := plan.before(ctx, f); err != nil {
			return Sample{}, err
		}
	}
	return f.drain(ctx, plan)
}

// drain fills and drains this field. The clock of the drain runs from the word to the workers, which are set up and have
// not begun, until the database says that all is finished.
func (f *field) drain(ctx context.Context, plan drainPlan) (Sample, error) {
	plan.jobs = f.env.scaled(plan.jobs)
	created, err := f.fill(ctx, plan)
	if err != nil {
		return Sample{}, err
	}
	if err := f.settle(ctx); err != nil {
		return Sample{}, err
	}
	if plan.beside != nil {
		undo, err := plan.beside(ctx, f)
		if err != nil {
			return Sample{}, err
		}
		defer undo()
	}
	workers, err := f.start(plan.processes, contender.Options{})
	if err != nil {
		return Sample{}, err
	}
	meter := f.meter()
	before, err := meter.Read(ctx)
	if err != nil {
		return Sample{}, err
	}
	began := time.Now()
	for _, w := range workers {
		err = errors.Join(err, w.Go())
	}
	if err != nil {
		return Sample{}, err
	}
	if err := f.finished(ctx, int64(plan.jobs), 5*time.Minute); err != nil {
		return Sample{}, err
	}
	seconds := time.Since(began).Seconds()
	after, err := meter.Read(ctx)
	if err != nil {
		return Sample{}, err
	}
	if _, err := f.stop(); err != nil {
		return Sample{}, err
	}
	drained := after.Since(before)
	m := Metrics{
		"seconds": seconds, "drain_per_s": float64(plan.jobs) / seconds,
		"create_per_s": float64(plan.jobs) / created.Wall.Seconds(),
		"drain_pg_ms":  float64(drained.Postgres.Microseconds()) / 1000 / float64(plan.jobs),
	}
	m.add(created.Add(drained), plan.jobs)
	return Sample{Metrics: m}, nil
}

// fill creates the jobs in bulk and returns what that cost.
func (f *field) fill(ctx context.Context, plan drainPlan) (measure.Cost, error) {
	meter := f.meter()
	before, err := meter.Read(ctx)
	if err != nil {
		return measure.Cost{}, err
	}
	began := time.Now()
	if err := f.c.CreateMany(ctx, f.target, plan.jobs, max(1, plan.kinds), contender.Args{Wait: plan.wait}); err != nil {
		return measure.Cost{}, err
	}
	wall := time.Since(began)
	after, err := meter.Read(ctx)
	if err != nil {
		return measure.Cost{}, err
	}
	cost := after.Since(before)
	cost.Wall = wall
	return cost, nil
}
