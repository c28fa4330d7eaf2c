package workers_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

type receipt struct {
	Charge string `json:"charge"`
}

func TestResult(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const fine, hooked, none, nul, large, refused = 1, 2, 3, 4, 5, 6
	b.work(b.db.URL, workers.Handler[args]{Do: func(_ context.Context, j *workers.Job[args]) error {
		result := any(receipt{fmt.Sprint("ch_", j.Args.N)})
		switch j.Args.N {
		case none:
			return nil
		case nul:
			result = "a\x00b"
		case large:
			result = strings.Repeat("x", 64<<10)
		case refused:
			return errors.Join(j.Result(result), workers.Stop(errors.New("no such customer")))
		}
		if err := j.Result(result); err != nil {
			return err
		}
		if j.Args.N == hooked {
			return j.Done(func(context.Context, pgx.Tx) error { return nil })
		}
		return nil
	}})
	ctx := context.Background()
	for _, n := range []int{fine, hooked} {
		id := b.create(job, n)
		b.await(id, "sent")
		got, err := intent.Result[receipt](ctx, b.db, id)
		if want := (receipt{fmt.Sprint("ch_", n)}); err != nil || got != want {
			t.Errorf("the result is %+v, %v; want %+v", got, err, want)
		}
		if _, err := intent.Result[[]int](ctx, b.db, id); err == nil || !strings.Contains(err.Error(), "does not fit") {
			t.Errorf("as another type: %v", err)
		}
	}
	for n, want := range map[int]error{none: intent.ErrNoResult, nul: intent.ErrNotDone, large: intent.ErrNotDone, refused: intent.ErrNotDone} {
		id := b.create(job, n)
		status := map[int]string{none: "sent", refused: "error"}[n]
		if status == "" {
			status = "ambiguous"
		}
		got := b.await(id, status)
		_, err := intent.Result[receipt](ctx, b.db, id)
		if !errors.Is(err, want) {
			t.Errorf("%d: %v; want %v", n, err, want)
		}
		if state := new(*intent.StateError); want == intent.ErrNotDone && (!errors.As(err, state) || (*state).Status != status) {
			t.Errorf("%d: the error does not tell that it is %s: %v", n, status, err)
		}
		if n == nul || n == large {
			if got.FlagReason == nil || *got.FlagReason != "hook-failed" || got.Error == nil || !strings.Contains(*got.Error, "says done") {
				t.Errorf("%d: flagged %v: %v; want what is known: it was done", n, got.FlagReason, got.Error)
			}
		}
	}
	if _, err := intent.Result[receipt](ctx, b.db, intent.NewID()); !errors.Is(err, intent.ErrNotFound) {
		t.Errorf("of no intent: %v", err)
	}
}

func TestExtend(t *testing.T) {
	t.Parallel()
	b := setup(t)
	kind := job
	kind.Name, kind.Timeout = "test.job.crawl", time.Second
	type said struct{ first, beyond, none, last error }
	heard := make(chan said, 1)
	b.work(b.db.URL, workers.Handler[args]{
		MaxExtend: 10 * time.Second,
		Do: func(ctx context.Context, j *workers.Job[args]) error {
			var s said
			inner, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			s.none = j.Extend(ctx, 0)
			s.beyond = j.Extend(ctx, 12*time.Second)
			s.first = j.Extend(ctx, 4*time.Second)
			select { // past the first deadline, and the grace of one that is overdue
			case <-inner.Done():
				return ctx.Err()
			case <-time.After(2300 * time.Millisecond):
			}
			b.db.Run(t, "UPDATE writ.intents SET flagged_at = now(), flag_reason = 'seen by hand' WHERE id = $1", j.ID())
			s.last = j.Extend(ctx, time.Second)
			heard <- s
			return nil
		},
	}, kind)
	id := b.create(kind, 1)
	got := b.await(id, "sent") // late truth counts
	s := <-heard
	if s.first != nil {
		t.Errorf("extended: %v", s.first)
	}
	if d := got.DeadlineAt.Sub(*got.StartedAt); d < 4*time.Second || d > 8*time.Second {
		t.Errorf("its deadline is %v after its start; want 4s and a little", d)
	}
	var refused *workers.ExtendError
	if !errors.As(s.beyond, &refused) || refused.Left > 11*time.Second || refused.Left < 8*time.Second {
		t.Errorf("beyond what is allowed: %v", s.beyond)
	}
	if !errors.As(s.none, &refused) {
		t.Errorf("by nothing: %v", s.none)
	}
	var held *workers.NotHeldError
	if !errors.As(s.last, &held) || held.Flag != "seen by hand" || !errors.Is(s.last, intent.ErrConflict) || !strings.Contains(s.last.Error(), "flagged (seen by hand)") {
		t.Errorf("of a flagged one: %v", s.last)
	}
	if events := b.events(id); slices.Contains(events, "retried") {
		t.Errorf("its log: %v", events)
	}

	plain := make(chan error, 1)
	fixed := job
	fixed.Name = "test.job.fixed"
	b.work(b.db.URL, workers.Handler[args]{Do: func(ctx context.Context, j *workers.Job[args]) error {
		plain <- j.Extend(ctx, time.Second)
		return nil
	}}, fixed)
	b.await(b.create(fixed, 1), "sent")
	if err := <-plain; !errors.As(err, &refused) || !strings.Contains(err.Error(), "Handler.MaxExtend") {
		t.Errorf("of a kind without MaxExtend: %v", err)
	}
}

// TestExtendTooLittle: an extended deadline counts like any other.
func TestExtendTooLittle(t *testing.T) {
	t.Parallel()
	b := setup(t)
	kind := job
	kind.Name, kind.Timeout = "test.job.creep", 3*time.Second
	took := make(chan time.Duration, 1)
	b.work(b.db.URL, workers.Handler[args]{
		MaxExtend: 5 * time.Second,
		Do: func(ctx context.Context, j *workers.Job[args]) error {
			began := time.Now()
			if err := j.Extend(ctx, 5*time.Second); err != nil {
				return workers.Stop(err)
			}
			<-ctx.Done()
			took <- time.Since(began)
			return ctx.Err()
		},
	}, kind)
	got := b.await(b.create(kind, 1), "ambiguous")
	if *got.FlagReason != "timeout" || *got.Error != context.DeadlineExceeded.Error() {
		t.Errorf("flagged %s: %s; want a timeout", *got.FlagReason, *got.Error)
	}
	if d := <-took; d < 4*time.Second {
		t.Errorf("its context ended after %v", d)
	}
}

// walker goes a job's steps, and saves each.
type walker struct {
	mu    sync.Mutex
	steps map[intent.ID][]string // step@epoch
	gate  chan struct{}          // step 2 of an attempt waits for it; nil: none does
	stood chan intent.ID
}

func (w *walker) walk(ctx context.Context, j *workers.Job[args]) error {
	var done int
	if _, err := j.Progress(ctx, &done); err != nil {
		return err
	}
	for step := done + 1; step <= j.Args.N; step++ {
		if step == 2 && w.gate != nil {
			w.stood <- j.ID()
			<-w.gate
		}
		w.mu.Lock()
		w.steps[j.ID()] = append(w.steps[j.ID()], fmt.Sprintf("%d@%d", step, j.Epoch()))
		w.mu.Unlock()
		if err := j.SafePoint(ctx, step); err != nil {
			return fmt.Errorf("after step %d: %w", step, err)
		}
	}
	return j.Result(done)
}

func TestSafePoint(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := &walker{steps: map[intent.ID][]string{}, gate: make(chan struct{}), stood: make(chan intent.ID)}
	_, stop := b.work(b.db.URL, workers.Handler[args]{Do: w.walk})
	id := b.create(job, 4)
	if <-w.stood; b.await(id, "running").Epoch != 1 {
		t.Fatal("it is not at its first attempt")
	}
	stopped := make(chan struct{})
	go func() { defer close(stopped); stop() }()
	testkit.Until(t, 10*time.Second, "the worker says that it is shutting down", func() (bool, string) {
		yes := testkit.Value[bool](t, b.db, "SELECT bool_or(draining) FROM writ.workers")
		return yes, fmt.Sprint(yes)
	})
	close(w.gate)
	<-stopped
	got := b.await(id, "ready")
	if got.Attempt != 0 || string(got.Progress) != "2" {
		t.Errorf("handed over: attempt %d, progress %s; want no attempt spent, and 2", got.Attempt, got.Progress)
	}
	why := testkit.Value[string](t, b.db, "SELECT why FROM writ.log WHERE intent_id = $1", id)
	if why != workers.HandedOver {
		t.Errorf("the log says %q", why)
	}
	b.work(b.db.URL, workers.Handler[args]{Do: w.walk})
	b.await(id, "sent")
	if diff := cmp.Diff([]string{"1@1", "2@1", "3@2", "4@2"}, w.steps[id]); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	if began, err := intent.Result[int](context.Background(), b.db, id); err != nil || began != 2 {
		t.Errorf("the second attempt began after step %d, %v; want 2", began, err)
	}
}

// TestSafePointTimeUp: who reaches a safe point when the time is up has not done the rest, and says so by it; an attempt is
// spent, for the next one may get no further.
func TestSafePointTimeUp(t *testing.T) {
	t.Parallel()
	b := setup(t)
	kind := job
	kind.Name, kind.Timeout = "test.job.slow", 300*time.Millisecond
	b.work(b.db.URL, workers.Handler[args]{Do: func(ctx context.Context, j *workers.Job[args]) error {
		var n int
		if _, err := j.Progress(ctx, &n); err != nil || n == 2 {
			return err
		}
		<-ctx.Done()
		return j.SafePoint(ctx, n+1)
	}}, kind)
	got := b.await(b.create(kind, 1), "sent")
	if got.Attempt != 3 || string(got.Progress) != "2" {
		t.Errorf("attempt %d, progress %s; want 3 and 2", got.Attempt, got.Progress)
	}
	if diff := cmp.Diff([]string{"retried", "retried"}, b.events(got.ID)); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

// TestSafePointRefused: after a verdict an attempt may not go on, and what it says is refused.
func TestSafePointRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	heard := make(chan error, 3)
	b.work(b.db.URL, workers.Handler[args]{Do: func(ctx context.Context, j *workers.Job[args]) error {
		b.db.Run(t, "UPDATE writ.intents SET flagged_at = now(), flag_reason = 'seen by hand' WHERE id = $1", j.ID())
		heard <- j.SafePoint(ctx, "a flag does not void it")
		b.db.Run(t, "UPDATE writ.intents SET state = 'error' WHERE id = $1", j.ID())
		err := j.SafePoint(ctx, "a verdict does")
		heard <- err
		_, progressErr := j.Progress(ctx, new(string))
		heard <- progressErr
		return err
	}})
	id := b.create(job, 1)
	if err := <-heard; err != nil {
		t.Errorf("flagged: %v", err)
	}
	for range 2 {
		var held *workers.NotHeldError
		if err := <-heard; !errors.As(err, &held) || held.Now.State != "error" || !strings.Contains(err.Error(), "is error at epoch 2") {
			t.Errorf("after a verdict: %v", err)
		}
	}
	got := b.await(id, "error")
	if string(got.Progress) != `"a flag does not void it"` {
		t.Errorf("progress %s", got.Progress)
	}
}

// TestForeignHandOver: only a safe point hands over; the error alone says nothing.
func TestForeignHandOver(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.work(b.db.URL, workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { return workers.ErrHandOver }})
	if got := b.await(b.create(job, 1), "ambiguous"); *got.FlagReason != "unknown" {
		t.Errorf("flagged %s", *got.FlagReason)
	}
}
