package workers

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/writhq/writ/internal/backoff"
	"github.com/writhq/writ/internal/rabbit"
	"github.com/writhq/writ/internal/store"
)

// How hints wait at a valve; not tunable.
const (
	// glance is how often valves are looked at while hints wait at some.
	glance = 100 * time.Millisecond
	// A kind that stays shut while others of its queue are open cannot be left with the broker: its hints are put back for
	// as long as it has been shut already, within these bounds, so that each of them goes round ever more rarely.
	shortestBack = 10 * time.Second
	longestBack  = 5 * time.Minute
)

// let takes a hint of a known kind into the batch if its valve lets it through at once; else it waits there. What is
// neither is settled.
func (c *claimer) let(batch []hint, v *valve, h hint) []hint {
	if v.empty() && !v.share.limited.Load() {
		if n, p := v.take(1); n == 1 {
			h.pass = p
			return c.enter(batch, v, h)
		}
	}
	c.detain(v, h)
	return batch
}

// detain has a hint wait at its valve. One that has not gone over the broker comes again, and need not.
func (c *claimer) detain(v *valve, h hint) {
	if h.frame == nil {
		return
	}
	if v.empty() && !slices.Contains(c.held, v) {
		c.held = append(c.held, v)
		v.began = time.Now()
	}
	v.waiting = append(v.waiting, h)
}

// release takes hints that wait at valves into the batch, up to most in it, the first that came first. The valves take turns.
func (c *claimer) release(ctx context.Context, batch []hint, most int) []hint {
	for _, v := range c.held {
		if v.share.keyed() != "" {
			batch = c.releaseKeyed(ctx, batch, v, most)
			continue
		}
		for len(v.waiting) > 0 && len(batch) < most {
			n, p := v.take(min(len(v.waiting), most-len(batch)))
			if n == 0 {
				break
			}
			v.since = time.Time{}
			for _, h := range v.waiting[:n] {
				h.pass = p
				batch = c.enter(batch, v, h)
			}
			v.waiting = v.waiting[n:]
		}
	}
	if len(c.held) > 1 {
		c.held = append(c.held[1:], c.held[0])
	}
	c.held = slices.DeleteFunc(c.held, func(v *valve) bool {
		if !v.empty() {
			return false
		}
		v.waiting = nil // and what it pointed to
		return true
	})
	return batch
}

// tend looks after valves that are shut: queues of which nothing is wanted are left to the broker, and taken up again when
// something is; what has waited here for too long goes back through the outbox.
func (c *claimer) tend(ctx context.Context) {
	now := time.Now()
	c.tended = now
	limits := make(map[string]int)
	for name, q := range c.intakes {
		q.held = true
		for _, v := range q.valves {
			switch state := v.state(); {
			case state == open:
				v.since = time.Time{}
			case v.since.IsZero() && (state == lasting || !v.empty()):
				v.since = now
			}
			q.held = q.held && v.stays(now)
		}
		if q.held {
			limits[name] = rabbit.Held
		} else if n := c.prefetch(q); n != c.usual {
			limits[name] = n
		}
	}
	if !maps.Equal(limits, c.limits) {
		c.limits = limits
		if err := c.consumer.SetPrefetch(limits); err != nil {
			c.cfg.Log.Error("worker: cannot say which queues to consume", "error", err)
		}
	}
	for _, v := range slices.Clone(c.held) {
		v.dropStale()
		c.relieve(ctx, v, now)
	}
	c.held = slices.DeleteFunc(c.held, (*valve).empty)
}

// dropStale forgets hints of a connection to the broker that is gone: all of them come again.
func (v *valve) dropStale() {
	stale := func(h hint) bool { return h.frame.delivery.Stale() }
	for f := range v.lot.frames {
		if f.delivery.Stale() {
			v.unfile()
			break
		}
	}
	v.waiting = slices.DeleteFunc(v.waiting, stale)
}

// empty reports whether no hint waits.
func (v *valve) empty() bool { return len(v.waiting) == 0 && v.lot.n == 0 }

// stays reports whether a valve is shut for more than moments.
func (v *valve) stays(now time.Time) bool {
	return !v.since.IsZero() && (v.state() == lasting || now.Sub(v.since) >= hold)
}

// relieve puts back what has waited at a valve for long, and what of a kind would fill the prefetch of a queue that it
// shares with others.
func (c *claimer) relieve(ctx context.Context, v *valve, now time.Time) {
	if v.share.limited.Load() && v.since.IsZero() {
		c.relieveLimited(ctx, v, now)
		return
	}
	v.unfile()
	keep := len(v.waiting)
	after := func() time.Duration { return backoff.Jitter(3 * time.Second) }
	shared := len(v.queue.valves) > 1 && !v.queue.held
	switch {
	case v.since.IsZero():
	case now.Sub(v.since) >= hold && v.queue.held:
		keep, after = 0, func() time.Duration { return backoff.Jitter(glance) } // to the broker, where it waits
	case now.Sub(v.since) >= hold:
		keep, after = 0, func() time.Duration { return backoff.Jitter(min(max(now.Sub(v.since), shortestBack), longestBack)) }
	case shared:
		keep = min(keep, max(1, c.prefetch(v.queue)/(2*len(v.queue.valves))))
	}
	if keep == len(v.waiting) {
		return
	}
	back := v.waiting[keep:]
	v.waiting = slices.Clone(v.waiting[:keep])
	c.putBack(ctx, back, "shut", func(store.Hint) (time.Duration, time.Time) { return after(), time.Time{} })
}
