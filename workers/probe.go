package workers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
)

// Probe asks the outside world whether an attempt was carried out. It only looks: it must not touch anything, may be called
// any number of times, in any process, also while the attempt still runs, and concurrently with itself. ctx ends after
// Probing.Timeout, and at shutdown; an answer that comes later is not used. An error, a panic or no answer in time is a
// CannotTell.
//
// WasNotDone must mean that the attempt is surely not there, not that it was not found: the intent is run again on it.
// Ready-made probes are in package workers/probe.
type Probe[T any] func(ctx context.Context, a *Attempt[T]) (Answer, error)

// Attempt is an attempt that nobody knows the outcome of, as its probe gets it.
type Attempt[T any] struct {
	Args T // as they were created
	Facts
}

// Facts are what is known of such an attempt. Times are the database's.
type Facts struct {
	ID          intent.ID
	TID         intent.ID // shared by all that one root caused
	Kind        string
	Epoch       int    // its fencing token
	Attempt     int    // counts from 1, since the last act of a person
	Key         string // the idempotency key that it used towards the outside
	ArgsVersion int
	Subjects    []string
	Meta        json.RawMessage
	RequestedAt time.Time
	StartedAt   time.Time
	DeadlineAt  time.Time
	SettledAt   time.Time // from when on «not there» means that it was not done: DeadlineAt + Settle
	FlaggedAt   time.Time
	Reason      string // why it was flagged: worker-died, unknown, timeout, …
	Error       string // the handler's last error, if it had one to say
	Asked       int    // how often this attempt's probe could not tell before
}

// Answer is what a probe found out.
type Answer struct {
	Finding  Finding
	Why      string // in a sentence, for people; kept with the verdict
	Evidence any    // kept as JSON beside it; nil: none
}

// Finding is an answer in a word.
type Finding int

// The findings of a probe. WasNotDone counts only if the probe began after deadline + settle.
const (
	CannotTell Finding = iota
	WasDone
	WasNotDone
)

// String is the word that the log has for it.
func (f Finding) String() string {
	switch f {
	case WasDone:
		return store.FoundDone
	case WasNotDone:
		return store.FoundNotDone
	}
	return store.FoundNothing
}

// Probing says how a kind's probe is asked. The zero value is the default.
type Probing struct {
	// Timeout of one asking. Default 30 s; at least 1 ms.
	Timeout time.Duration

	// Most is how often the probe may be unable to tell, after deadline + settle, before only a person is left to decide.
	// Default 5.
	Most int

	// Backoff between these askings; each pause is drawn between a half and the whole of its step. Default: 10 s doubling to
	// 10 min.
	Backoff intent.Backoff

	// Slots is how many probes of this kind run at once in this process, beside the handlers and not in their slots: neither
	// keeps the other waiting. A probe that ignores that its context has ended keeps its place until it returns. Default 4.
	Slots int
}

func (p Probing) withDefaults() (Probing, error) {
	p.Timeout = cmp.Or(p.Timeout, 30*time.Second)
	p.Most = cmp.Or(p.Most, 5)
	p.Backoff = intent.Backoff{
		Min: cmp.Or(p.Backoff.Min, 10*time.Second), Max: cmp.Or(p.Backoff.Max, max(10*time.Minute, p.Backoff.Min)), Factor: cmp.Or(p.Backoff.Factor, 2),
	}
	p.Slots = cmp.Or(p.Slots, 4)
	var errs []error
	if p.Timeout < time.Millisecond {
		errs = append(errs, fmt.Errorf("Probing.Timeout is %v; it must be at least 1ms", p.Timeout))
	}
	if p.Most < 1 || p.Most > 1000 {
		errs = append(errs, fmt.Errorf("Probing.Most is %d; it must be 1 to 1,000", p.Most))
	}
	if p.Slots < 1 || p.Slots > 10_000 {
		errs = append(errs, fmt.Errorf("Probing.Slots is %d; it must be 1 to 10,000", p.Slots))
	}
	if b := p.Backoff; b.Min <= 0 || b.Max < b.Min || b.Factor < 1 || b.Factor > 1000 {
		errs = append(errs, fmt.Errorf("Probing.Backoff is %v to %v by %v; it must be 0 < Min <= Max, 1 <= Factor <= 1000", b.Min, b.Max, b.Factor))
	}
	return p, errors.Join(errs...)
}

// facts makes what the probe gets of what was read.
func facts(a *store.Asking, settle time.Duration) Attempt[json.RawMessage] {
	return Attempt[json.RawMessage]{
		Args: a.Args,
		Facts: Facts{
			ID: a.ID, TID: a.TID, Kind: a.Kind, Epoch: int(a.Epoch), Attempt: int(a.Attempt), Key: key(&a.Claimed),
			ArgsVersion: int(a.ArgsVersion), Subjects: a.Subjects, Meta: a.Meta, RequestedAt: a.RequestedAt, StartedAt: a.StartedAt,
			DeadlineAt: a.DeadlineAt, SettledAt: a.DeadlineAt.Add(settle), FlaggedAt: a.FlaggedAt, Reason: a.Reason, Error: a.Error,
			Asked: a.Probes,
		},
	}
}
