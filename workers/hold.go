package workers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/backoff"
	"github.com/writhq/writ/internal/jsonb"
	"github.com/writhq/writ/internal/store"
)

// What a job may keep, in bytes of JSON.
const (
	maxProgress = 64 << 10
	maxResult   = 64 << 10
)

// ErrHandOver is what [Job.SafePoint] returns when the handler is not to go on: the worker is shutting down, or the time is up. The
// handler returns it.
var ErrHandOver = errors.New("handed over at a safe point")

// SafePoint says that nothing of the job is half done here, and that progress, written as JSON of at most 64 KiB, is what the next
// attempt needs to go on from here (see [Job.Progress]). It returns nil when that is stored and the handler may go on; and an
// [ErrHandOver], which the handler returns as it is, when it is not to: the worker is shutting down, and the intent goes to
// another worker at once with no attempt spent; or its time is up, and an attempt is spent.
//
// It blocks until progress is stored, while the database is away until ctx ends. Any other error says that it may not be stored:
// then the job must not go on, for a later attempt would repeat what was done since the last safe point. A *[NotHeldError]: a verdict came first. Call it from
// one goroutine, when no other one of the handler is still at work. Progress stays with the intent over all attempts, a person's retries among them.
func (j *Job[T]) SafePoint(ctx context.Context, progress any) error {
	return j.attempt.safePoint(ctx, progress)
}

// Progress reads what the last safe point of the intent left, in whichever attempt, and reports whether there was one. It asks the
// database, again and again until ctx ends while that is away. The error is one of decoding into v, of ctx, or a *[NotHeldError].
func (j *Job[T]) Progress(ctx context.Context, v any) (bool, error) {
	return j.attempt.readProgress(ctx, v)
}

// Extend moves the attempt's deadline on to d from now, in the database and in the handler's context, if it does not lie later
// already: for a handler that is still at work and not stuck. At most Handler.MaxExtend beyond the kind's Timeout, in all. It
// blocks for the database's answer, while that is away until the context ends. After an error the deadline stands as it was. Errors: an *[ExtendError] if there is no room
// for it, or it comes too late; a *[NotHeldError] if the attempt is flagged, or a verdict came first. Safe for concurrent use.
func (j *Job[T]) Extend(ctx context.Context, d time.Duration) error {
	return j.attempt.extend(ctx, d)
}

// Result keeps v, written as JSON of at most 64 KiB, to be stored with the outcome if that is sent; intent.Result reads it. The last
// one counts. It does not block. If v cannot be stored it returns an error for the handler to return: the intent is then flagged
// hook-failed, as where a hook of [Job.Done] fails, because it was done and must not be run again.
func (j *Job[T]) Result(v any) error {
	out, problem, fix := jsonb.Encode(v, maxResult)
	if problem != "" {
		return &resultError{fmt.Sprintf("its result %s (%s)", problem, fix)}
	}
	j.attempt.mu.Lock()
	defer j.attempt.mu.Unlock()
	j.attempt.result = out
	return nil
}

// resultError says that it was done and its result cannot be stored.
type resultError struct{ problem string }

func (e *resultError) Error() string { return "the handler says done; " + e.problem }

// NotHeldError says that what a handler wants to say of its attempt is not taken, because the attempt is not in its hands any more:
// a verdict came first; or because it is flagged, where that matters. Nothing was written. What the handler returns is
// kept in any case.
type NotHeldError struct {
	Call  string // SafePoint, Extend or Progress
	ID    intent.ID
	Epoch int             // of the attempt
	Now   intent.Position // where the intent stands; without a State: it is gone
	Flag  string          // why it is flagged
}

func (e *NotHeldError) Error() string {
	where := fmt.Sprintf("its attempt at epoch %d is over: the intent is %s at epoch %d", e.Epoch, e.Now.State, e.Now.Epoch)
	switch {
	case e.Now.State == "":
		where = "there is no such intent any more"
	case int(e.Now.Epoch) == e.Epoch && e.Now.Flagged:
		where = fmt.Sprintf("its attempt at epoch %d is flagged (%s), and somebody may be deciding by what it shows; finish it: what the handler returns still counts", e.Epoch, e.Flag)
	}
	return fmt.Sprintf("writ: %s of intent %s is refused: %s", e.Call, e.ID, where)
}

// Is makes errors.Is(err, intent.ErrConflict) true.
func (e *NotHeldError) Is(target error) bool { return target == intent.ErrConflict }

// ExtendError says why an attempt cannot have more time. Its deadline stands as it was.
type ExtendError struct {
	ID   intent.ID
	By   time.Duration // as asked for
	Left time.Duration // how far from now the deadline may be moved at most
	text string
}

func (e *ExtendError) Error() string {
	return fmt.Sprintf("writ: intent %s cannot be extended by %v: %s", e.ID, e.By, e.text)
}

// hold names the attempt towards the database.
func (a *attempt) hold() store.Hold { return store.Hold{ID: a.ID, Epoch: a.Epoch, Worker: a.worker} }

func (a *attempt) safePoint(ctx context.Context, progress any) error {
	out, problem, fix := jsonb.Encode(progress, maxProgress)
	if problem != "" {
		return fmt.Errorf("writ: SafePoint: progress %s (%s)", problem, fix)
	}
	a.points++
	a.progress = out
	if a.desk != nil {
		// Also when the context has ended: what is done is done, and the next attempt must know.
		_, err := a.ask(ctx, "SafePoint", func(ctx context.Context) (store.Holding, error) {
			return a.desk.SafePoint(ctx, a.hold(), a.points, out)
		})
		if err != nil {
			return err
		}
	}
	switch {
	case a.leaving():
		a.handedOver = "the worker is shutting down"
	case ctx.Err() != nil:
		a.handedOver = "its time is up"
	default:
		return nil
	}
	return fmt.Errorf("%w: %s", ErrHandOver, a.handedOver)
}

func (a *attempt) readProgress(ctx context.Context, v any) (bool, error) {
	raw := a.progress
	if a.desk != nil {
		h, err := a.ask(ctx, "Progress", func(ctx context.Context) (store.Holding, error) { return a.desk.Progress(ctx, a.hold()) })
		if err != nil {
			return false, err
		}
		raw = h.Progress
	}
	if raw == nil {
		return false, nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return true, fmt.Errorf("writ: the progress of intent %s does not fit %T: %w", a.ID, v, err)
	}
	return true, nil
}

func (a *attempt) extend(ctx context.Context, d time.Duration) error {
	refuse := func(left time.Duration, format string, args ...any) error {
		return &ExtendError{ID: a.ID, By: d, Left: left, text: fmt.Sprintf(format, args...)}
	}
	if a.clock == nil {
		return refuse(0, "kind %s has no room for it; set Handler.MaxExtend to how far Job.Extend may move the deadline in all", a.Kind)
	}
	left := time.Until(a.deadline.Add(a.kind.maxExtend))
	switch {
	case d <= 0:
		return refuse(left, "it must be a positive time")
	case d > left:
		return refuse(left, "Handler.MaxExtend of kind %s leaves %v from now", a.Kind, left.Round(time.Millisecond))
	}
	var sent time.Time // the last time: so the local deadline never lies behind the database's
	if a.desk != nil {
		if _, err := a.ask(ctx, "Extend", func(ctx context.Context) (store.Holding, error) {
			sent = time.Now()
			return a.desk.Extend(ctx, a.hold(), d)
		}); err != nil {
			return err
		}
	} else {
		sent = time.Now()
	}
	if !a.clock.move(sent.Add(d)) {
		return refuse(0, "its context has ended already")
	}
	return nil
}

// ask repeats a request to the database until it is answered, while ctx has not ended; once in any case.
func (a *attempt) ask(ctx context.Context, call string, do func(context.Context) (store.Holding, error)) (store.Holding, error) {
	pause := backoff.New(50*time.Millisecond, 2*time.Second)
	for {
		trying, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.patience)
		h, err := do(trying)
		cancel()
		switch {
		case err == nil && h.Held:
			return h, nil
		case err == nil:
			return h, &NotHeldError{Call: call, ID: a.ID, Epoch: int(a.Epoch), Now: intent.Position{State: h.State, Epoch: h.Epoch, Flagged: h.Flag != ""}, Flag: h.Flag}
		case !store.Down(err) && !store.Unknown(err):
			return h, fmt.Errorf("writ: %w", err)
		}
		a.log().Warn("worker: a handler waits for the database", "call", call, "error", err)
		if ctx.Err() != nil || !pause.Wait(ctx) {
			return h, fmt.Errorf("writ: %w", err)
		}
	}
}

// leaving reports whether the worker is shutting down.
func (a *attempt) leaving() bool { return a.draining != nil && a.draining.Load() }
