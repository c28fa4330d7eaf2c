// Package reconciler keeps the promise when something broke: it writes hints again that were lost, finds attempts whose
// worker died, and removes rows past their retention. It speaks to the database only. Every write is a compare-and-set,
// so two reconcilers are harmless; a lease elects one only to save work.
package reconciler

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/robfig/cron/v3"
)

// Config of a reconciler. The zero value is the default.
type Config struct {
	// Schedule is when it looks, as a cron expression in UTC or «@every 5s». Default «@every 5s».
	Schedule string

	// RequeueAfter is how long an intent must have been due, with no hint in the outbox, before its hint is taken for lost
	// and written again; the spacing doubles per intent, and stretches with the depth of its queue. Default 60 s.
	RequeueAfter time.Duration

	// RequeueMost bounds how many hints one look writes again. Default 5,000.
	RequeueMost int

	// WorkerTTL is the shortest silence after which any worker is taken for dead, whatever its own TTL, and how long the
	// database must have been seen to run without a pause before that: after a pause of the database, or of this process,
	// every heartbeat looks old. Default 10 s; at least 100 ms.
	WorkerTTL time.Duration

	// Lease is how long a leader that is silent keeps the others waiting. Default 15 s; shorter than the schedule's
	// interval it elects nobody for long, which is harmless.
	Lease time.Duration

	// Sweep is how often all that is being sent is looked at, not only what recently died workers held. Default 1 min.
	Sweep time.Duration

	// Prune is how often rows past their retention are looked for. Default 1 min; negative: never.
	Prune time.Duration

	// Log gets what an operator should know. Default: slog.Default().
	Log *slog.Logger

	// Metrics registers the reconciler's metrics. Default: none are registered.
	Metrics prometheus.Registerer
}

func (c Config) withDefaults() (Config, cron.Schedule, error) {
	c.Schedule = cmp.Or(c.Schedule, "@every 5s")
	c.RequeueAfter = cmp.Or(c.RequeueAfter, time.Minute)
	c.RequeueMost = cmp.Or(c.RequeueMost, 5000)
	c.WorkerTTL = cmp.Or(c.WorkerTTL, 10*time.Second)
	c.Lease = cmp.Or(c.Lease, 15*time.Second)
	c.Sweep = cmp.Or(c.Sweep, time.Minute)
	c.Prune = cmp.Or(c.Prune, time.Minute)
	c.Log = cmp.Or(c.Log, slog.Default())
	var errs []error
	schedule, err := parse(c.Schedule)
	if err != nil {
		errs = append(errs, fmt.Errorf("reconciler: Config.Schedule: %w", err))
	}
	if c.RequeueAfter < time.Second {
		errs = append(errs, fmt.Errorf("reconciler: Config.RequeueAfter is %v; it must be at least 1s", c.RequeueAfter))
	}
	if c.RequeueMost < 1 || c.Lease < 0 || c.WorkerTTL < 100*time.Millisecond || c.Sweep < 0 {
		errs = append(errs, errors.New("reconciler: Config.RequeueMost, Lease and Sweep must be positive, WorkerTTL at least 100ms"))
	}
	return c, schedule, errors.Join(errs...)
}

// parse reads a schedule. The library panics on a time zone without a blank behind it and takes local time by default;
// schedules here are UTC.
func parse(spec string) (cron.Schedule, error) {
	if len(spec) > 0 && (spec[0] == 'T' || spec[0] == 'C') {
		return nil, fmt.Errorf("%q names a time zone; schedules of the reconciler are UTC", spec)
	}
	schedule, err := cron.ParseStandard(spec)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", spec, err)
	}
	if schedule.Next(time.Now().UTC()).IsZero() {
		return nil, fmt.Errorf("%q never comes", spec)
	}
	return schedule, nil
}

const (
	// window is how many open rows one look goes through for stale ones: it bounds the look's cost with a large backlog;
	// the next look goes on where this one ended.
	window = 20_000
	// orphans is how many orphaned attempts are read at once.
	orphans = 1000
	// pruneBatch is how many rows one transaction deletes.
	pruneBatch = 1000
	// The database is observed ten times in a WorkerTTL; a gap of more than a quarter of it between two observations is a
	// pause. A shorter pause cannot make a heartbeat look old.
	observations = 10
	gaps         = 4
	leaseName    = "reconciler"
	// patience bounds one look.
	patience = time.Minute
)
