package workload

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/writhq/writ"

	"github.com/writhq/writ/cmd/bench/contender"
	"github.com/writhq/writ/cmd/bench/measure"
)

const (
	hints     = 1_000_000
	memoryFor = 30 * time.Second
	perMiB    = 1 << 20
)

// Memory is what a worker process takes while a million hints wait for it in the broker.
func Memory(c contender.Writ) Workload {
	return Workload{
		Name: "memory", Title: "resident memory of a worker process over 30 s, 1,000,000 hints of jobs of 200 ms waiting in the broker", Length: Long, Rounds: 1,
		Turns: []Turn{{Contender: c}},
		Run: func(ctx context.Context, e *Env, _ Turn) (_ Sample, err error) {
			f, err := e.enter(ctx, c, contender.Options{})
			if err != nil {
				return Sample{}, err
			}
			defer func() { err = errors.Join(err, f.leave(ctx)) }()
			if err := c.Fill(ctx, f.target, contender.Due, e.scaled(hints), contender.Args{Wait: 200}); err != nil {
				return Sample{}, err
			}
			relay, err := f.start(1, contender.Options{Roles: []string{string(writ.RoleRelay)}})
			if err != nil {
				return Sample{}, err
			}
			if err := relay[0].Go(); err != nil {
				return Sample{}, err
			}
			if err := f.published(ctx, c); err != nil {
				return Sample{}, err
			}
			worker, err := f.start(1, contender.Options{Roles: []string{string(writ.RoleWorkers)}})
			if err != nil {
				return Sample{}, err
			}
			if err := worker[0].Go(); err != nil {
				return Sample{}, err
			}
			peak, err := peakResident(ctx, worker[0], e.scaledTime(memoryFor))
			if err != nil {
				return Sample{}, err
			}
			done := worker[0].Handled()
			if done == 0 {
				return Sample{}, errors.New("the worker did nothing, so its memory says nothing")
			}
			return Sample{Metrics: Metrics{"peak_mib": peak / perMiB, "waiting": float64(int64(e.scaled(hints)) - done)}}, nil
		},
	}
}

// published waits until the relay has next to nothing left.
func (f *field) published(ctx context.Context, c contender.Writ) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; {
		left, err := c.Outbox(ctx, f.target, 2000)
		if err != nil || left < f.env.scaled(1000) {
			return err
		}
		if time.Since(began) > 10*time.Minute {
			return fmt.Errorf("the relay has not published all after 10 minutes; see its log in %s", f.env.LogDir)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// peakResident watches a process's memory for a while and returns the most, in bytes.
func peakResident(ctx context.Context, p *contender.Process, whole time.Duration) (float64, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	end := time.After(whole)
	for peak := int64(0); ; {
		now, err := measure.Resident(p.PID())
		if err != nil {
			return 0, err
		}
		peak = max(peak, now)
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-end:
			return float64(peak), nil
		case <-tick.C:
		}
	}
}
