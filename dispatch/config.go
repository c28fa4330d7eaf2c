// Package dispatch is the relay: it publishes what the outbox holds to RabbitMQ, after the commit that wrote it, and
// deletes exactly what the broker confirmed. Any number of relays run side by side.
package dispatch

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/writhq/writ/internal/store"
)

// Config of a relay. The zero value is the default.
type Config struct {
	// Batch is how many outbox rows are taken and published at once. Default 1,000; at most 10,000. Larger batches make
	// larger frames, hold row locks longer, and are published again whole if the relay dies.
	Batch int

	// Poll is how often an idle relay looks by itself: the precision of delays and backoff, and the longest wait where
	// LISTEN cannot work. Default 250 ms; at least 1 ms.
	Poll time.Duration

	// ConfirmTimeout bounds the wait for the broker's confirms of one batch; then it is published again. Default 5 s.
	ConfirmTimeout time.Duration

	// Near is offered hints while few come: a way to workers of this very process that is shorter than the one over the
	// broker, which every hint goes all the same. It returns whether a worker took it, must not block, and is called by
	// several goroutines. For package writ; default: none.
	Near func(store.Hint) bool

	// Log gets what an operator should know. Default: slog.Default().
	Log *slog.Logger

	// Metrics registers the relay's metrics. Default: none are registered.
	Metrics prometheus.Registerer
}

func (c Config) withDefaults() (Config, error) {
	c.Batch = cmp.Or(c.Batch, 1000)
	c.Poll = cmp.Or(c.Poll, 250*time.Millisecond)
	c.ConfirmTimeout = cmp.Or(c.ConfirmTimeout, 5*time.Second)
	c.Log = cmp.Or(c.Log, slog.Default())
	var errs []error
	if c.Batch < 1 || c.Batch > 10_000 {
		errs = append(errs, fmt.Errorf("dispatch: Config.Batch is %d; it must be 1 to 10,000", c.Batch))
	}
	if c.Poll < time.Millisecond {
		errs = append(errs, fmt.Errorf("dispatch: Config.Poll is %v; it must be at least 1ms", c.Poll))
	}
	if c.ConfirmTimeout < 0 {
		errs = append(errs, fmt.Errorf("dispatch: Config.ConfirmTimeout is %v; it must be positive", c.ConfirmTimeout))
	}
	return c, errors.Join(errs...)
}

// How the relay moves; measured, not tunable.
const (
	// A batch of n rows travels in frames of n/32 hints, at most 32, so that a trickle goes singly and a backlog in frames;
	// only hints of kinds whose typical run time is shortRun at most: a frame of slow jobs would sit in one worker while
	// others idle. Frames of kinds that run for briefRun at most are four times as large, and hold a few in a trickle, too:
	// they are gone in no time, and the broker's work is by the message.
	frameShare = 32
	maxFrame   = 32
	shortRun   = 50 * time.Millisecond
	briefRun   = time.Millisecond
	briefly    = 4
	fewest     = 16
	// trail is how far behind the newest row seen the next scan begins. Rows commit out of order by a few milliseconds;
	// those that come later are found by the scan for stragglers.
	trail = 100 * time.Millisecond
	// stragglers is how often rows are looked for that committed further behind: half of the second within which a
	// long transaction's intents are to be published.
	stragglers = 500 * time.Millisecond
	// alert is how long a relay stays awake after it last had work, looking every linger: going to sleep and being woken
	// costs both sides more than that.
	alert  = 50 * time.Millisecond
	linger = 5 * time.Millisecond
	// few is a batch so small that the next one is given as long to gather: transactions and messages are paid by the batch,
	// all the way to the outcomes.
	few = 32
	// gather is what a batch gathers for once much comes: each costs a transaction of the relay, a confirm of a quorum of
	// disks, and a claim and an outcome of the workers, whatever is in it.
	gather = 25 * time.Millisecond
	// quiet is how many rows a second are too many for each creation to ring, as the commits of those that ring take turns;
	// brisk, how many are worth more in batches than soon. paceOver is the time over which they are counted.
	quiet    = 200
	brisk    = 1000
	paceOver = 100 * time.Millisecond
	// blink is the pause between two glances at the outbox for workers of this process, and leisure what a small batch gets
	// to gather when they have its hints already.
	blink   = 4 * time.Millisecond
	leisure = 20 * time.Millisecond
	// blind is the pause after a look that failed.
	blind = 5 * time.Second
	// restless is the longest pause between two looks while a creation is in flight that will not ring.
	restless = 16 * time.Millisecond
	// patience bounds connecting.
	patience = 10 * time.Second
	// holding bounds how long rows are held while the broker answers; the server ends a transaction that idles for 30 s.
	holding = 20 * time.Second
	// refresh is how often the declared kinds are read again, depths how often the queues are asked for theirs.
	refresh = 5 * time.Second
	// learn is the same while a backlog travels singly because nobody has said yet how long its kind runs: a worker says it after
	// some runs. It is doubled as long as nobody does.
	learn = 10 * time.Millisecond
	// unknown bounds a batch of such a backlog.
	unknown = 128
	depths  = 15 * time.Second
)
