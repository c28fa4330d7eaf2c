package reconciler

import (
	"context"
	"sync"
	"time"

	"github.com/writhq/writ/internal/store"
)

// watch knows since when the database, and this process, have been running without a pause. After a pause of either every
// heartbeat looks old, though all workers are well: nobody is taken for dead then until they had time to beat again.
// All times are the database's. Safe for concurrent use.
type watch struct {
	need time.Duration // how long without a pause is enough

	mu    sync.Mutex
	since time.Time // of the first observation after the last pause
	last  time.Time // of the newest observation
}

// see takes an observation into account. at is the database's clock; a start of the server since the last observation
// is a pause too.
func (w *watch) see(at, started time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last.IsZero() || at.Sub(w.last) > w.gap() || at.Before(w.last) {
		w.since = at
	}
	if started.After(w.since) {
		w.since = started
	}
	w.last = at
}

// gap is the longest time between two observations that is no pause.
func (w *watch) gap() time.Duration { return w.need / gaps }

// steady reports whether the last observations were gapless for long enough.
func (w *watch) steady() bool { return w.steadyFor(w.need) }

func (w *watch) steadyFor(need time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.last.IsZero() && w.last.Sub(w.since) > need
}

// observed is the newest observation; the statement that acts on it refuses one that is not fresh.
func (w *watch) observed() store.Observed {
	w.mu.Lock()
	defer w.mu.Unlock()
	return store.Observed{Since: w.since, Last: w.last, Fresh: w.gap()}
}

// observe watches until ctx ends.
func (r *Reconciler) observe(ctx context.Context) {
	tick := time.NewTicker(r.cfg.WorkerTTL / observations)
	defer tick.Stop()
	for {
		_ = r.watchNow(ctx) // no observation is a gap, which is the point
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (r *Reconciler) watchNow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.WorkerTTL)
	defer cancel()
	var o store.Observation
	o, err := r.store.Observe(ctx)
	if err != nil {
		return err
	}
	r.watch.see(o.At, o.Started)
	return nil
}
