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

// enough is how many rows make a batch after which the next is taken at once.
func (s *session) enough() int {
	return max(few, int(s.pace.perSecond*gather.Seconds()))
}

// linger is how long a smaller batch gathers.
func (s *session) linger() time.Duration {
	switch {
	case s.glance.serves():
		return leisure
	case s.pace.perSecond >= brisk && s.glance == nil:
		return gather
	}
	return linger
}

// glimpse begins or ends glancing as the pace demands; once begun, it goes on somewhat beyond. So it does when less comes:
// until the relay dozes.
func (s *session) glimpse(ctx context.Context) {
	most := float64(brisk)
	if s.glance != nil {
		most *= 1.5
	}
	on := s.nearby() && s.pace.perSecond >= quiet && s.pace.perSecond < most
	if s.glance != nil && (!on || s.glance.ended()) {
		s.glance.close()
		s.glance = nil
	}
	if on && s.glance == nil {
		s.glance = s.look(ctx)
	}
}

// glance looks at the outbox every blink, taking nothing, and offers what it sees to the workers of this process. A nil
// glance serves nobody.
type glance struct {
	stop   context.CancelFunc
	done   chan struct{}
	looked atomic.Bool // since it was last asked
	missed atomic.Bool // a hint was refused, or not seen
}

func (r *Relay) look(ctx context.Context) *glance {
	ctx, stop := context.WithCancel(ctx)
	g := &glance{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(g.done)
		if err := g.run(ctx, r); err != nil && ctx.Err() == nil {
			r.cfg.Log.Warn("relay: cannot look for the workers of this process; hints go over the broker", "error", err)
			backoff.Sleep(ctx, blind) // it would be begun again at once
		}
	}()
	return g
}

// run glances until ctx ends, or the database fails.
func (g *glance) run(ctx context.Context, r *Relay) error {
	var low time.Time
	seen := map[int64]bool{} // of those that are still there
	tick := time.NewTicker(blink)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		rows, err := store.New(r.pool).Glance(ctx, low, few)
		if err != nil {
			return err
		}
		before := seen
		seen = make(map[int64]bool, len(rows))
		for _, row := range rows {
			seen[row.OID] = true
			low = maxTime(low, row.DueAt.Add(-trail))
			if !before[row.OID] && !r.cfg.Near(row.Hint) {
				g.missed.Store(true)
			}
		}
		if len(rows) == few {
			g.missed.Store(true)
		}
		g.looked.Store(true)
	}
}

// serves reports whether it has looked since the last call, and all that it saw is in good hands.
func (g *glance) serves() bool {
	if g == nil {
		return false
	}
	looked, missed := g.looked.Swap(false), g.missed.Swap(false)
	return looked && !missed && !g.ended()
}

func (g *glance) ended() bool {
	select {
	case <-g.done:
		return true
	default:
		return false
	}
}

// close ends it, and waits for the look that is under way, but not for one that has no connection yet: the application
// may have all of its pool's in use, and the outbox does not wait for that.
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
