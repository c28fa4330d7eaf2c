package intenttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/rehearsal"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/workers"
)

// Kit carries out intents on a test database: it is relay, worker and reconciler in one, for one test, one step at a time.
// It sees what is committed. Make it with [New]; it is not safe for concurrent use.
type Kit struct {
	t        TB
	pool     *pgxpool.Pool
	store    *store.Store
	handlers rehearsal.Handlers
	kinds    []string
	classes  []string // of the kinds
	worker   store.Beat
	forced   map[uuid.UUID][]How
}

// New returns a kit for the kinds of mux, which it declares, on a database of the test's own that has Writ's schema. It
// refuses one that is a copy that nobody adopted, or paused. No other worker should run on it meanwhile.
func New(t TB, pool *pgxpool.Pool, mux *workers.Mux) *Kit {
	t.Helper()
	k := &Kit{t: t, pool: pool, store: store.New(pool), handlers: open(t, mux), forced: map[uuid.UUID][]How{}}
	ctx := t.Context()
	settings, err := k.store.Settings(ctx)
	k.must(err)
	if why := settings.Reason(); why != "" {
		t.Fatalf("intenttest: nothing can be run on this database: %s (a test database that is cloned from a template: SELECT writ.adopt('test', 'a clone of the template'))", why)
	}
	owner, err := k.store.Owner(ctx)
	k.must(err)
	if owner != "" && owner != k.handlers.Application() {
		t.Fatalf("intenttest: this database belongs to application %s, and the mux to %s", owner, k.handlers.Application())
	}
	declarations := k.handlers.Declarations()
	k.must(k.store.Declare(ctx, declarations))
	for _, d := range declarations {
		k.kinds, k.classes = append(k.kinds, d.Name), append(k.classes, d.Class)
	}
	k.worker = k.hire()
	t.Cleanup(func() { k.dismiss(k.worker) })
	return k
}

// Step is something that was carried out.
type Step struct {
	ID      intent.ID
	Kind    string
	Op      string // run, probe, or recover
	Attempt int    // of run
	Outcome string // of run: succeeded, retried, failed, flagged, crashed, late-report; of probe: what became of the answer; of recover: recovered, owed
	Why     string // as the log has it
	Err     error  // what the handler returned, or the probe's or recovery's fault
}

// String is a line for people.
func (s Step) String() string {
	text := fmt.Sprintf("%s %s %s: %s", s.Op, s.Kind, s.ID, s.Outcome)
	if s.Why != "" {
		text += ", " + s.Why
	}
	if s.Err != nil {
		text += ": " + s.Err.Error()
	}
	return text
}

// Drain carries out all that is due now, and what becomes due by it, in the order of time, and returns what it did. What is
// for later (scheduled, snoozed, backing off, a probe after deadline + settle) stays: see [Kit.Elapse] and [Kit.DrainAll].
func (k *Kit) Drain() []Step {
	k.t.Helper()
	return k.drain(map[uuid.UUID]int{})
}

// DrainAll is Drain, and lets time pass until nothing of the mux's kinds is planned any more: each intent is then sent, in
// error, cancelled, ambiguous with nobody left to ask but a person, or waiting for another one.
func (k *Kit) DrainAll() []Step {
	k.t.Helper()
	times := map[uuid.UUID]int{}
	steps := k.drain(times)
	for {
		next, planned, err := k.store.KitNext(k.t.Context(), k.kinds)
		k.must(err)
		if !planned {
			return steps
		}
		k.Elapse(next + time.Millisecond)
		steps = append(steps, k.drain(times)...)
	}
}

// Elapse lets d pass for all open intents of the database, whoever's they are: their times are moved back. What is due by
// that is not carried out yet.
func (k *Kit) Elapse(d time.Duration) {
	k.t.Helper()
	k.must(k.store.KitElapse(k.t.Context(), d))
}

// endless is how often one intent may be run, asked about and recovered in one drain.
const endless = 200

func (k *Kit) drain(times map[uuid.UUID]int) (steps []Step) {
	k.t.Helper()
	k.remind()
	for {
		hints := k.takeDue()
		if len(hints) == 0 {
			return steps
		}
		for _, h := range hints {
			if times[h.ID]++; times[h.ID] > endless {
				k.t.Fatalf("intenttest: intent %s of kind %s comes again and again; does its handler snooze for ever?", h.ID, h.Kind)
			}
			if step, did := k.carryOut(h); did {
				step.ID, step.Kind, step.Op = h.ID, h.Kind, h.Op
				steps = append(steps, step)
			}
		}
	}
}

// remind writes hints for probes and recoveries that none is planned for, as the reconciler does.
func (k *Kit) remind() {
	k.t.Helper()
	for _, duty := range []func(context.Context) ([]store.Requeued, error){k.store.RequeueOwed, k.store.HintProbesDue, k.store.HintProbesMissing} {
		_, err := duty(k.t.Context())
		k.must(err)
	}
}

// takeDue takes the due hints of the mux's kinds out of the outbox, as the relay does. Others stay, and those of paused
// kinds.
func (k *Kit) takeDue() (hints []store.Hint) {
	k.t.Helper()
	ctx := k.t.Context()
	k.must(k.with(ctx, func(conn *pgx.Conn) error {
		paused, err := store.PausedKinds(ctx, conn)
		if err != nil {
			return err
		}
		hints, err = store.KitTake(ctx, conn, slices.DeleteFunc(slices.Clone(k.kinds), func(kind string) bool { return slices.Contains(paused, kind) }))
		return err
	}))
	return hints
}

// carryOut does what a hint says; false: it was moot.
func (k *Kit) carryOut(h store.Hint) (Step, bool) {
	k.t.Helper()
	switch h.Op {
	case "run":
		return k.run(h)
	case "probe":
		return k.probe(h)
	}
	return k.recover(h)
}

func (k *Kit) run(h store.Hint) (Step, bool) {
	k.t.Helper()
	ctx := k.t.Context()
	how := k.next(h.ID)
	worker := k.worker
	if how.crash {
		worker = k.hire()
	}
	group := store.Group{Epoch: h.Epoch, Timeout: k.handlers.Timeout(h.Kind), Kinds: []string{h.Kind}, IDs: []uuid.UUID{h.ID}}
	claimed, err := k.store.Claim(ctx, worker.ID, []store.Group{group})
	k.must(err)
	if len(claimed) == 0 {
		if how.crash {
			k.dismiss(worker)
		}
		return Step{}, false
	}
	k.forced[h.ID] = k.forced[h.ID][min(1, len(k.forced[h.ID])):]
	c := claimed[0]
	step := Step{Attempt: int(c.Attempt), Outcome: "crashed"}
	var o store.Outcome
	if !how.unstarted {
		o, step.Err = k.handlers.Attend(ctx, k.store, &rehearsal.Stage{}, worker.ID, c, how.force)
	}
	if how.crash {
		k.must(k.with(ctx, func(conn *pgx.Conn) error {
			settled, err := k.store.KitBury(ctx, conn, worker, store.Hint{ID: c.ID, Epoch: c.Epoch})
			step.Why = "its worker died: " + settled.Did
			return err
		}))
		return step, true
	}
	step.Why = o.Why
	step.Outcome, err = k.handlers.Write(ctx, k.store, worker.ID, c, o)
	k.must(err)
	return step, true
}

func (k *Kit) probe(h store.Hint) (Step, bool) {
	k.t.Helper()
	ctx := k.t.Context()
	asking, err := k.store.TakeProbe(ctx, h, time.Hour)
	k.must(err)
	if asking == nil {
		return Step{}, false
	}
	answer := k.handlers.Ask(ctx, asking)
	result, err := k.store.AnswerProbe(ctx, k.worker.ID, asking, answer)
	k.must(err)
	return Step{Outcome: result, Why: answer.Why}, true
}

func (k *Kit) recover(h store.Hint) (Step, bool) {
	k.t.Helper()
	states, hook := k.handlers.Recover(k.worker.ID, h.Kind)
	if len(states) == 0 {
		return Step{}, false
	}
	owed, err := k.store.Recover(k.t.Context(), k.worker.ID, h, states, hook)
	step := Step{Outcome: "recovered", Err: err}
	if hookErr, ok := errors.AsType[*store.HookError](err); ok {
		step.Outcome, step.Err = "owed", hookErr.Err
	} else {
		k.must(err)
	}
	return step, owed
}

// hire signs a worker on that lives until it departs.
func (k *Kit) hire() store.Beat {
	k.t.Helper()
	b := store.Beat{ID: intent.NewID(), Host: "intenttest", Version: "intenttest", Kinds: k.kinds, Classes: k.classes, Slots: 1, TTL: 365 * 24 * time.Hour}
	k.must(k.with(k.t.Context(), func(conn *pgx.Conn) error {
		_, err := store.SendBeat(k.t.Context(), conn, b)
		return err
	}))
	return b
}

// dismiss has a worker depart that holds nothing, also when the test is over.
func (k *Kit) dismiss(b store.Beat) {
	k.t.Helper()
	ctx := context.WithoutCancel(k.t.Context())
	k.must(k.with(ctx, func(conn *pgx.Conn) error { return store.Depart(ctx, conn, b.ID) }))
}

func (k *Kit) with(ctx context.Context, do func(*pgx.Conn) error) error {
	return k.pool.AcquireFunc(ctx, func(c *pgxpool.Conn) error { return do(c.Conn()) })
}

func (k *Kit) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatalf("intenttest: %v", err)
	}
}
