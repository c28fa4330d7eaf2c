package workers

import (
	"context"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/writhq/writ/intent"
)

// Failure is an attempt that did not end well, for [Config.OnFailure].
type Failure struct {
	ID      intent.ID
	TID     intent.ID
	Kind    string
	Attempt int
	Epoch   int
	Outcome string // as it was written: retried, failed (→ error), flagged
	Why     string // in a word or two, as the log has it
	Err     error  // what the handler returned, a *PanicError if it panicked; nil if it has not returned
}

// reporter calls the application's hook for failures, one after the other, beside all else: whatever the hook does, nothing
// waits for it.
type reporter struct {
	hook    func(context.Context, Failure)
	queue   chan Failure
	dropped prometheus.Counter
	log     *slog.Logger
	ended   chan struct{}
}

// How many failures wait for the hook, and how long the hook gets at the end of the process.
const (
	maxFailures   = 1000
	lastWords     = time.Second
	failureExpiry = 30 * time.Second
)

// newReporter returns one that does nothing until run; nil for no hook.
func newReporter(cfg Config, dropped prometheus.Counter) *reporter {
	if cfg.OnFailure == nil {
		return nil
	}
	return &reporter{hook: cfg.OnFailure, queue: make(chan Failure, maxFailures), dropped: dropped, log: cfg.Log, ended: make(chan struct{})}
}

// report hands a failure over; it does not block. Those that the hook cannot keep up with are dropped and counted.
func (r *reporter) report(a *attempt, outcome, why string, err error) {
	if r == nil {
		return
	}
	f := Failure{ID: a.ID, TID: a.TID, Kind: a.Kind, Attempt: int(a.Attempt), Epoch: int(a.Epoch), Outcome: outcome, Why: why, Err: err}
	select {
	case r.queue <- f:
	default:
		r.dropped.Inc()
	}
}

// run calls the hook until ctx ends, and then for what is left.
func (r *reporter) run(ctx context.Context) {
	defer close(r.ended)
	for {
		select {
		case f := <-r.queue:
			r.call(f)
			continue
		default:
		}
		select {
		case f := <-r.queue:
			r.call(f)
		case <-ctx.Done():
			return
		}
	}
}

// call gives the hook a goroutine of its own, so that it may panic, or end that.
func (r *reporter) call(f Failure) {
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		defer func() {
			if p := recover(); p != nil {
				r.log.Error("worker: Config.OnFailure panicked", "panic", p, "stack", string(debug.Stack()), "id", f.ID, "kind", f.Kind)
			}
		}()
		ctx, cancel := context.WithTimeout(context.Background(), failureExpiry)
		defer cancel()
		r.hook(ctx, f)
	}()
	<-returned
}

// awaitEnd waits until what was reported is told, or for no longer than lastWords: a hook that hangs is left behind.
func (r *reporter) awaitEnd() {
	if r == nil {
		return
	}
	timer := time.NewTimer(lastWords)
	defer timer.Stop()
	select {
	case <-r.ended:
	case <-timer.C:
		r.log.Warn("worker: Config.OnFailure has not returned; what it was not told of is dropped", "failures", len(r.queue))
	}
}
