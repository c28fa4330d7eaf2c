package workers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
)

// What a handler may return besides nil (done). Any other error means that nobody knows, unless the handler had not
// entered its effect yet.

// NotDone says that the outside world was surely not touched: the attempt is repeated with backoff, and the intent ends
// in error when its attempts are spent. Nil stays nil.
func NotDone(err error) error { return wrap(notDone, err) }

// Stop says that it was not done and that trying again is of no use: the intent ends in error at once.
func Stop(err error) error { return wrap(stop, err) }

// Unknown says that the outside world may have been touched, whatever the error looks like or wraps, and whatever is joined with it.
func Unknown(err error) error { return wrap(unknown, err) }

// Snooze says: not now, again in d. Nothing was done, and no attempt is spent.
func Snooze(d time.Duration) error { return &snoozeError{d: d} }

type outcomeKind int

const (
	notDone outcomeKind = iota
	stop
	unknown
)

type outcomeError struct {
	kind outcomeKind
	err  error
}

func wrap(kind outcomeKind, err error) error {
	if err == nil {
		return nil
	}
	return &outcomeError{kind, err}
}

func (e *outcomeError) Error() string { return e.err.Error() }
func (e *outcomeError) Unwrap() error { return e.err }

// wordOf is what an error says in so many words; nil: nothing. The outermost word counts, and where errors are joined the first
// one, but an unknown beside it.
func wordOf(err error) *outcomeError {
	switch e := err.(type) {
	case *outcomeError:
		return e
	case interface{ Unwrap() error }:
		return wordOf(e.Unwrap())
	case interface{ Unwrap() []error }:
		var word *outcomeError
		for _, part := range e.Unwrap() {
			if w := wordOf(part); w != nil && (word == nil || w.kind == unknown) {
				word = w
			}
		}
		return word
	}
	return nil
}

type snoozeError struct {
	d     time.Duration
	why   string // of the engine's own
	newer bool   // the arguments are of a later version than this worker knows
}

func (e *snoozeError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("snoozed for %v %s", e.d, e.why))
}

// PanicError is a handler's panic.
type PanicError struct {
	Value any
	Stack []byte // of the goroutine that panicked; nil: not known
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// The classes of a kind.
const (
	Idempotent = "idempotent" // a second run does no harm
	Probed     = "probed"     // the outside world can be asked
	Manual     = "manual"     // only a person can tell
)

// judge makes an outcome of what a handler returned: the table of docs/protocol.md. ctx is the handler's.
func judge(ctx context.Context, a *attempt, err error) store.Outcome {
	o := store.Outcome{ID: a.ID, Epoch: a.Epoch}
	if err == nil {
		o.Event, o.Hook, o.Result = store.Succeeded, a.hook, a.result
		return o
	}
	o.Error = err.Error()
	said := wordOf(err)
	open := said != nil && said.kind == unknown // whatever else it looks like
	var snooze *snoozeError
	var unkept *resultError
	switch {
	case !open && a.handedOver != "" && errors.Is(err, ErrHandOver):
		return handOver(a, o)
	case errors.As(err, &unkept):
		o.Event, o.Why = store.Flagged, "hook-failed" // what is known is that it was done
		return o
	case !open && errors.As(err, &snooze):
		o.Event, o.Free, o.Delay, o.Error, o.Why = store.Retried, true, max(0, snooze.d), "", cmp.Or(snooze.why, "snoozed")
		return o
	case said != nil && said.kind == stop:
		o.Event, o.Why = store.Failed, "stopped"
		return o
	case said != nil && said.kind == notDone:
		return again(a, o, err, "not done")
	case !open && !a.entered():
		return again(a, o, err, "not done: it had not entered its effect")
	}

	why := "unknown"
	var panicked *PanicError
	switch {
	case errors.As(err, &panicked):
		why = "panic"
	case context.Cause(ctx) == errDraining:
		why = "cancelled"
	case ctx.Err() != nil:
		why = "timeout"
	}
	switch a.kind.class {
	case Idempotent:
		return again(a, o, err, why+": idempotent, so it is run again")
	case Probed:
		o.Event, o.Why, o.Probe = store.Flagged, why, true
	default:
		o.Event, o.Why = store.Flagged, why
	}
	return o
}

// handOver is the outcome at a safe point: nothing is half done, and the rest is not done. A worker that shuts down gives it
// to another one; an attempt whose time was up is spent, for it may come to nothing each time.
func handOver(a *attempt, o store.Outcome) store.Outcome {
	if !a.leaving() {
		return again(a, o, nil, "not done from its safe point on: "+a.handedOver)
	}
	o.Event, o.Free, o.Error, o.Why = store.Retried, true, "", HandedOver
	return o
}

// HandedOver is what the log says of an attempt that ended at a safe point because its worker shut down.
const HandedOver = "handed over at a safe point"

// again retries with backoff, and not before the other side wants it to, or fails when the attempts are spent.
func again(a *attempt, o store.Outcome, err error, why string) store.Outcome {
	if int(a.Attempt) >= a.kind.MaxAttempts {
		o.Event, o.Why = store.Failed, "attempts spent; the last one: "+why
		return o
	}
	o.Event, o.Why, o.Delay = store.Retried, why, max(delay(a.kind.Backoff, a.Attempt), waitOf(err))
	return o
}

// delay is the backoff after an attempt, with full jitter.
func delay(b intent.Backoff, attempt int32) time.Duration {
	most := float64(b.Min) * math.Pow(b.Factor, float64(attempt-1))
	if most > float64(b.Max) {
		most = float64(b.Max)
	}
	return time.Duration(rand.Float64() * most)
}
