package dispatch

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"github.com/writhq/writ/internal/backoff"
	"github.com/writhq/writ/internal/store"
)

// Workers of the relay's own process need not wait for the broker. While little comes, a creation rings with its hint,
// and the relay sleeps on, publishing at leisure. Commits that ring take turns, so when more comes they do not: the
// outbox is glanced at every blink instead. When much comes, batches are worth more than either.

// quiet reports whether so little comes that each creation may ring.
func (s *session) quiet() bool { return s.nearby() && s.pace.perSecond < quiet }

// nearby reports whether this relay serves workers of its own process; the one at the door does.
func (s *session) nearby() bool { return s.cfg.Near != nil && s.bell != nil }

// linger is how long a small batch gathers.
func (s *session) linger() time.Duration {
	if s.glance.serves() {
		return leisure
	}
	return linger
}

// glimpse begins or ends glancing as the pace demands.
func (s *session) glimpse(ctx context.Context) {
	on := s.nearby() && s.pace.perSecond >= quiet && s.pace.perSecond < brisk
	switch {
	case on && s.glance == nil:
		s.glance = s.look(ctx)
	case !on && s.glance != nil:
		s.glance.close()
		s.glance = nil
	}
}

// glance looks at the outbox every blink, taking nothing, and offers what it sees to the workers of this process. A nil
// glance serves nobody.
type glance struct {
	stop    context.CancelFunc
	done    chan struct{}
	refused atomic.Bool // a hint, since it was last asked
}

func (r *Relay) look(ctx context.Context) *glance {
	ctx, stop := context.WithCancel(ctx)
	g := &glance{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(g.done)
		defer stop()
		if err := g.run(ctx, r); err != nil && ctx.Err() == nil {
			r.cfg.Log.Warn("relay: cannot look for the workers of this process; hints go over the broker", "error", err)
		}
	}()
	return g
}

// run glances until ctx ends or the database fails.
func (g *glance) run(ctx context.Context, r *Relay) error {
	var low time.Time
	seen := map[int64]bool{} // of those that are still there
	for backoff.Sleep(ctx, blink) {
		rows, err := store.Glance(ctx, r.pool, low, few)
		if err != nil {
			return err
		}
		before := seen
		seen = make(map[int64]bool, len(rows))
		for _, row := range rows {
			seen[row.OID] = true
			low = maxTime(low, row.DueAt.Add(-trail))
			if !before[row.OID] && !r.cfg.Near(row.Hint) {
				g.refused.Store(true)
			}
		}
	}
	return nil
}

// serves reports whether all that was seen since the last call is in good hands.
func (g *glance) serves() bool {
	if g == nil {
		return false
	}
	select {
	case <-g.done:
		return false
	default:
		return !g.refused.Swap(false)
	}
}

// close ends it, and waits for that.
func (g *glance) close() {
	if g != nil {
		g.stop()
		<-g.done
	}
}

// pace is how many rows a second are taken, smoothed over paceOver.
type pace struct {
	at        time.Time
	perSecond float64
}

// note counts n rows that were taken since the last call.
func (p *pace) note(n int) {
	now := time.Now()
	if took := now.Sub(p.at).Seconds(); took > 0 {
		weight := 1 - math.Exp(-took/paceOver.Seconds())
		p.perSecond += weight * (float64(n)/took - p.perSecond)
	}
	p.at = now
}
