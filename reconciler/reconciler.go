package reconciler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
)

// Reconciler looks after one database. Make it with [New]; its methods are safe for concurrent use.
type Reconciler struct {
	cfg     Config
	agenda  []*entry
	store   *store.Store
	id      uuid.UUID
	metrics *metrics
	leading atomic.Bool
	problem atomic.Pointer[string]

	mu    sync.Mutex // one look at a time
	watch watch
	place store.Place // where the look for stale rows goes on
	swept store.Place // and the one for rows without a living worker

	pruned map[string]time.Time // by kind and state: all that was finished before was looked at
	walked time.Time            // when pruning last began anew
}

// New returns a reconciler that does nothing until Run, Once or Rehearse. The error lists every fault of the config.
func New(pool *pgxpool.Pool, cfg Config) (*Reconciler, error) {
	cfg, agenda, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := store.CheckPool(pool); err != nil {
		return nil, fmt.Errorf("reconciler: %w", err)
	}
	return &Reconciler{
		cfg: cfg, agenda: agenda, store: store.New(pool), id: intent.NewID(), metrics: newMetrics(cfg.Metrics),
		watch: watch{need: cfg.WorkerTTL},
	}, nil
}

// Run does its duties on schedule until ctx is cancelled, then returns nil, if it leads: several elect one by a lease, and
// when that one is silent for longer than Config.Lease another takes over, within twice that time. Outages of the
// database are survived.
func (r *Reconciler) Run(ctx context.Context) error {
	observing := make(chan struct{})
	go func() { defer close(observing); r.observe(ctx) }()
	defer func() { <-observing }()
	defer r.resign(ctx)
	for _, e := range r.agenda {
		e.begin(time.Now())
	}
	for ctx.Err() == nil {
		renewed := time.Now()
		r.tick(ctx)
		wake := renewed.Add(max(r.cfg.Lease/renewals, shortest))
		for _, e := range r.agenda {
			if e.schedule != nil && e.next.Before(wake) {
				wake = e.next
			}
		}
		timer := time.NewTimer(time.Until(wake))
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

// tick takes or renews the lease, and does what is due if this reconciler leads. Each duty has a bounded time.
func (r *Reconciler) tick(whole context.Context) {
	ctx, cancel := context.WithTimeout(whole, patience)
	defer cancel()
	renewed := time.Now()
	led := r.leading.Load()
	leading, err := r.lead(ctx)
	if leading && !led {
		err = r.takeOver(ctx)
	}
	faults := []error{err}
	for _, e := range r.agenda {
		if !e.due(time.Now()) {
			continue
		}
		if leading && time.Since(renewed) > r.cfg.Lease/renewals { // several duties may take longer than it lasts
			renewed = time.Now()
			leading, err = r.lead(ctx)
			faults = append(faults, err)
		}
		if !leading {
			within := time.Duration(asScheduled)
			if err != nil {
				within = goOn
			}
			e.plan(time.Now(), within)
			continue
		}
		faults = append(faults, r.oneTurn(ctx, e))
	}
	switch err := errors.Join(faults...); {
	case whole.Err() != nil:
	case err != nil:
		r.setProblem(err)
		r.cfg.Log.Warn("reconciler: a look failed, the next one tries again", "error", err)
	default:
		r.setProblem(nil)
	}
}

// oneTurn does a duty for as long as a turn may take, and plans the next one.
func (r *Reconciler) oneTurn(ctx context.Context, e *entry) error {
	began := time.Now()
	l := &look{store: r.store, act: r.cfg.OnAct, until: began.Add(r.cfg.Lease / renewals), pause: goOn}
	more, err := r.turn(ctx, e, l)
	r.note(l.report)
	switch {
	case err != nil || l.again:
		e.plan(time.Now(), goOn)
	case more:
		e.plan(time.Now(), l.pause)
	default:
		e.plan(time.Now(), asScheduled)
		if e.counts() {
			err = r.store.DutyDone(ctx, string(e.name), time.Since(began))
		}
	}
	return err
}

// takeOver plans what was missed while nobody led, or by a leader that ended before it was through. What was never done is
// not missed: it counts from now on.
func (r *Reconciler) takeOver(ctx context.Context) error {
	done, err := r.store.DutiesDone(ctx)
	if err != nil {
		r.leading.Store(false) // the next tick takes over
		return err
	}
	for _, e := range r.agenda {
		if !e.counts() {
			continue
		}
		if ago, ever := done[string(e.name)]; ever {
			e.missed(time.Now().Add(-ago))
		} else if err := r.store.DutyDone(ctx, string(e.name), 0); err != nil {
			r.leading.Store(false)
			return err
		}
	}
	return nil
}

// lead takes or renews the lease.
func (r *Reconciler) lead(ctx context.Context) (bool, error) {
	leading, err := r.store.Lead(ctx, leaseName, r.id, r.cfg.Lease)
	leading = leading && err == nil
	r.leading.Store(leading)
	r.metrics.lead(leading)
	return leading, err
}

// turn does one duty, unless nothing may be done: on a paused database, or a copy that nobody adopted.
func (r *Reconciler) turn(ctx context.Context, e *entry, l *look) (more bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o, err := l.store.Observe(ctx); err != nil {
		return false, err
	} else if !o.Open {
		r.place, r.swept = store.Place{}, store.Place{}
		l.again = true // what is missed meanwhile is done when work goes on
		return false, nil
	}
	return e.do(r, ctx, l)
}

// Once does all duties that are not scheduled «never», completely, whoever leads: all stale rows, all orphans, all that is
// past its retention. Where it finds workers that seem dead it first observes the database for as long as
// Config.WorkerTTL, or the longest TTL of any worker, and blocks so long.
func (r *Reconciler) Once(ctx context.Context) (Report, error) {
	l := &look{store: r.store, act: r.cfg.OnAct}
	err := r.afterWatching(ctx, func() error { return r.complete(ctx, l) })
	r.note(l.report)
	return l.report, err
}

// Rehearse does what Once does, with the same statements, in one transaction that is rolled back: nothing is changed, and
// the report and Config.OnAct tell what would have been done. It ends each duty after 10,000 rows, and holds the locks of
// the rows that it would have written until its end.
func (r *Reconciler) Rehearse(ctx context.Context) (Report, error) {
	l := &look{act: r.cfg.OnAct, most: rehearsed}
	err := r.afterWatching(ctx, func() error {
		return r.store.Rehearse(ctx, func(s *store.Store) error {
			l.store = s
			return r.complete(ctx, l)
		})
	})
	return l.report, err
}

// complete does all duties to their ends.
func (r *Reconciler) complete(ctx context.Context, l *look) error {
	var faults []error
	r.mu.Lock()
	r.place, r.swept, r.walked = store.Place{}, store.Place{}, time.Time{}
	r.mu.Unlock()
	for _, e := range r.agenda {
		l.before = l.report.acts()
		for more := e.schedule != nil; more && ctx.Err() == nil; {
			var err error
			if more, err = r.turn(ctx, e, l); err != nil {
				faults = append(faults, err)
				break
			}
			if l.enough() {
				l.report.Unfinished = true
				break
			}
		}
	}
	if r.sweeps() {
		left, err := l.store.Orphans(ctx, nil, mostLeft)
		faults = append(faults, err)
		l.report.Left = len(left)
	}
	return errors.Join(append(faults, ctx.Err())...)
}

// sweeps reports whether attempts without a living worker are looked for.
func (r *Reconciler) sweeps() bool {
	return slices.ContainsFunc(r.agenda, func(e *entry) bool { return e.name == Sweep && e.schedule != nil })
}

// afterWatching calls do, at once if all workers on record live, and all attempts have one; else when the database was seen to run for long
// enough for anybody to be taken for dead, and goes on observing it meanwhile.
func (r *Reconciler) afterWatching(ctx context.Context, do func() error) error {
	suspects, err := r.store.Orphans(ctx, nil, 1)
	if err != nil {
		return err
	}
	dead, err := r.store.DeadWorkers(ctx) // what they held may all be flagged, and is not asked about before they are found dead
	if err != nil {
		return err
	}
	if len(suspects)+len(dead) == 0 {
		return do()
	}
	watching, stop := context.WithCancel(ctx)
	observing := make(chan struct{})
	go func() { defer close(observing); r.observe(watching) }()
	defer func() { stop(); <-observing }()
	longest, err := r.store.LongestTTL(ctx)
	if err != nil {
		return err
	}
	if err := r.awaitSteady(ctx, max(longest, r.cfg.WorkerTTL)); err != nil {
		return err
	}
	return do()
}

// awaitSteady blocks until the database was seen to run without a pause for so long.
func (r *Reconciler) awaitSteady(ctx context.Context, need time.Duration) error {
	tick := time.NewTicker(r.cfg.WorkerTTL / observations)
	defer tick.Stop()
	for !r.watch.steadyFor(need) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

func (r *Reconciler) note(report Report) {
	r.metrics.add(report)
	if report.Suspended {
		r.cfg.Log.Warn("reconciler: the relay is far behind, so lost hints are not looked for")
	}
	if report.acts()+report.Forgotten > 0 {
		r.cfg.Log.Info("reconciler: looked", "requeued", report.Requeued, "flagged", report.Flagged, "retried", report.Retried, "probed", report.Probed, "pruned", report.Pruned, "events_forgotten", report.Forgotten)
	}
}

// resign lets another reconciler lead at once.
func (r *Reconciler) resign(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if r.leading.Load() {
		if err := r.store.Resign(ctx, leaseName, r.id); err != nil {
			r.cfg.Log.Warn("reconciler: could not give the lease back; it runs out", "error", err)
		}
	}
}

// Ready returns nil, or why the last look failed.
func (r *Reconciler) Ready() error {
	if p := r.problem.Load(); p != nil {
		return errors.New("reconciler: " + *p)
	}
	return nil
}

// Leading reports whether this reconciler had the lease at its last look.
func (r *Reconciler) Leading() bool { return r.leading.Load() }

func (r *Reconciler) setProblem(err error) {
	if err == nil {
		r.problem.Store(nil)
		return
	}
	text := err.Error()
	r.problem.Store(&text)
}
