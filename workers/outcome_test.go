package workers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
)

func refused() error {
	return fmt.Errorf("post: %w", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED})
}

// TestJudge is the outcome table of the protocol, row by row and class by class.
func TestJudge(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	type want struct{ idempotent, probed, manual string }
	same := func(event string) want { return want{event, event, event} }
	open := want{store.Retried, store.Flagged, store.Flagged}
	tests := map[string]struct {
		err   error
		mode  EffectMode
		enter bool // calls Effect
		want  want
	}{
		"nil":                                 {nil, EffectFromStart, false, same(store.Succeeded)},
		"not done":                            {NotDone(boom), EffectFromStart, false, same(store.Retried)},
		"not done, wrapped":                   {fmt.Errorf("send: %w", NotDone(boom)), EffectFromStart, false, same(store.Retried)},
		"stop":                                {Stop(boom), EffectFromStart, false, same(store.Failed)},
		"snooze":                              {Snooze(time.Minute), EffectFromStart, false, same(store.Retried)},
		"unknown":                             {Unknown(boom), EffectFromStart, false, open},
		"unknown, whatever it wraps":          {Unknown(fmt.Errorf("after that: %w", Snooze(time.Minute))), EffectFromStart, false, open},
		"unknown beside not done":             {errors.Join(NotDone(boom), Unknown(boom)), EffectFromStart, false, open},
		"not done beside a failed clean-up":   {errors.Join(NotDone(boom), boom), EffectFromStart, false, same(store.Retried)},
		"unknown, taken back":                 {NotDone(fmt.Errorf("looked there: %w", Unknown(boom))), EffectFromStart, false, same(store.Retried)},
		"unknown, though before its effect":   {Unknown(boom), EffectMarked, false, open},
		"any error, from its first line":      {boom, EffectFromStart, false, open},
		"any error, before its marked effect": {boom, EffectMarked, false, same(store.Retried)},
		"any error, in its marked effect":     {boom, EffectMarked, true, open},
		"panic in the effect":                 {&PanicError{Value: "x"}, EffectFromStart, false, open},
		"panic before the effect":             {&PanicError{Value: "x"}, EffectMarked, false, same(store.Retried)},
		"the outside was never reached":       {NotReached(refused()), EffectFromStart, false, same(store.Retried)},
		// After a successful charge this says nothing of the charge: never a reason to charge again.
		"a later step was refused": {fmt.Errorf("mark paid: %w", refused()), EffectFromStart, false, open},
		"name not resolved":        {NotReached(&net.DNSError{IsNotFound: true}), EffectFromStart, false, same(store.Retried)},
		"reset is not refused":     {NotReached(&net.OpError{Op: "read", Err: syscall.ECONNRESET}), EffectFromStart, false, open},
	}
	for name, tt := range tests {
		for class, want := range map[string]string{Idempotent: tt.want.idempotent, Probed: tt.want.probed, Manual: tt.want.manual} {
			t.Run(name+"/"+class, func(t *testing.T) {
				t.Parallel()
				a := anAttempt(class, 1)
				a.kind.effect = tt.mode
				a.effect.Store(tt.enter)
				got := judge(context.Background(), a, tt.err)
				if got.Event != want {
					t.Errorf("judged %q (%s); want %q", got.Event, got.Why, want)
				}
				if got.Probe != (got.Event == store.Flagged && class == Probed) {
					t.Errorf("probe = %v for class %s", got.Probe, class)
				}
			})
		}
	}
}

func TestJudge_spent(t *testing.T) {
	t.Parallel()
	last := anAttempt(Idempotent, 3)
	for name, err := range map[string]error{"not done": NotDone(errors.New("x")), "unknown, idempotent": errors.New("x")} {
		if got := judge(context.Background(), last, err); got.Event != store.Failed {
			t.Errorf("%s at the last attempt: %q; want failed", name, got.Event)
		}
	}
	if got := judge(context.Background(), last, Snooze(time.Second)); got.Event != store.Retried || !got.Free {
		t.Errorf("a snooze at the last attempt: %+v; want free", got)
	}
}

// An explicit word counts more than the safe point that it wraps.
func TestJudge_handOver(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err  error
		want string
		free bool
	}{
		"as it is":               {ErrHandOver, store.Retried, true},
		"wrapped":                {fmt.Errorf("bill: %w", ErrHandOver), store.Retried, true},
		"unknown":                {Unknown(fmt.Errorf("closing the file: %w", ErrHandOver)), store.Flagged, false},
		"with an unknown beside": {errors.Join(ErrHandOver, Unknown(errors.New("reset"))), store.Flagged, false},
	} {
		a := anAttempt(Manual, 1)
		a.handedOver, a.draining = "the worker is shutting down", new(atomic.Bool)
		a.draining.Store(true)
		if got := judge(context.Background(), a, tt.err); got.Event != tt.want || got.Free != tt.free {
			t.Errorf("%s: %q, free %v; want %q, %v", name, got.Event, got.Free, tt.want, tt.free)
		}
	}
}

func TestJudge_contexts(t *testing.T) {
	t.Parallel()
	timedOut, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancel()
	if got := judge(timedOut, anAttempt(Manual, 1), context.DeadlineExceeded); got.Why != "timeout" {
		t.Errorf("reason %q; want timeout", got.Why)
	}
	if got := judge(timedOut, anAttempt(Manual, 1), nil); got.Event != store.Succeeded {
		t.Errorf("done after the deadline: %q; want succeeded: late truth counts", got.Event)
	}
	draining, stop := context.WithCancelCause(context.Background())
	stop(errDraining)
	if got := judge(draining, anAttempt(Manual, 1), context.Canceled); got.Why != "cancelled" {
		t.Errorf("reason %q; want cancelled", got.Why)
	}
}

func TestDelay(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := intent.Backoff{
			Min:    time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "min")),
			Factor: rapid.Float64Range(1, 10).Draw(t, "factor"),
		}
		b.Max = b.Min + time.Duration(rapid.Int64Range(0, int64(1000*time.Hour)).Draw(t, "more"))
		attempt := rapid.Int32Range(1, 1<<30).Draw(t, "attempt")
		if d := delay(b, attempt); d < 0 || d > b.Max {
			t.Fatalf("delay %v outside 0 to %v", d, b.Max)
		}
	})
}

func TestOutcome_nilStaysNil(t *testing.T) {
	t.Parallel()
	if NotDone(nil) != nil || Stop(nil) != nil || Unknown(nil) != nil || NotReached(nil) != nil {
		t.Error("a nil error became one")
	}
}

func anAttempt(class string, n int32) *attempt {
	return &attempt{
		Claimed: store.Claimed{Attempt: n, Epoch: 1},
		kind: &registration{
			class:    class,
			Settings: intent.Settings{MaxAttempts: 3, Backoff: intent.Backoff{Min: time.Second, Max: time.Hour, Factor: 2}},
		},
	}
}
