package workers

import (
	"sync"
	"time"
)

// databaseClock compares the database's clock, which may be set, with this process' own, which only runs on. «Not there»
// means that it was not done only after deadline + settle, and a jump of the database's clock must not bring that forward:
// so this process must agree, which has seen that clock with every heartbeat. Safe for concurrent use.
//
// Each look gives the distance of both clocks. The shortest distance within the window counts: after a jump forwards that is
// the one from before it, until the window has passed; by then every attempt that was begun before the jump is over.
type databaseClock struct {
	window time.Duration // the longest attempt with its time to settle

	mu    sync.Mutex
	first time.Time // look, by the own clock
	base  time.Time // what the database said then
	low   []look    // distances that are not undercut by a later one, the shortest first
}

// look is one look at the database's clock.
type look struct {
	until    time.Time     // by the own clock: of the next look, or its own if it is the last one
	distance time.Duration // database's time since base less own time since first
}

// see takes a look into account: what the database said, and when that was received.
func (c *databaseClock) see(said, received time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first.IsZero() {
		c.first, c.base = received, said
	}
	d := said.Sub(c.base) - received.Sub(c.first)
	if len(c.low) > 0 {
		c.low[len(c.low)-1].until = received // it may have held up to now
	}
	for len(c.low) > 0 && c.low[len(c.low)-1].distance >= d {
		c.low = c.low[:len(c.low)-1]
	}
	c.low = append(c.low, look{received, d})
	for len(c.low) > 1 && received.Sub(c.low[0].until) > c.window {
		c.low = c.low[1:]
	}
}

// rest returns how much longer it takes until this process can vouch for the database's clock being past a moment: its own
// estimate of that clock must be past it, and it must have watched that clock for as long as span. Zero or less: it can.
func (c *databaseClock) rest(moment time.Time, span time.Duration, now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first.IsZero() {
		return span
	}
	c.window = max(c.window, span) // of an attempt that was begun under a longer timeout
	watched := now.Sub(c.first)
	estimate := c.base.Add(watched + c.low[0].distance)
	return max(moment.Sub(estimate), span-watched)
}
