package reconciler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/robfig/cron/v3"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
)

// Reconciler looks after one database. Make it with [New]; its methods are safe for concurrent use.
type Reconciler struct {
	cfg      Config
	schedule cron.Schedule
	store    *store.Store
	id       uuid.UUID
	metrics  *metrics
	leading  atomic.Bool
	problem  atomic.Pointer[string]

	mu    sync.Mutex // one look at a time
	watch watch
	place store.Place // where the look for stale rows goes on
	swept time.Time   // last full sweep
	asked time.Time   // last sweep for probes
	prune time.Time   // last pruning
}

// New returns a reconciler that does nothing until Run or Once. The error lists every fault of the config.
func New(pool *pgxpool.Pool, cfg Config) (*Reconciler, error) {
	cfg, schedule, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := store.CheckPool(pool); err != nil {
		return nil, fmt.Errorf("reconciler: %w", err)
	}
	return &Reconciler{
		cfg: cfg, schedule: schedule, store: store.New(pool), id: intent.NewID(), metrics: newMetrics(cfg.Metrics),
		watch: watch{need: cfg.WorkerTTL},
	}, nil
}

// Report is what one look did.
type Report struct {
	Requeued int // hints written again
	Flagged  int // attempts whose worker died, now ambiguous
	Retried  int // the same, idempotent, to be run again
	Pruned   int // rows past their retention
	Probed   int // probes that are asked (again), because a hint was lost or none was planned

	// Suspended: lost hints were not looked for, because the relay is so far behind (10,000 hints overdue by more than
	// RequeueAfter) that lost cannot be told from late. The next look tries again.
	Suspended bool
}

func (r *Report) add(o Report) {
	r.Requeued += o.Requeued
	r.Flagged += o.Flagged
	r.Retried += o.Retried
	r.Pruned += o.Pruned
	r.Probed += o.Probed
	r.Suspended = r.Suspended || o.Suspended
}

// Run looks on schedule until ctx is cancelled, then returns nil. Outages of the database are survived.
func (r *Reconciler) Run(ctx context.Context) error {
	observing := make(chan struct{})
	go func() { defer close(observing); r.observe(ctx) }()
	defer func() { <-observing }()
	defer r.resign(ctx)
	for {
		next := time.Until(r.schedule.Next(time.Now().UTC()))
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		r.tick(ctx)
	}
}

// tick is one scheduled look, if this reconciler leads.
func (r *Reconciler) tick(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	leading, err := r.store.Lead(ctx, leaseName, r.id, r.cfg.Lease)
	r.leading.Store(leading && err == nil)
	r.metrics.lead(leading && err == nil)
	if err == nil && leading {
		var report Report
		report, err = r.look(ctx)
		r.note(report)
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		r.setProblem(err)
		r.cfg.Log.Warn("reconciler: a look failed, the next one tries again", "error", err)
	default:
		r.setProblem(nil)
	}
}

// Once makes one complete look: all stale rows, all orphans, all that is past its retention, whoever leads. Where it
// finds workers that seem dead it first observes the database for as long as Config.WorkerTTL, or the longest TTL of
// any worker, and blocks so long.
func (r *Reconciler) Once(ctx context.Context) (Report, error) {
	total, err := r.through(ctx) // what needs no waiting
	if err != nil {
		return total, err
	}
	suspects, err := r.store.Orphans(ctx, nil, 1)
	if err != nil || len(suspects) == 0 {
		return total, err
	}
	watching, stop := context.WithCancel(ctx)
	observing := make(chan struct{})
	go func() { defer close(observing); r.observe(watching) }()
	defer func() { stop(); <-observing }()
	longest, err := r.store.LongestTTL(ctx)
	if err != nil {
		return total, err
	}
	if err := r.awaitSteady(ctx, max(longest, r.cfg.WorkerTTL)); err != nil {
		return total, err
	}
	r.swept = time.Time{} // look at everything
	rest, err := r.through(ctx)
	total.add(rest)
	return total, err
}

// through looks until all windows of open rows were looked at.
func (r *Reconciler) through(ctx context.Context) (Report, error) {
	var total Report
	for {
		report, err := r.look(ctx)
		total.add(report)
		r.note(report)
		if err != nil || report.Suspended || r.place == (store.Place{}) {
			return total, err
		}
	}
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

// look does what is to be done now.
func (r *Reconciler) look(ctx context.Context) (Report, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var report Report
	if o, err := r.store.Observe(ctx); err != nil {
		return report, err
	} else if !o.Open {
		r.place = store.Place{}
		return report, nil // paused, or a copy that nobody adopted
	}
	return report, errors.Join(r.requeue(ctx, &report), r.settleDead(ctx, &report), r.askProbes(ctx, &report), r.pruneOld(ctx, &report))
}

// requeue writes hints again for pending rows whose hint seems lost, and for recoveries.
func (r *Reconciler) requeue(ctx context.Context, report *Report) error {
	seen, err := r.store.StalePending(ctx, r.place, r.cfg.RequeueAfter, window)
	if err != nil {
		return err
	}
	if report.Suspended = seen.Suspended; seen.Suspended {
		return nil // and go on from the same place
	}
	r.place = seen.Last // the beginning again, unless there is more
	if stale := seen.Stale[:min(len(seen.Stale), r.cfg.RequeueMost)]; len(stale) > 0 {
		if len(stale) < len(seen.Stale) {
			r.place = stale[len(stale)-1].Place // the rest at the next look
		}
		n, err := r.store.Requeue(ctx, stale)
		if err != nil {
			return err
		}
		report.Requeued += int(n)
	}
	n, err := r.store.RequeueOwed(ctx)
	report.Requeued += int(n)
	return err
}

// settleDead looks at what dead workers held: at once when one died, and at everything now and then, for workers whose
// rows are gone and for claims that were committed after their worker was looked at.
func (r *Reconciler) settleDead(ctx context.Context, report *Report) error {
	if !r.watch.steady() {
		return nil
	}
	dead, err := r.store.DeadWorkers(ctx)
	if err != nil {
		return err
	}
	full := time.Since(r.swept) >= r.cfg.Sweep
	if len(dead) == 0 && !full {
		return nil
	}
	scope := dead
	if full {
		scope = nil
	}
	for {
		if err := r.watchNow(ctx); err != nil { // acting needs a fresh observation
			return err
		}
		found, err := r.store.Orphans(ctx, scope, orphans)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			break
		}
		settled, err := r.settle(ctx, found, report)
		if err != nil {
			return err
		}
		if settled == 0 {
			return nil // not silent for long enough, or the database paused: the next look comes back to them
		}
	}
	if full {
		r.swept = time.Now()
		if err := r.store.ForgetWorkers(ctx); err != nil {
			return err
		}
	}
	if len(dead) == 0 {
		return nil
	}
	r.cfg.Log.Warn("reconciler: workers died", "workers", dead, "flagged", report.Flagged, "retried", report.Retried)
	return r.store.Swept(ctx, dead)
}

// settle settles orphaned attempts one by one and returns how many were as read.
func (r *Reconciler) settle(ctx context.Context, found []store.Hint, report *Report) (settled int, err error) {
	var faults []error
	for _, h := range found {
		class, err := r.store.SettleOrphan(ctx, h, r.watch.observed(), r.cfg.WorkerTTL)
		switch {
		case store.Locked(err):
			continue // somebody has its row; that must not hold up the others
		case err != nil && !store.Down(err):
			faults = append(faults, err) // nor must one that cannot be settled
			continue
		case err != nil:
			return settled, err
		case class == "":
			continue
		case class == "idempotent":
			report.Retried++
		default:
			report.Flagged++
		}
		settled++
	}
	return settled, errors.Join(faults...)
}

// pruneOld deletes finished rows past their retention, in small transactions, for a bounded time.
func (r *Reconciler) pruneOld(ctx context.Context, report *Report) error {
	if r.cfg.Prune < 0 || time.Since(r.prune) < r.cfg.Prune {
		return nil
	}
	expiries, err := r.store.Expiries(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	for _, e := range expiries {
		for {
			n, err := r.store.Prune(ctx, e, pruneBatch)
			if err != nil {
				return err
			}
			report.Pruned += n
			if n < pruneBatch {
				break
			}
			if time.Since(began) > r.cfg.Prune/2 {
				return nil // the rest at the next look
			}
		}
	}
	r.prune = time.Now()
	return nil
}

func (r *Reconciler) note(report Report) {
	r.metrics.add(report)
	if report.Suspended {
		r.cfg.Log.Warn("reconciler: the relay is far behind, so lost hints are not looked for")
	}
	if report != (Report{}) && report != (Report{Suspended: true}) {
		r.cfg.Log.Info("reconciler: looked", "requeued", report.Requeued, "flagged", report.Flagged, "retried", report.Retried, "probed", report.Probed, "pruned", report.Pruned)
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
