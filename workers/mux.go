package workers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
)

// Mux holds the handlers of a process, by kind, and its subscriptions. It belongs to one application, whose name all of
// its kinds begin with. Make it with [NewMux] and fill it with [Handle] and [Subscribe] before it is
// run; then it is read only.
type Mux struct {
	kinds         map[string]*registration
	subscriptions []*subscription
	faults        []error
}

// NewMux returns an empty mux.
func NewMux() *Mux { return &Mux{kinds: map[string]*registration{}} }

// EffectMode says when a handler is in its effect, that is, from when on an error leaves it open what was done.
type EffectMode int

const (
	// EffectFromStart: from its first line. The safe default.
	EffectFromStart EffectMode = iota
	// EffectMarked: from its call of [Job.Effect], which the handler promises to make just before it touches the outside
	// world. An error returned before that is surely not done.
	EffectMarked
)

// Handler is the code of a kind. What is given here and in the kind decides its class: Idempotent on the kind, else
// probed if there is a Probe, else manual.
type Handler[T any] struct {
	// Do carries the intent out. Nil means done; see NotDone, Stop, Snooze and Unknown for the rest. ctx is cancelled at
	// the deadline, and at shutdown after the drain. It may run concurrently with itself. Required.
	Do func(ctx context.Context, job *Job[T]) error

	// Effect says from when on an error of Do leaves it open what was done.
	Effect EffectMode

	// Probe asks the outside world whether an attempt was carried out that nobody knows the outcome of. Giving one makes the
	// kind's class probed.
	Probe Probe[T]

	// Probing says how the probe is asked.
	Probing Probing

	// OnError is the recovery function: it runs in the transaction in which the intent ends in error, for the
	// application's own rows. cause is the last error. It must not touch the outside world.
	OnError func(ctx context.Context, tx pgx.Tx, job *Job[T], cause error) error
}

// Handle registers the code of a kind. A fault of the declaration or of Probing, a missing Do or a kind registered twice is reported
// by [New], all at once.
func Handle[T any](m *Mux, kind intent.Kind[T], h Handler[T]) {
	settings, err := kind.Settings()
	if err != nil {
		m.faults = append(m.faults, err)
	}
	if h.Do == nil {
		m.faults = append(m.faults, fmt.Errorf("workers: kind %s: Handler.Do is missing", kind.Name))
	}
	if m.kinds[kind.Name] != nil {
		m.faults = append(m.faults, fmt.Errorf("workers: kind %s is registered twice", kind.Name))
	}
	probing, err := h.Probing.withDefaults()
	if err != nil {
		m.faults = append(m.faults, fmt.Errorf("workers: kind %s: %w", kind.Name, err))
	}
	r := &registration{Settings: settings, class: Manual, effect: h.Effect, probing: probing, schema: argsSchema(reflect.TypeFor[T]())}
	switch {
	case kind.Idempotent:
		r.class = Idempotent
	case h.Probe != nil:
		r.class = Probed
	}
	r.do = func(ctx context.Context, a *attempt) error {
		job, err := newJob[T](a)
		if err != nil {
			return Stop(err)
		}
		return h.Do(ctx, job)
	}
	if h.Probe != nil {
		r.probe = func(ctx context.Context, a Attempt[json.RawMessage]) (Answer, error) {
			typed := Attempt[T]{Facts: a.Facts}
			if err := json.Unmarshal(a.Args, &typed.Args); err != nil {
				return Answer{}, fmt.Errorf("args do not fit %T: %w", typed.Args, err)
			}
			return h.Probe(ctx, &typed)
		}
	}
	if h.OnError != nil {
		r.onError = func(ctx context.Context, tx pgx.Tx, a *attempt, cause error) error {
			job, err := newJob[T](a)
			if err != nil {
				// The arguments that could not be read are why it failed; the recovery function still learns which.
				job = &Job[T]{attempt: a}
			}
			return h.OnError(ctx, tx, job, cause)
		}
	}
	m.kinds[kind.Name] = r
}

// registration is a kind without its type.
type registration struct {
	intent.Settings
	class   string
	effect  EffectMode
	schema  json.RawMessage // of the arguments; nil: not known
	do      func(ctx context.Context, a *attempt) error
	onError func(ctx context.Context, tx pgx.Tx, a *attempt, cause error) error
	run     typical
	probing Probing
	probe   func(ctx context.Context, a Attempt[json.RawMessage]) (Answer, error) // nil: none, or never asked
}

func (r *registration) application() string {
	owner, _, _ := strings.Cut(r.Name, ".")
	return owner
}

func newJob[T any](a *attempt) (*Job[T], error) {
	job := &Job[T]{attempt: a}
	if err := json.Unmarshal(a.Args, &job.Args); err != nil {
		return nil, fmt.Errorf("args do not fit %T: %w", job.Args, err)
	}
	return job, nil
}

func (m *Mux) names() []string {
	names := make([]string, 0, len(m.kinds))
	for name := range m.kinds {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (m *Mux) check() error {
	if len(m.kinds)+len(m.subscriptions) == 0 {
		return errors.Join(append(m.faults, errors.New("workers: the mux has no handlers; register kinds with workers.Handle"))...)
	}
	return errors.Join(m.faults...)
}
