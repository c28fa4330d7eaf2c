// Package workers runs handlers: it takes hints from RabbitMQ, claims their intents by compare-and-set, calls the
// application's code, and writes the outcome down.
package workers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config of a worker process. The zero value is the default.
type Config struct {
	// Slots is how many handlers run at once in this process. Default 100. Memory and connections of the handlers are
	// what bounds it; hints beyond it stay with the broker.
	Slots int

	// Heartbeat is how often the process says that it lives, and TTL how long others believe it. A process whose own
	// heartbeat was not confirmed for a TTL starts nothing new; one that is silent for a TTL is taken for dead, and what it
	// held is flagged, or retried if idempotent. Defaults 2 s and 10 s; TTL is at least twice Heartbeat.
	Heartbeat time.Duration
	TTL       time.Duration

	// Drain is how long running handlers may go on after Run's context was cancelled; then their contexts are cancelled
	// too. Default 30 s; negative: none.
	Drain time.Duration

	// Application that this process belongs to: the first part of its kinds' names. If it is given, the database becomes that
	// application's at the first start: it then refuses the tasks of others, whoever creates them, and the workers of
	// others. Default: the mux's kinds say it, and a database that nobody took takes all tasks. At most 40 bytes.
	Application string

	// Version of the application, shown to operators. Default: "".
	Version string

	// Log gets what an operator should know; every line about a job names its id, tid, kind and attempt. Default:
	// slog.Default().
	Log *slog.Logger

	// OnFailure is told of each attempt of this process that did not end well: to be tried again after an error, in error, or
	// flagged. It is called when that is written, outside any transaction, one call at a time, with a context that ends after 30 s. Nothing
	// waits for it: up to 1,000 failures wait for it, and what comes beyond is dropped and counted (writ_failures_dropped_total). What is found of a
	// process that died it is not told of: see the metrics and alerts. Default: none.
	OnFailure func(ctx context.Context, f Failure)

	// Metrics registers the worker's metrics. Default: none are registered.
	Metrics prometheus.Registerer
}

func (c Config) withDefaults() (Config, error) {
	c.Slots = cmp.Or(c.Slots, 100)
	c.Heartbeat = cmp.Or(c.Heartbeat, 2*time.Second)
	c.TTL = cmp.Or(c.TTL, 10*time.Second)
	c.Drain = max(0, cmp.Or(c.Drain, 30*time.Second))
	c.Log = cmp.Or(c.Log, slog.Default())
	var errs []error
	if c.Slots < 1 || c.Slots > 100_000 {
		errs = append(errs, fmt.Errorf("workers: Config.Slots is %d; it must be 1 to 100,000", c.Slots))
	}
	if c.Heartbeat < 10*time.Millisecond || c.TTL < 2*c.Heartbeat {
		errs = append(errs, fmt.Errorf("workers: Config.Heartbeat is %v and TTL %v; Heartbeat must be at least 10ms and TTL at least twice that", c.Heartbeat, c.TTL))
	}
	return c, errors.Join(errs...)
}

// How a worker moves; not tunable.
const (
	// maxPrefetch bounds how many messages of one queue wait here unacked. Each may be a frame of 32 hints; where they are
	// single hints, no more than this many are claimed at once.
	maxPrefetch = 128
	// maxNear bounds the hints that wait here for the next claim and have not come over the broker.
	maxNear = 256
	// spacing is the least time between two writings of less than small outcomes. A process that dies within it leaves a few
	// more attempts ambiguous.
	spacing = 5 * time.Millisecond
	small   = 16
	// hold is how long messages wait for a free slot before they go back to the outbox, for others or for later: nothing
	// stays unacked while handlers run.
	hold = 5 * time.Second
	// backlog: handlers that returned give their slot back at once, while outcomes are being written; beyond this many
	// unwritten outcomes per slot nothing new is claimed.
	backlog = 4
	// tellTale is how many runs of a kind are enough to tell the relay how long they typically take, without waiting for the
	// next heartbeat: until it knows, hints travel singly.
	tellTale = 16
	// overdue is how far past its deadline a handler may be before its row is flagged.
	overdue = time.Second
	// hookTries is how often the application's share in a finishing transaction may fail; a failure that may pass, such as
	// a deadlock or a lost connection, counts as one hookTransient-th of that.
	hookTries     = 5
	hookTransient = 6
	// unwritten is how long past its deadline the outcome of a handler that returned may stay unwritten before the row is
	// flagged: nothing is hidden, whatever keeps the outcome from the database.
	unwritten = time.Minute
	// afterDrain is how long handlers whose contexts were cancelled get to return, and outcomes to be written.
	afterDrain = 5 * time.Second
)
