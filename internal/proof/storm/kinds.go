package storm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/proof"
	"github.com/writhq/writ/internal/proof/ledger"
	"github.com/writhq/writ/workers"
)

// All times are short, so that every recovery fits into a minute.
const (
	heartbeat = 500 * time.Millisecond
	ttl       = 3 * time.Second
	timeout   = 4 * time.Second
	settle    = 2 * time.Second
	drain     = 5 * time.Second
)

// task is the arguments of the storm's kinds.
type task struct {
	N      int           `json:"n"`
	Before time.Duration `json:"before,omitempty"` // of work before the effect
	After  time.Duration `json:"after,omitempty"`  // and after it
	Quirk  quirk         `json:"quirk,omitempty"`
}

// quirk is what a handler does besides calling the ledger.
type quirk string

const (
	none      quirk = ""
	gaveUp    quirk = "gave-up"    // says not done without having called
	failed    quirk = "failed"     // an error before the effect, of no certain kind
	panics    quirk = "panics"     // after the effect
	deaf      quirk = "deaf"       // ignores that its context is cancelled, and says done after all
	badHook   quirk = "bad-hook"   // the hook of job.Done never succeeds
	shakyHook quirk = "shaky-hook" // the hook of job.Done fails now and then
)

// kind is a kind with what the storm makes of it.
type kind struct {
	intent.Kind[task]
	effect  workers.EffectMode
	hook    bool // job.Done, or OnHappened, writes a receipt
	onError bool
	steps   int           // done one after the other, with a safe point after each; zero: it does one thing
	calm    bool          // without quirks
	probed  bool          // the probe asks the ledger, and tells the truth
	weight  int           // how often it is created
	longest time.Duration // of Before and After
}

// kinds of all classes.
var kinds = []kind{
	{Kind: declare("storm.mail.send", "storm-mail"), effect: workers.EffectMarked, hook: true, onError: true, weight: 25, longest: 20 * time.Millisecond},
	{Kind: declare("storm.charge.post", "storm-charge"), hook: true, weight: 20, longest: 60 * time.Millisecond},
	{Kind: declare("storm.note.ping", "storm-note"), effect: workers.EffectMarked, weight: 30, longest: 2 * time.Millisecond},
	{Kind: declare("storm.server.boot", "storm-server"), weight: 3, longest: 2500 * time.Millisecond},
	{Kind: declare("storm.payout.send", "storm-charge"), hook: true, onError: true, probed: true, weight: 15, longest: 60 * time.Millisecond},
	{Kind: repeatable(declare("storm.index.update", "storm-mail")), hook: true, onError: true, weight: 15, longest: 20 * time.Millisecond},
	{Kind: repeatable(declare("storm.sync.pull", "storm-server")), weight: 4, longest: 2 * time.Second},
}

func declare(name, queue string) intent.Kind[task] {
	return intent.Kind[task]{
		Name: name, Queue: queue, Timeout: timeout, Settle: settle, MaxAttempts: 4,
		Backoff: intent.Backoff{Min: 100 * time.Millisecond, Max: time.Second},
	}
}

func repeatable(k intent.Kind[task]) intent.Kind[task] {
	k.Idempotent = true
	return k
}

// draw makes a task for a kind.
func (k kind) draw(dice *rand.Rand, n int) task {
	t := task{N: n, Before: upTo(dice, k.longest), After: upTo(dice, k.longest)}
	if k.longest < time.Second && dice.IntN(20) > 0 { // most are short
		t.Before, t.After = t.Before/10, t.After/10
	}
	if k.calm {
		return t
	}
	hooked := k.hook && k.Name != drilled.Name // what only a person can repair has no place in a drill without one
	switch at := dice.IntN(1000); {
	case at < 10:
		t.Quirk = gaveUp
	case at < 20:
		t.Quirk = failed
	case at < 25:
		t.Quirk = panics
	case at < 27:
		t.Quirk = deaf
	case at < 30 && hooked:
		t.Quirk = badHook
	case at < 60 && hooked:
		t.Quirk = shakyHook
	}
	return t
}

// hand carries out the storm's kinds.
type hand struct {
	ledger ledger.Client
	runs   *proof.Journal[proof.Run]
}

// register gives the mux all kinds that take part.
func (h *hand) register(mux *workers.Mux, taking []kind) {
	for _, k := range taking {
		handler := workers.Handler[task]{
			Effect: k.effect,
			Do: proof.Witnessed(h.runs, func(ctx context.Context, job *workers.Job[task]) (proof.Said, error) {
				if k.steps > 0 {
					return h.walk(ctx, k, job)
				}
				return h.do(ctx, k, job)
			}),
		}
		if k.onError {
			handler.OnError = func(ctx context.Context, tx pgx.Tx, job *workers.Job[task], _ error) error {
				_, err := tx.Exec(ctx, "INSERT INTO proof.recoveries (intent_id, epoch) VALUES ($1, $2)", job.ID(), job.Epoch())
				return err
			}
		}
		if k.hook {
			handler.OnHappened = leaveReceipt
		}
		if k.probed {
			handler.Probe = h.probe
			handler.Probing = workers.Probing{Timeout: 2 * time.Second, Backoff: intent.Backoff{Min: 500 * time.Millisecond, Max: 2 * time.Second}}
		}
		workers.Handle(mux, k.Kind, handler)
	}
}

// do is truthful: it says not done only of what it never called, or of what the ledger says so.
func (h *hand) do(ctx context.Context, k kind, job *workers.Job[task]) (proof.Said, error) {
	before := proof.SaidUnknown
	if k.effect == workers.EffectMarked {
		before = proof.SaidNotDone
	}
	if err := pause(ctx, job.Args.Before); err != nil {
		return before, fmt.Errorf("prepare: %w", err)
	}
	switch job.Args.Quirk {
	case gaveUp:
		if job.Epoch() == 1 {
			return proof.SaidNotDone, workers.NotDone(errors.New("not today"))
		}
	case failed:
		if job.Epoch() == 1 { // not for ever
			return before, errors.New("something failed before the effect")
		}
	}
	err := h.ledger.Do(job.Effect(ctx), proof.CallOf(ctx, job, k.Name, settle))
	switch {
	case errors.Is(err, ledger.ErrRefused):
		return proof.SaidNotDone, workers.NotDone(err)
	case errors.Is(err, ledger.ErrRejected):
		return proof.SaidStop, workers.Stop(err)
	case errors.Is(err, ledger.ErrBusy):
		return proof.SaidSnooze, workers.Snooze(rand.N(500 * time.Millisecond))
	case err != nil:
		return proof.SaidUnknown, err
	}
	switch job.Args.Quirk {
	case panics:
		panic("after the effect")
	case deaf:
		deadline, _ := ctx.Deadline()
		_ = pause(context.WithoutCancel(ctx), time.Until(deadline)+2*time.Second)
	default:
		if err := pause(ctx, job.Args.After); err != nil {
			return proof.SaidUnknown, fmt.Errorf("tidy up: %w", err)
		}
	}
	if !k.hook {
		return proof.SaidDone, nil
	}
	return proof.SaidDone, job.Done(func(ctx context.Context, tx pgx.Tx) error {
		if q := job.Args.Quirk; q == badHook || q == shakyHook && rand.IntN(3) == 0 {
			return errors.New("the hook failed")
		}
		return leaveReceipt(ctx, tx, job)
	})
}

// leaveReceipt is the application's share in what was done, by its worker's own word or by a verdict.
func leaveReceipt(ctx context.Context, tx pgx.Tx, job *workers.Job[task]) error {
	_, err := tx.Exec(ctx, "INSERT INTO proof.receipts (intent_id, epoch) VALUES ($1, $2)", job.ID(), job.Epoch())
	return err
}

// probe asks the ledger, and is truthful: what it has was done, and what it has not was not, as of now.
func (h *hand) probe(ctx context.Context, a *workers.Attempt[task]) (workers.Answer, error) {
	visits, err := h.ledger.Visits(ctx, a.ID)
	if err != nil {
		return workers.Answer{}, err
	}
	for _, v := range visits {
		if v.Recorded != nil {
			return workers.Answer{Finding: workers.WasDone, Why: "the ledger has it", Evidence: v}, nil
		}
	}
	return workers.Answer{Finding: workers.WasNotDone, Why: "the ledger does not have it", Evidence: map[string]int{"calls": len(visits)}}, nil
}

// pause is a handler's work.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// upTo draws a time.
func upTo(dice *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(dice.Int64N(int64(most)))
}
