package workload

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/writhq/writ/cmd/bench/contender"
	"github.com/writhq/writ/cmd/bench/report"
)

const (
	steadyFor     = 10 * time.Second
	steadyWarm    = time.Second // at the beginning, not timed
	steadyClients = 32
)

// Steady offers jobs at a rate that does not depend on how fast they are taken, and times each from the moment at which it
// was meant to be created, so that a creator that is held up counts as well (no coordinated omission). The rate is half of
// what the reference contender can do with 16 clients in closed loops.
func Steady(reference contender.Contender, turns []Turn) Workload {
	return Workload{
		Name: "steady", Title: "open loop at half of River's peak of one job per transaction, for 10 s: from the intended moment to the handler's start", Rounds: 5, Turns: turns,
		Run: func(ctx context.Context, e *Env, t Turn) (Sample, error) {
			peak, err := e.peak(ctx, reference)
			if err != nil {
				return Sample{}, err
			}
			return steady(ctx, e, t.Contender, peak/2)
		},
	}
}

// peak is the median of what was measured with 16 clients; it is measured now if it was not.
func (e *Env) peak(ctx context.Context, c contender.Contender) (float64, error) {
	if len(e.peaks[c.Name()]) == 0 {
		if _, err := alone(ctx, e, c, 16); err != nil {
			return 0, err
		}
	}
	return report.Median(e.peaks[c.Name()]), nil
}

// schedule is when jobs are meant to be created: exponential gaps, the same for all.
func schedule(rate float64, whole time.Duration) []time.Duration {
	gaps := rand.New(rand.NewPCG(3, 4))
	var at []time.Duration
	for t := 0.0; t < whole.Seconds(); t += gaps.ExpFloat64() / rate {
		at = append(at, time.Duration(t*float64(time.Second)))
	}
	return at
}

func steady(ctx context.Context, e *Env, c contender.Contender, rate float64) (_ Sample, err error) {
	f, err := e.enter(ctx, c, contender.Options{})
	if err != nil {
		return Sample{}, err
	}
	defer func() { err = errors.Join(err, f.leave(ctx)) }()
	if err := f.begin(ctx); err != nil {
		return Sample{}, err
	}
	at := schedule(rate, max(2*steadyWarm, e.scaledTime(steadyFor)))
	meter := f.meter()
	before, err := meter.Read(ctx)
	if err != nil {
		return Sample{}, err
	}
	timed, err := f.offer(ctx, at)
	if err != nil {
		return Sample{}, err
	}
	after, err := meter.Read(ctx)
	if err != nil {
		return Sample{}, err
	}
	s, err := f.latencies(ctx, warm+len(at), timed)
	if err != nil {
		return Sample{}, err
	}
	s.Metrics["per_s"] = rate
	s.add(after.Since(before), len(at))
	return s, nil
}

// offer creates a job at each moment, however long the others take, and returns how many are timed.
func (f *field) offer(ctx context.Context, at []time.Duration) (timed int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	due := make(chan contender.Args, len(at)) // the clock never waits for a creator
	errs := make([]error, steadyClients)
	var wg sync.WaitGroup
	for i := range steadyClients {
		wg.Go(func() {
			for args := range due {
				if errs[i] = f.c.Create(ctx, f.target, args); errs[i] != nil {
					cancel()
					return
				}
			}
		})
	}
	began := time.Now()
	for i, offset := range at {
		if err = pause(ctx, time.Until(began.Add(offset))); err != nil {
			break
		}
		args := contender.Args{N: int64(i)}
		if offset >= steadyWarm {
			args.At = began.Add(offset).UnixMicro()
			timed++
		}
		due <- args
	}
	close(due)
	wg.Wait()
	return timed, errors.Join(append(errs, err)...)
}
