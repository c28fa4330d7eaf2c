package workload

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/writhq/writ/cmd/bench/contender"
	"github.com/writhq/writ/cmd/bench/report"
)

// idleSamples is how many jobs are timed in a round.
const idleSamples = 120

// Latency creates one job at a time in an otherwise idle system, and times from before the insert to the handler's start.
func Latency(turns []Turn) Workload {
	return Workload{
		Name: "latency", Title: "one job at a time, 50 to 150 ms apart (the same random gaps for all): before its insert to its handler's start", Rounds: 5, Turns: turns,
		Run: func(ctx context.Context, e *Env, t Turn) (_ Sample, err error) {
			f, err := e.enter(ctx, t.Contender, contender.Options{})
			if err != nil {
				return Sample{}, err
			}
			defer func() { err = errors.Join(err, f.leave(ctx)) }()
			if err := f.begin(ctx); err != nil {
				return Sample{}, err
			}
			samples := e.scaled(idleSamples)
			gaps := rand.New(rand.NewPCG(1, 2))
			for i := range int64(samples) {
				if err := pause(ctx, 50*time.Millisecond+time.Duration(gaps.Int64N(int64(100*time.Millisecond)))); err != nil {
					return Sample{}, err
				}
				if err := f.c.Create(ctx, f.target, contender.Args{N: i, At: time.Now().UnixMicro()}); err != nil {
					return Sample{}, err
				}
			}
			return f.latencies(ctx, warm+samples, samples)
		},
	}
}

// pause lets time pass: the gap between two jobs is the load itself.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// latencies waits until all jobs are finished and returns those of the timed ones, of which there must be so many.
func (f *field) latencies(ctx context.Context, jobs, timed int) (Sample, error) {
	if err := f.finished(ctx, int64(jobs), time.Minute); err != nil {
		return Sample{}, err
	}
	micros, err := f.stop()
	if err != nil {
		return Sample{}, err
	}
	if len(micros) != timed {
		return Sample{}, errors.New("not every timed job was begun exactly once")
	}
	h, err := report.NewHistogram(micros)
	if err != nil {
		return Sample{}, err
	}
	return Sample{Latency: h, Metrics: Metrics{"p50_ms": h.Percentile(50), "p99_ms": h.Percentile(99), "max_ms": h.Percentile(100)}}, nil
}
