package workers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
)

// Mux holds the handlers of a process, by kind, and its subscriptions. It belongs to one application, whose name all of
// its kinds begin with. Make it with [NewMux] and fill it with [Handle] and [Subscribe] before it is
// run; then it is read only.
type Mux struct {
	kinds         map[string]*registration
	subscriptions []*subscription
	layers        []Middleware
	wrapping      sync.Once
	unwrapped     error // why that could not be done
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

	// Slots is how many attempts of the kind run at once in this process, so that a slow or greedy kind leaves some of
	// Config.Slots to the others. Hints beyond it stay with the broker, for other processes. Default 0: Config.Slots alone
	// bounds it. At most 100,000.
	Slots int

	// MaxExtend is how far [Job.Extend] may move the deadline of an attempt beyond the kind's Timeout, in all. Default: not at
	// all; negative is refused.
	MaxExtend time.Duration

	// Use are layers around Do, within those of [Mux.Use]; the first one is the outermost.
	Use []Middleware

	// Breaker stops the kind, in all processes, where too many attempts fail. Default: none. It is off unless asked for, because what
	// fails may be the intents of one customer, not the outside system, and it stops all of the kind.
	Breaker Breaker

	// Probe asks the outside world whether an attempt was carried out that nobody knows the outcome of. Giving one makes the
	// kind's class probed.
	Probe Probe[T]

	// Probing says how the probe is asked.
	Probing Probing

	// Upgrade brings arguments of an older ArgsVersion, of intents that were created before the kind's was raised, up to the
	// present one: for Do, Probe, OnError and OnHappened alike, each time anew. It must be a pure function. An error, or a panic, stops the
	// intent. Default: they are decoded as they are. Job.ArgsVersion tells what they were.
	Upgrade func(version int, args json.RawMessage) (json.RawMessage, error)

	// OnError is the recovery function: it runs in the transaction in which the intent ends in error, for the
	// application's own rows. cause is the last error. It must not touch the outside world.
	OnError func(ctx context.Context, tx pgx.Tx, job *Job[T], cause error) error

	// OnHappened is the same where a verdict, of the probe or of a person, says that it was done, though no worker's own word
	// was recorded, and so no hook of Job.Done was run: it leaves the receipt that the hook would have left. It runs in a
	// transaction soon after the verdict's, by any worker of the kind, in effect once, and again after each failure until
	// it succeeds. Not if an idempotent kind is simply run again. It must not touch the outside world.
	OnHappened func(ctx context.Context, tx pgx.Tx, job *Job[T]) error
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
	m.noneNil("kind "+kind.Name+": Handler.Use", h.Use)
	if h.MaxExtend < 0 {
		m.faults = append(m.faults, fmt.Errorf("workers: kind %s: Handler.MaxExtend is %v; it must not be negative", kind.Name, h.MaxExtend))
	}
	if h.Slots < 0 || h.Slots > 100_000 {
		m.faults = append(m.faults, fmt.Errorf("workers: kind %s: Handler.Slots is %d; it must be 0 (no bound of its own) to 100,000", kind.Name, h.Slots))
	}
	circuit, err := h.Breaker.withDefaults()
	if err != nil {
		m.faults = append(m.faults, fmt.Errorf("workers: kind %s: %w", kind.Name, err))
	}
	r := &registration{
		Settings: settings, slots: h.Slots, breaker: circuit, class: Manual, effect: h.Effect, maxExtend: h.MaxExtend, layers: h.Use, probing: probing,
		schema: declaredSchema(reflect.TypeFor[T](), settings.Schema), upgrade: h.Upgrade,
	}
	switch {
	case kind.Idempotent:
		r.class = Idempotent
	case h.Probe != nil:
		r.class = Probed
	}
	r.do = func(ctx context.Context, a *attempt) error {
		job, err := newJob[T](a)
		if err != nil {
			return err
		}
		return h.Do(ctx, job)
	}
	if h.Probe != nil {
		r.probe = func(ctx context.Context, a Attempt[json.RawMessage]) (Answer, error) {
			typed := Attempt[T]{Facts: a.Facts}
			if err := readArgs(r, a.ArgsVersion, a.Args, &typed.Args); err != nil {
				return Answer{}, err
			}
			return h.Probe(ctx, &typed)
		}
	}
	if h.OnError != nil {
		r.onError = func(ctx context.Context, tx pgx.Tx, a *attempt, cause error) error {
			job, err := newJob[T](a)
			if left, ok := errors.AsType[*snoozeError](err); ok && left.newer {
				return err // owed still: a worker of a later release knows what to undo
			} else if err != nil {
				// The arguments that could not be read are why it failed; the recovery function still learns which.
				job = &Job[T]{attempt: a}
			}
			return h.OnError(ctx, tx, job, cause)
		}
	}
	if h.OnHappened != nil {
		r.onHappened = func(ctx context.Context, tx pgx.Tx, a *attempt) error {
			job, err := newJob[T](a)
			if err != nil {
				return err // owed still: it was done with them, so another release can read them
			}
			return h.OnHappened(ctx, tx, job)
		}
	}
	m.kinds[kind.Name] = r
}

// registration is a kind without its type.
type registration struct {
	intent.Settings
	class      string
	effect     EffectMode
	layers     []Middleware
	slots      int // places in one process; 0: any number
	breaker    Breaker
	schema     json.RawMessage // of the arguments; nil: not known
	do         func(ctx context.Context, a *attempt) error
	onError    func(ctx context.Context, tx pgx.Tx, a *attempt, cause error) error
	onHappened func(ctx context.Context, tx pgx.Tx, a *attempt) error
	upgrade    func(version int, args json.RawMessage) (json.RawMessage, error) // nil: none
	run        typical
	newer      leaving // arguments of a later version
	probing    Probing

	maxExtend time.Duration                                                         // zero: deadlines are fixed
	probe     func(ctx context.Context, a Attempt[json.RawMessage]) (Answer, error) // nil: none, or never asked
}

func (r *registration) application() string {
	owner, _, _ := strings.Cut(r.Name, ".")
	return owner
}

func newJob[T any](a *attempt) (*Job[T], error) {
	job := &Job[T]{attempt: a}
	if err := readArgs(a.kind, int(a.ArgsVersion), a.Args, &job.Args); err != nil {
		return nil, err
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

// classes are those of the kinds, in the order of their names.
func (m *Mux) classes() []string {
	classes := make([]string, 0, len(m.kinds))
	for _, name := range m.names() {
		classes = append(classes, m.kinds[name].class)
	}
	return classes
}

func (m *Mux) check() error {
	if len(m.kinds)+len(m.subscriptions) == 0 {
		return errors.Join(append(m.faults, errors.New("workers: the mux has no handlers; register kinds with workers.Handle"))...)
	}
	return errors.Join(m.faults...)
}

// declarations are what a worker writes down of its kinds.
func (m *Mux) declarations() []store.Declaration {
	var out []store.Declaration
	for _, name := range m.names() {
		k := m.kinds[name]
		out = append(out, store.Declaration{
			Name: name, Queue: k.Queue, Class: k.class, Timeout: k.Timeout, Settle: k.Settle, MaxAttempts: k.MaxAttempts,
			BackoffMin: k.Backoff.Min, BackoffMax: k.Backoff.Max, BackoffFactor: k.Backoff.Factor,
			KeepSent: keep(k.Retention.Sent), KeepErr: keep(k.Retention.Error), KeepCanc: keep(k.Retention.Cancelled),
			MaxArgs: k.MaxArgs, ArgsVersion: k.ArgsVersion, Recovers: k.onError != nil, Completes: k.onHappened != nil, Schema: k.schema, MaxProbes: k.probing.Most, Breaker: k.breaker.declaration(),
			Limits: declaredLimits(k.Limits),
		})
	}
	return out
}

func declaredLimits(limits []intent.Limit) (out []store.Limit) {
	for _, l := range limits {
		out = append(out, store.Limit{Key: l.Key, Starts: l.Starts, Period: l.Per, Burst: l.Burst, Running: l.Running})
	}
	return out
}

func keep(d time.Duration) *time.Duration {
	if d < 0 {
		return nil
	}
	return &d
}
