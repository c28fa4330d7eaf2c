// Package reconciler keeps the promise when something broke: it writes hints again that were lost, finds attempts whose
// worker died, and removes rows past their retention. It speaks to the database only. Every write is a compare-and-set,
// so two reconcilers are harmless; a lease elects one only to save work.
package reconciler

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/robfig/cron/v3"
)

// Config of a reconciler. The zero value is the default.
type Config struct {
	// Schedule is when its frequent duties are done (requeue, recover, flag, ask), as a cron expression in UTC or «@every 5s».
	// An interval counts from the start, at which it is done for the first time. Default «@every 5s».
	Schedule string

	// Schedules gives duties schedules of their own, as above, or «never». Default: unasked, sweep and prune «@every 1m», the others
	// Schedule. What is not done in one turn is gone on with after 5 s at most. What was missed while nobody led, or by a
	// leader that ended before it was through, is done soon after somebody leads, if its schedule is of a minute or more.
	Schedules map[Duty]string

	// RequeueAfter is how long an intent must have been due, with no hint in the outbox, before its hint is taken for lost
	// and written again; the spacing doubles per intent, and stretches with the depth of its queue. Default 60 s.
	RequeueAfter time.Duration

	// RequeueMost bounds how many hints one look writes again; looks that go on with the same backlog write about as many in 5 s.
	// Default 5,000.
	RequeueMost int

	// WorkerTTL is the shortest silence after which any worker is taken for dead, whatever its own TTL, and how long the
	// database must have been seen to run without a pause before that: after a pause of the database, or of this process,
	// every heartbeat looks old. Default 10 s; at least 100 ms.
	WorkerTTL time.Duration

	// Lease is how long a leader that is silent keeps the others waiting. It is renewed three times as often, and one turn of
	// a duty takes a third of it at most. Default 15 s; at least 100 ms.
	Lease time.Duration

	// KeepEvents is how long it is kept in mind that an event was settled, by subscription. A broker that repeats a message
	// later than that, from a queue that nobody has emptied meanwhile, has its intents created again. Default 30 days; at
	// least 1 h.
	KeepEvents time.Duration

	// OnAct is told of each row that is acted on, in the reconciler's own goroutine. Default: nobody is.
	OnAct func(Act)

	// Log gets what an operator should know. Default: slog.Default().
	Log *slog.Logger

	// Metrics registers the reconciler's metrics. Default: none are registered.
	Metrics prometheus.Registerer
}

// Check reports every fault of the config.
func (c Config) Check() error {
	_, _, err := c.withDefaults()
	return err
}

func (c Config) withDefaults() (Config, []*entry, error) {
	c.Schedule = cmp.Or(c.Schedule, "@every 5s")
	c.RequeueAfter = cmp.Or(c.RequeueAfter, time.Minute)
	c.RequeueMost = cmp.Or(c.RequeueMost, 5000)
	c.WorkerTTL = cmp.Or(c.WorkerTTL, 10*time.Second)
	c.Lease = cmp.Or(c.Lease, 15*time.Second)
	c.KeepEvents = cmp.Or(c.KeepEvents, 30*24*time.Hour)
	c.Log = cmp.Or(c.Log, slog.Default())
	agenda, errs := c.agenda()
	if c.RequeueAfter < time.Second {
		errs = append(errs, fmt.Errorf("reconciler: Config.RequeueAfter is %v; it must be at least 1s", c.RequeueAfter))
	}
	if c.KeepEvents < time.Hour {
		errs = append(errs, fmt.Errorf("reconciler: Config.KeepEvents is %v; it must be at least 1h", c.KeepEvents))
	}
	if c.RequeueMost < 1 || c.Lease < shortest || c.WorkerTTL < shortest {
		errs = append(errs, fmt.Errorf("reconciler: Config.RequeueMost must be positive, Lease and WorkerTTL at least %v", shortest))
	}
	return c, agenda, errors.Join(errs...)
}

// agenda puts each duty on its schedule.
func (c Config) agenda() (agenda []*entry, errs []error) {
	if _, err := parse(c.Schedule); err != nil {
		errs = append(errs, fmt.Errorf("reconciler: Config.Schedule: %w", err))
	}
	known := map[Duty]bool{}
	for _, d := range duties() {
		known[d.name] = true
		own, given := c.Schedules[d.name]
		e := &entry{duty: d}
		switch {
		case own == never:
		case given:
			schedule, err := parse(own)
			if err != nil {
				errs = append(errs, fmt.Errorf("reconciler: Config.Schedules[%s]: %w", d.name, err))
			}
			e.schedule = schedule
		default:
			e.schedule, _ = parse(cmp.Or(d.schedule, c.Schedule)) // its faults are told above
		}
		agenda = append(agenda, e)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Schedules)) {
		if !known[name] {
			errs = append(errs, fmt.Errorf("reconciler: Config.Schedules[%s]: there is no such duty; they are requeue, recover, flag, ask, unasked, sweep and prune", name))
		}
	}
	return agenda, errs
}

// never is the schedule of a duty that is not done.
const never = "never"

// entry is a duty with its schedule.
type entry struct {
	duty
	schedule cron.Schedule // nil: never
	next     time.Time
}

// begin plans the first turn: at once for an interval, at its time for a time of day.
func (e *entry) begin(now time.Time) {
	if _, interval := e.schedule.(cron.ConstantDelaySchedule); interval {
		e.next = now
	} else if e.schedule != nil {
		e.plan(now, asScheduled)
	}
}

func (e *entry) due(now time.Time) bool { return e.schedule != nil && !e.next.After(now) }

// plan plans the next turn: as scheduled, or after so long if that is sooner.
func (e *entry) plan(now time.Time, within time.Duration) {
	e.next = e.schedule.Next(now.UTC())
	if again := now.Add(within); e.next.After(again) {
		e.next = again
	}
}

// counts reports whether it is noted when the duty was done: if it is rare enough for a turn that was missed to matter.
func (e *entry) counts() bool {
	if e.schedule == nil {
		return false
	}
	first := e.schedule.Next(time.Now().UTC())
	return e.schedule.Next(first).Sub(first) >= counted
}

// missed brings the next turn forward to the one that came after the duty was last done, which may be past.
func (e *entry) missed(done time.Time) {
	if next := e.schedule.Next(done.UTC()); next.Before(e.next) {
		e.next = next
	}
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
	// window is how many open rows one look goes through for stale ones, and orphans for those without a living worker: they
	// bound the look's cost with a large backlog; the next look goes on where this one ended.
	window  = 2500
	orphans = 5000
	// pruneBatch is how many rows one transaction deletes.
	pruneBatch = 1000
	// The database is observed ten times in a WorkerTTL; a gap of more than a quarter of it between two observations is a
	// pause. A shorter pause cannot make a heartbeat look old.
	observations = 10
	gaps         = 4
	leaseName    = "reconciler"
	// renewals is how often a lease is renewed in its time.
	renewals = 3
	// goOn is when a duty goes on with what it left, if its schedule is slower; soon, if it only looks.
	goOn = 5 * time.Second
	soon = time.Second
	// asScheduled is longer than any schedule.
	asScheduled = math.MaxInt64
	// counted is the period from which on it is noted when a duty was done.
	counted = time.Minute
	// walk is how often pruning begins anew at the oldest row.
	walk = 24 * time.Hour
	// mostLeft is up to how many attempts that were left are counted.
	mostLeft = 1000
	// rehearsed is after how many rows a rehearsal ends a duty.
	rehearsed = 10_000
	// shortest is the least that a lease and a worker's TTL may be.
	shortest = 100 * time.Millisecond
	// patience bounds one turn of all duties.
	patience = time.Minute
)
