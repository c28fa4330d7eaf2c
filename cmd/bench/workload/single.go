package workload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/writhq/writ/cmd/bench/contender"
)

// warm is how many jobs go through before anything is timed: connections are open and statements prepared then.
const warm = 50

// Single creates jobs one by one, each in a transaction of its own, by clients that create the next when the last one is
// committed, while a worker process runs.
//
// The contenders of most run with 16 clients only.
func Single(contenders, most []contender.Contender) Workload {
	w := Workload{
		Name: "single", Title: "one job per transaction, by 1, 4 and 16 clients in closed loops, until all are finished", Rounds: 5,
		Run: func(ctx context.Context, e *Env, t Turn) (Sample, error) {
			return single(ctx, e, t.Contender, t.Number)
		},
	}
	for _, clients := range []int{1, 4, 16} {
		all := contenders
		if clients == 16 {
			all = append(slices.Clone(all), most...)
		}
		for _, c := range all {
			variant := fmt.Sprintf("%d clients", clients)
			if clients == 1 {
				variant = "1 client"
			}
			w.Turns = append(w.Turns, Turn{c, variant, clients})
		}
	}
	return w
}

func single(ctx context.Context, e *Env, c contender.Contender, clients int) (_ Sample, err error) {
	jobs := e.scaled(1000 + 500*clients) // a few seconds
	f, err := e.enter(ctx, c, contender.Options{})
	if err != nil {
		return Sample{}, err
	}
	defer func() { err = errors.Join(err, f.leave(ctx)) }()
	if err := f.begin(ctx); err != nil {
		return Sample{}, err
	}
	meter := f.meter()
	before, err := meter.Read(ctx)
	if err != nil {
		return Sample{}, err
	}
	began := time.Now()
	if err := f.create(ctx, jobs, clients); err != nil {
		return Sample{}, err
	}
	if err := f.finished(ctx, int64(warm+jobs), time.Minute); err != nil {
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
	m := Metrics{"per_s": float64(jobs) / seconds, "seconds": seconds}
	m.add(after.Since(before), jobs)
	if clients == 16 {
		e.peaks[c.Name()] = append(e.peaks[c.Name()], m["per_s"])
	}
	return Sample{Metrics: m}, nil
}

// begin starts a worker process and lets some jobs through it.
func (f *field) begin(ctx context.Context) error {
	if err := f.env.exec(ctx, "CHECKPOINT"); err != nil {
		return err
	}
	workers, err := f.start(1, contender.Options{})
	if err != nil {
		return err
	}
	if err := workers[0].Go(); err != nil {
		return err
	}
	if err := f.create(ctx, warm, 4); err != nil {
		return err
	}
	return f.finished(ctx, warm, time.Minute)
}

// create creates n jobs by so many clients in closed loops.
func (f *field) create(ctx context.Context, n, clients int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, clients)
	var next atomic.Int64
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			for {
				job := next.Add(1)
				if job > int64(n) || errs[i] != nil {
					return
				}
				if errs[i] = f.c.Create(ctx, f.target, contender.Args{N: job}); errs[i] != nil {
					cancel()
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
