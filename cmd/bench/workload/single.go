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
// committed, while a worker process runs. Contenders' own calls for that are used, and beside them, with 16 clients,
// transactions that the application begins and commits.
//
// The contenders of most run with 16 clients only.
func Single(contenders, most []contender.Contender) Workload {
	w := Workload{
		Name: "single", Title: "one job per transaction, by 1, 4 and 16 clients in closed loops, until all are finished", Rounds: 5,
		Run: func(ctx context.Context, e *Env, t Turn) (Sample, error) {
			if t.Variant == byApplication {
				return single(ctx, e, t.Contender, t.Number, t.Contender.CreateTx)
			}
			return alone(ctx, e, t.Contender, t.Number)
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
	for _, c := range contenders {
		w.Turns = append(w.Turns, Turn{c, byApplication, 16})
	}
	return w
}

// byApplication is the variant in which the application begins and commits.
const byApplication = "16 clients, the application's transactions"

// creation creates one job.
type creation func(context.Context, contender.Target, contender.Args) error

// alone creates jobs by the contender's own call, and remembers the peak.
func alone(ctx context.Context, e *Env, c contender.Contender, clients int) (Sample, error) {
	s, err := single(ctx, e, c, clients, c.Create)
	if err == nil && clients == 16 {
		e.peaks[c.Name()] = append(e.peaks[c.Name()], s.Metrics["per_s"])
	}
	return s, err
}

func single(ctx context.Context, e *Env, c contender.Contender, clients int, create creation) (_ Sample, err error) {
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
	if err := f.create(ctx, jobs, clients, create); err != nil {
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
	if err := f.create(ctx, warm, 4, f.c.Create); err != nil {
		return err
	}
	return f.finished(ctx, warm, time.Minute)
}

// create creates n jobs by so many clients in closed loops.
func (f *field) create(ctx context.Context, n, clients int, create creation) error {
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
				if errs[i] = create(ctx, f.target, contender.Args{N: job}); errs[i] != nil {
					cancel()
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
