package workers

import (
	"slices"
	"sync"
	"time"
)

// databaseClock compares the database's clock, which may be set, with this process' own, which only runs on. «Not there»
// means that it was not done only after deadline + settle, and a jump of the database's clock must not bring that forward:
// so this process must agree, which has seen that clock with every heartbeat. Safe for concurrent use.
//
// Each look gives the distance of both clocks. The shortest distance within the window counts: after a jump forwards that is
// the one from before it, until the window has passed; by then every attempt that was begun before the jump is over.
//
// The window is that of the kinds as they are declared. Asked about an attempt that was begun under a longer timeout it widens,
// until no such attempt has been asked about for as long. However wide it is, and however the clocks drift, no more than
// maxLooks are kept.
type databaseClock struct {
	least time.Duration // the longest attempt, as the kinds are declared, with its time to settle

	mu     sync.Mutex
	window time.Duration // least, or more for now
	wide   time.Time     // when it was last asked about an attempt that is longer than least, by the own clock
	first  time.Time     // look, by the own clock
	base   time.Time     // what the database said then
	kept   time.Time     // by the own clock: the looks since then are all taken into account, those before are forgotten
	low    []look        // distances that are not undercut by a later one, the shortest first
}

// maxLooks bounds what is kept of the looks.
const maxLooks = 256

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
		c.first, c.base, c.kept = received, said, received
	}
	d := said.Sub(c.base) - received.Sub(c.first)
	if len(c.low) > 0 {
		c.low[len(c.low)-1].until = received // it may have held up to now
	}
	for len(c.low) > 0 && c.low[len(c.low)-1].distance >= d {
		c.low = c.low[:len(c.low)-1]
	}
	c.low = append(c.low, look{received, d})
	if c.window = max(c.window, c.least); received.Sub(c.wide) > c.window {
		c.window = c.least
	}
	forgotten := 0
	for forgotten < len(c.low)-1 && received.Sub(c.low[forgotten].until) > c.window {
		c.kept = c.low[forgotten].until
		forgotten++
	}
	c.low = slices.Delete(c.low, 0, forgotten)
	if len(c.low) > maxLooks {
		c.thin()
	}
}

// thin leaves every other look, for as long as the next one held too: the shorter distance of two is the careful one.
func (c *databaseClock) thin() {
	half := c.low[:0]
	for i := 0; i < len(c.low); i += 2 {
		l := c.low[i]
		if i+1 < len(c.low) {
			l.until = c.low[i+1].until
		}
		half = append(half, l)
	}
	c.low = half
}

// rest returns how much longer it takes until this process can vouch for the database's clock being past a moment: its own
// estimate of that clock must be past it, and it must have watched that clock for as long as span. Zero or less: it can.
func (c *databaseClock) rest(moment time.Time, span time.Duration, now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first.IsZero() {
		return span
	}
	if span > c.least { // of an attempt that was begun under a longer timeout
		c.window, c.wide = max(c.window, span), now
	}
	estimate := c.base.Add(now.Sub(c.first) + c.low[0].distance)
	return max(moment.Sub(estimate), span-now.Sub(c.kept))
}
