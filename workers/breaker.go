package workers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/internal/store"
)

// Breaker is a kind's circuit breaker, one for all workers together: where too many attempts fail, the kind is not consumed
// any more, anywhere, and its messages wait in the broker; no attempt is spent on an outside system that is down. After a
// while one single intent is let through to try: if it is done the breaker closes, if it fails it stays open, twice as long
// each time. People open and close it by hand, too (writ breaker). The zero value is none.
//
// A failure is an attempt that ended not done or unknown, in a panic or by its timeout. Neither a failure nor a call are
// Snooze, Stop (the intent is at fault, not the outside system) and what a shutdown cut off.
type Breaker struct {
	// Ratio of failures among the calls at which it opens: above 0, at most 1. Zero: no breaker.
	Ratio float64

	// Least is how many calls the window must have seen before it opens. Default 20; at least 1.
	Least int

	// Window is how far back calls are counted, over all workers. They report with their heartbeats, or at once where their own
	// calls suffice to open it. Default 30 s; at least 1 s, at most 1 h.
	Window time.Duration

	// Open is how long it stays open before one intent is tried. It doubles with each trial that fails, up to Most. Defaults
	// 30 s and 10 min; Open is at least 100 ms, Most at least Open.
	Open time.Duration
	Most time.Duration
}

func (b Breaker) withDefaults() (Breaker, error) {
	if b.Ratio == 0 {
		if b != (Breaker{}) {
			return b, errors.New("Handler.Breaker.Ratio is 0, which means no breaker, but other fields are set; give a ratio above 0, at most 1")
		}
		return b, nil
	}
	b.Least = cmp.Or(b.Least, 20)
	b.Window = cmp.Or(b.Window, 30*time.Second)
	b.Open = cmp.Or(b.Open, 30*time.Second)
	b.Most = cmp.Or(b.Most, max(b.Open, 10*time.Minute))
	var errs []error
	if !(b.Ratio > 0 && b.Ratio <= 1) {
		errs = append(errs, fmt.Errorf("Handler.Breaker.Ratio is %v; it must be above 0, at most 1", b.Ratio))
	}
	if b.Least < 1 {
		errs = append(errs, fmt.Errorf("Handler.Breaker.Least is %d; it must be at least 1", b.Least))
	}
	if b.Window < time.Second || b.Window > time.Hour {
		errs = append(errs, fmt.Errorf("Handler.Breaker.Window is %v; it must be 1s to 1h", b.Window))
	}
	if b.Open < 100*time.Millisecond || b.Most < b.Open {
		errs = append(errs, fmt.Errorf("Handler.Breaker.Open is %v and Most %v; Open must be at least 100ms, and Most at least Open", b.Open, b.Most))
	}
	return b, errors.Join(errs...)
}

// declaration is what stands in writ.kinds, in seconds; nil: none.
func (b Breaker) declaration() []byte {
	if b.Ratio == 0 {
		return nil
	}
	raw, _ := json.Marshal(map[string]any{ // numbers
		"ratio": b.Ratio, "least": b.Least, "window": b.Window.Seconds(), "open": b.Open.Seconds(), "most": b.Most.Seconds(),
	})
	return raw
}

// breaker is what this process knows of a kind's breaker, and counts for it. The state itself is in the database: see
// sql/flow.sql. (sony/gobreaker was looked at for the counting: its state machine is one process's own, and there is no way
// to take the deltas out of its window that the cluster's needs. What is left are two integers.) Safe for concurrent use.
type breaker struct {
	Breaker
	kind    string
	stir    func() // the valve may have opened or shut
	soon    func() // there is something to report that matters
	metrics *metrics

	mu       sync.Mutex
	state    store.Breaker
	lease    time.Time // half-open and ours: we may let one through until then, by the local clock
	tried    bool      // it is let through
	verdict  string    // what became of it
	calls    int       // not reported yet
	failures int
	since    time.Time // of the first of them
}

// pass names the state in which a hint was let through, so that what becomes of it counts only while that lasts. 0: through
// no breaker.
type pass int32

func (b *breaker) pass() pass { return pass(b.state.Generation) + 1 }

// take asks for n hints to be let through. A nil breaker lets all of them through.
func (b *breaker) take(n int) (granted int, p pass) {
	if b == nil {
		return n, 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.state.State == store.BreakerClosed:
		return n, b.pass()
	case b.mayTry():
		b.tried = true
		return 1, b.pass()
	}
	return 0, 0
}

// mayTry reports whether this process may let one intent through. The caller holds the lock.
func (b *breaker) mayTry() bool {
	return b.state.State == store.BreakerHalfOpen && b.state.Mine && !b.tried && time.Now().Before(b.lease)
}

// giveBack notes that no handler was started for a hint that was let through: another may be tried.
func (b *breaker) giveBack(p pass) {
	if b != nil {
		b.note(p, nothing)
	}
}

func (b *breaker) closure() closure {
	if b == nil {
		return open
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.state.State == store.BreakerClosed || b.mayTry():
		return open
	case b.state.State == store.BreakerHalfOpen && b.state.Mine && b.tried:
		return brief // its outcome opens it, or shuts it for longer
	}
	return lasting
}

// most is how many messages in hand are of use; 0: any number.
func (b *breaker) most() int {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state.State == store.BreakerClosed {
		return 0
	}
	return 1
}

// meaning is what the end of an attempt says of the outside system.
type meaning int

const (
	nothing meaning = iota
	healthy
	failing
)

// meaningOf a handler's error; ctx is the handler's.
func meaningOf(ctx context.Context, err error) meaning {
	if err == nil {
		return healthy
	}
	said := wordOf(err)
	var snooze *snoozeError
	switch {
	case said != nil && said.kind == unknown && context.Cause(ctx) != errDraining:
		return failing
	case errors.As(err, &snooze), said != nil && said.kind == stop, errors.Is(err, ErrHandOver), context.Cause(ctx) == errDraining:
		return nothing
	}
	return failing
}

// note counts the end of an attempt that was let through as p says, or settles the trial that it was.
func (b *breaker) note(p pass, m meaning) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case p != b.pass():
	case b.state.State == store.BreakerHalfOpen && b.state.Mine && b.verdict == "":
		if m == nothing {
			b.tried = false
			b.stir()
			return
		}
		b.verdict = map[meaning]string{healthy: "done", failing: "failed"}[m]
		b.soon()
	case b.state.State == store.BreakerClosed && m != nothing:
		if b.calls++; b.calls == 1 {
			b.since = time.Now()
		}
		if m == failing {
			b.failures++
			if b.calls >= b.Least && float64(b.failures) >= b.Ratio*float64(b.calls) {
				b.soon()
			}
		}
	}
}

// report is what is to be said, if anything is; counts are handed out, verdicts repeated until they were heard. room is how
// many handlers of the kind could be started: without any the process does not offer to try one, nor keeps others from it.
func (b *breaker) report(room int) (r store.BreakerReport, needed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	willing := room > 0 || b.state.Mine && b.tried
	r = store.BreakerReport{Kind: b.kind, Seen: b.state.Generation, Verdict: b.verdict, Willing: willing}
	if time.Since(b.since) < b.Window { // the database may have been away for long
		r.Calls, r.Failures = b.calls, b.failures
	}
	b.calls, b.failures = 0, 0
	return r, r.Calls > 0 || r.Verdict != "" || willing && (b.state.Due || b.state.Mine)
}

// hear takes over how the breaker stands in the database, as an answer to what was asked at a moment. lease is how long the
// asking granted; 0: it was only read.
func (b *breaker) hear(s store.Breaker, asked time.Time, lease time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.Generation != b.state.Generation || s.State != b.state.State { // a lower one, too: the database may have gone back in time
		b.tried, b.verdict, b.calls, b.failures, b.lease = false, "", 0, 0, time.Time{}
	}
	changed := s != b.state
	b.state = s
	if s.Mine && lease > 0 {
		b.lease = asked.Add(lease)
	}
	if changed || s.Mine {
		b.metrics.breaker(b.kind, s.State)
		b.stir()
	}
}

// lookAtFlow reads what holds kinds back, and says what is to be said of breakers.
func (p *Pool) lookAtFlow(ctx context.Context, q store.Querier) error {
	flows, err := store.Flows(ctx, q, p.id)
	if err != nil {
		return err
	}
	byKind := make(map[string]store.Flow, len(flows))
	for _, f := range flows {
		byKind[f.Kind] = f
	}
	changed := false
	for name, v := range p.valves {
		f := byKind[name]
		if v.paused.Swap(f.Paused) != f.Paused {
			changed = true
			p.metrics.pause(name, f.Paused)
		}
		if v.breaker != nil {
			f.Breaker.State = cmp.Or(f.Breaker.State, store.BreakerClosed)
			v.breaker.hear(f.Breaker, time.Time{}, 0)
		}
	}
	if changed {
		p.stir()
	}
	return nil
}

// reportBreakers says what is to be said of them.
func (p *Pool) reportBreakers(ctx context.Context, conn *pgx.Conn) error {
	for _, v := range p.valves {
		if v.breaker == nil {
			continue
		}
		room := v.room(p.slots.free()) // a handler that hangs may have the kind's own slots
		if v.paused.Load() || p.draining.Load() {
			room = 0
		}
		r, needed := v.breaker.report(room)
		if !needed {
			continue
		}
		asked := time.Now()
		s, err := store.ReportBreaker(ctx, conn, p.id, r, p.cfg.TTL)
		if err != nil {
			return err
		}
		v.breaker.hear(s, asked, p.cfg.TTL)
	}
	return nil
}
