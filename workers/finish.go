package workers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/internal/backoff"
	"github.com/writhq/writ/internal/store"
)

// finisher writes outcomes down, batched while the previous batch is in flight (group commit), and at most one small
// batch each spacing: a transaction costs much more than the rows in it. The first one after a pause is written at once.
type finisher struct {
	p       *Pool
	singles sync.WaitGroup  // added to by run only
	batch   []store.Outcome // where one is put together, again and again

	mu     sync.Mutex
	queue  []finished
	closed bool
	news   chan struct{} // holds one token: queue or closed changed
}

// finished is an attempt with its outcome.
type finished struct {
	a *attempt
	o store.Outcome
}

func newFinisher(p *Pool) *finisher { return &finisher{p: p, news: make(chan struct{}, 1)} }

// submit hands over an outcome; it does not block. Outcomes of handlers that outlived the shutdown are dropped: their
// rows are found by the reconciler.
func (f *finisher) submit(a *attempt, o store.Outcome) {
	f.mu.Lock()
	if !f.closed {
		f.queue = append(f.queue, finished{a, o})
	}
	f.mu.Unlock()
	f.wake()
}

// close lets run end when all that was submitted is written.
func (f *finisher) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.wake()
}

func (f *finisher) wake() {
	select {
	case f.news <- struct{}{}:
	default:
	}
}

// run writes until close, or until ctx ends.
func (f *finisher) run(ctx context.Context) {
	defer f.singles.Wait()
	var next time.Time // when a small batch may be written again
	var spare []finished
	for {
		f.mu.Lock()
		batch, closed := f.queue, f.closed
		wait := time.Until(next)
		if early := len(batch) < small && wait > 0 && !closed; early && len(batch) > 0 {
			f.mu.Unlock()
			backoff.Sleep(ctx, wait) // the handlers' slots are free already
			next = time.Time{}
			continue
		}
		if len(batch) > 0 {
			f.queue, spare = spare, nil
		}
		f.mu.Unlock()
		switch {
		case len(batch) > 0:
			next = time.Now().Add(spacing)
			f.writeBatch(ctx, batch)
			clear(batch)
			spare = batch[:0] // the two take turns
		case closed:
			return
		default:
			select {
			case <-f.news:
			case <-ctx.Done():
				return
			}
		}
	}
}

// writeBatch writes outcomes without hooks together, and all that have one, or were refused, singly beside it.
func (f *finisher) writeBatch(ctx context.Context, batch []finished) {
	together := f.batch[:0]
	for _, d := range batch {
		if d.o.Hook != nil {
			f.single(ctx, d)
			continue
		}
		together = append(together, d.o)
	}
	f.batch = together
	if len(together) == 0 {
		return
	}
	defer clear(together)
	refused, err := f.tryTogether(ctx, together)
	if err != nil {
		f.p.cfg.Log.Warn("worker: outcomes could not be written together, writing them one by one", "outcomes", len(together), "error", err)
		refused = together
	}
	left := make(map[claim]bool, len(refused))
	for _, o := range refused {
		left[claim{o.ID, o.Epoch}] = true
	}
	written := 0
	for _, d := range batch {
		switch {
		case d.o.Hook != nil:
		case left[claim{d.o.ID, d.o.Epoch}]:
			f.single(ctx, d)
		default:
			f.release(d, d.o.Event)
			written++
		}
	}
	f.p.slots.said(written)
}

// tryTogether repeats the batch while the database is away: what was applied though its answer was lost is found so the second
// time, together or one by one.
func (f *finisher) tryTogether(ctx context.Context, outcomes []store.Outcome) ([]store.Outcome, error) {
	pause := backoff.New(50*time.Millisecond, 2*time.Second)
	for {
		attempt, cancel := context.WithTimeout(ctx, f.p.cfg.TTL)
		refused, err := f.p.store.FinishBatch(attempt, f.p.id, outcomes)
		cancel()
		if err == nil || !store.Down(err) || store.Locked(err) {
			return refused, err
		}
		f.p.cfg.Log.Warn("worker: cannot write outcomes yet, trying again", "outcomes", len(outcomes), "error", err)
		if !pause.Wait(ctx) {
			return outcomes, err
		}
	}
}

func (f *finisher) single(ctx context.Context, d finished) {
	f.singles.Go(func() {
		if event, ok := f.write(ctx, d.a, d.o); ok {
			f.release(d, event)
			f.p.slots.said(1)
		}
	})
}

// release forgets an attempt whose outcome is resolved; event is what was written, or nothing if a verdict came first.
func (f *finisher) release(d finished, event string) {
	f.p.registry.leave(claim{d.o.ID, d.o.Epoch - 1})
	f.p.metrics.kinds[d.a.Kind].finished(event)
	switch {
	case event != d.o.Event && event != "":
		f.p.reporter.report(d.a, event, "hook-failed", d.a.failure)
	case event == store.Failed, event == store.Flagged, event == store.Retried && !d.o.Free:
		f.p.reporter.report(d.a, event, d.o.Why, d.a.failure)
	}
}

// write writes one outcome singly and repeats that until it is resolved. It returns the event that was written, which is
// another one where the application's part failed, and none where a verdict came first; false: ctx ended before.
func (f *finisher) write(ctx context.Context, a *attempt, o store.Outcome) (event string, ok bool) {
	pause := backoff.New(50*time.Millisecond, 5*time.Second)
	hooked, failures := 0, 0
	for {
		try, cancel := context.WithTimeout(ctx, max(f.p.cfg.TTL, a.kind.Timeout))
		fate, err := f.p.store.FinishOne(try, f.p.id, o)
		cancel()
		var hook *store.HookError
		switch {
		case err == nil:
			if fate.Late {
				f.late(a, o, fate)
				return "", true
			}
			return o.Event, true
		case ctx.Err() != nil:
			return "", false
		case errors.As(err, &hook):
			// Each counts, or a hook that always fails would keep its row for ever; what may pass counts less.
			if hooked++; !store.Transient(hook.Err) {
				hooked += hookTransient - 1
			}
			if hooked >= hookTries*hookTransient {
				o = hookFailed(a, o, hook.Err)
			}
			a.log().Error("worker: the application's part of the finishing transaction failed", "error", hook.Err)
		case !store.Down(err):
			// The database refuses the statement itself. What it is most likely to refuse is the outside's text.
			if failures++; failures == 2 {
				o.Error = "(the error text could not be stored)"
			}
			a.log().Error("worker: the outcome is refused by the database, trying again", "outcome", o.Event, "error", err)
		default:
			a.log().Warn("worker: cannot write the outcome yet, trying again", "outcome", o.Event, "error", err)
		}
		if !pause.Wait(ctx) {
			return "", false
		}
	}
}

// hookFailed is the outcome when the application's part cannot be written: what is known stands in the log, the row is
// flagged for a person, and nothing is run again.
func hookFailed(a *attempt, o store.Outcome, err error) store.Outcome {
	known := "the handler says done"
	if o.Event == store.Failed {
		known = "the handler says failed: " + o.Error
	}
	return store.Outcome{
		ID: o.ID, Epoch: a.Epoch, Event: store.Flagged, Why: "hook-failed",
		Error: fmt.Sprintf("%s; its hook failed %d times: %v", known, hookTries, err),
	}
}

// late reports a refused finish. Where it contradicts the verdict somebody decided on less than the truth.
func (f *finisher) late(a *attempt, o store.Outcome, fate store.Fate) {
	f.p.metrics.late.WithLabelValues(fate.Meaning).Inc()
	level := slog.LevelWarn
	if fate.Meaning == store.Contradicts {
		level = slog.LevelError
	}
	a.log().Log(context.Background(), level, "worker: late report: a verdict came before the outcome",
		"outcome", o.Event, "error", o.Error, "state", fate.State, "meaning", fate.Meaning)
}

// onErrorHook is the application's recovery function as the share in the transaction that ends the intent in error.
func onErrorHook(a *attempt, cause error) func(context.Context, pgx.Tx) error {
	if a.kind.onError == nil {
		return nil
	}
	return a.guarded(func(ctx context.Context, tx pgx.Tx) error { return a.kind.onError(ctx, tx, a, cause) })
}
