package workers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
)

// Job is one attempt at an intent, as its handler gets it. It belongs to that call of the handler.
type Job[T any] struct {
	Args T // as they were created

	attempt *attempt
}

// ID of the intent.
func (j *Job[T]) ID() intent.ID { return j.attempt.ID }

// Kind is the name of the intent's kind.
func (j *Job[T]) Kind() string { return j.attempt.Kind }

// TID is the transaction id that all intents caused by one root share.
func (j *Job[T]) TID() intent.ID { return j.attempt.TID }

// Parent is the intent that caused it; zero: none.
func (j *Job[T]) Parent() intent.ID {
	if j.attempt.ParentID == nil {
		return uuid.Nil
	}
	return *j.attempt.ParentID
}

// Trace is the W3C traceparent that it was created with, or empty.
func (j *Job[T]) Trace() string {
	if j.attempt.Trace == nil {
		return ""
	}
	return *j.attempt.Trace
}

// Attempt counts from 1, since the last act of a person.
func (j *Job[T]) Attempt() int { return int(j.attempt.Attempt) }

// Epoch is the fencing token of this attempt: it only ever grows, so an outside system that keeps the highest one seen
// can refuse a late attempt.
func (j *Job[T]) Epoch() int { return int(j.attempt.Epoch) }

// WorkerID names this worker process.
func (j *Job[T]) WorkerID() uuid.UUID { return j.attempt.worker }

// ArgsVersion is the version of the arguments when they were created.
func (j *Job[T]) ArgsVersion() int { return int(j.attempt.ArgsVersion) }

// Subjects are the application's rows that the intent is about.
func (j *Job[T]) Subjects() []string { return j.attempt.Subjects }

// RequestedAt is when the intent was created, by the database's clock.
func (j *Job[T]) RequestedAt() time.Time { return j.attempt.RequestedAt }

// Meta is the JSON object that the creator attached, or nil.
func (j *Job[T]) Meta() json.RawMessage { return j.attempt.Meta }

// Key is the idempotency key for the outside world: the same over all automatic attempts, and unique across databases.
// It changes only when a person retries with other arguments or asks for a new key.
func (j *Job[T]) Key() string { return j.attempt.key() }

// Log is a logger that names the job on every line.
func (j *Job[T]) Log() *slog.Logger { return j.attempt.log() }

// Effect marks that the outside world is touched from here on, and returns ctx, so that it reads as part of the call:
// send(job.Effect(ctx), …). In memory only. It has a meaning only for handlers registered with EffectMarked; all others
// are in their effect from their first line.
func (j *Job[T]) Effect(ctx context.Context) context.Context {
	j.attempt.effect.Store(true)
	return ctx
}

// Done is for the last line of a handler that did it: hook runs in the transaction that records it, after the guard, so
// that a receipt is stored exactly if this attempt's word makes the intent sent. Where the probe or a person has to say that
// it was done, for its worker died, nobody has hook any more: Handler.OnHappened is what leaves the receipt then. Done returns nil; the handler returns that. hook runs after
// the handler has returned, with a context of its own: the handler's may be over. If the transaction fails hook is
// called again; after five failures of its own the intent is flagged hook-failed, and never retried by itself. Calling
// Done twice is an error.
func (j *Job[T]) Done(hook func(ctx context.Context, tx pgx.Tx) error) error {
	if hook == nil {
		return nil
	}
	j.attempt.mu.Lock()
	defer j.attempt.mu.Unlock()
	if j.attempt.hook != nil {
		return Unknown(errors.New("writ: Job.Done was called twice"))
	}
	j.attempt.hook = j.attempt.guarded(hook)
	return nil
}

// attempt is a claimed intent in this process, without its type.
type attempt struct {
	store.Claimed
	kind     *registration
	valve    *valve // that it came through
	pass     pass   // and how
	worker   uuid.UUID
	logger   *slog.Logger
	deadline time.Time // local and monotonic, from before the claim was sent
	started  time.Time
	clock    *movable // the handler's context, if its deadline can be moved
	plain    deadline // the same, if it cannot

	desk     *store.Store  // where the handler speaks of its attempt; nil: in a rehearsal without a database
	patience time.Duration // for one answer of it
	draining *atomic.Bool  // the worker is shutting down; nil: it never is

	passage *passage // nil: its kind has no layers

	effect   atomic.Bool
	flagged  atomic.Bool // as overdue
	returned atomic.Bool // the handler did, or never began
	noted    atomic.Bool // its kind's breaker knows how it ended

	mu     sync.Mutex
	hook   func(context.Context, pgx.Tx) error
	result []byte // JSON; nil: none

	// Of the handler's goroutine alone, until it has returned.
	points     int32  // safe points of this attempt
	progress   []byte // as last saved
	handedOver string // why its last safe point told it to end; empty: it did not
	failure    error  // what the handler returned, if it was an error
}

// due is until when the handler may go on.
func (a *attempt) due() time.Time {
	if a.clock == nil {
		return a.deadline
	}
	at, _ := a.clock.Deadline()
	return at
}

// log names the job on every line; made when it is needed, for most attempts say nothing.
func (a *attempt) log() *slog.Logger {
	return a.logger.With("id", a.ID, "tid", a.TID, "kind", a.Kind, "attempt", a.Attempt)
}

func (a *attempt) key() string { return key(&a.Claimed) }

// cause is what the intents and events that the job creates inherit from it.
func (a *attempt) cause(ctx context.Context) context.Context {
	c := intent.Cause{TID: a.TID, Parent: a.ID, Application: a.kind.application()}
	if a.Trace != nil {
		c.Trace = *a.Trace
	}
	return intent.WithCause(ctx, c)
}

// key is the idempotency key of an attempt.
func key(c *store.Claimed) string {
	if c.Generation == 0 {
		return c.ID.String()
	}
	return fmt.Sprintf("%s-%d", c.ID, c.Generation)
}

// entered reports whether the outside world may have been touched.
func (a *attempt) entered() bool { return a.kind.effect == EffectFromStart || a.effect.Load() }

// guarded turns a panic of the application's hook into an error, so that the outcome is not lost with it.
func (a *attempt) guarded(hook func(context.Context, pgx.Tx) error) func(context.Context, pgx.Tx) error {
	return func(ctx context.Context, tx pgx.Tx) error {
		ctx = a.cause(ctx)
		err := errors.New("it ended its goroutine")
		ended := make(chan struct{})
		go func() { // of its own, so that ending it (runtime.Goexit) ends nothing else
			defer close(ended)
			defer func() {
				if p := recover(); p != nil {
					err = &PanicError{Value: p}
				}
			}()
			err = hook(ctx, tx)
		}()
		<-ended
		return err
	}
}

// typical is a kind's typical run time: an exponentially weighted mean, safe for concurrent use.
type typical struct {
	mu      sync.Mutex
	mean    time.Duration
	samples int
	noted   time.Duration // as last written to the database
}

// add takes a sample. It reports true once: when there are enough to tell the relay of a kind that it knows nothing of.
func (t *typical) add(d time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.samples++
	if t.samples == 1 {
		t.mean = d
		return false
	}
	t.mean += (d - t.mean) / 16
	return t.samples == tellTale
}

// typically returns the mean; 0: nothing is known.
func (t *typical) typically() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mean
}

// news returns the mean if it has moved by a fifth since it was last noted.
func (t *typical) news() (time.Duration, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.samples == 0 || (t.noted > 0 && t.mean > t.noted*4/5 && t.mean < t.noted*6/5) {
		return 0, false
	}
	t.noted = max(t.mean, time.Microsecond)
	return t.noted, true
}
