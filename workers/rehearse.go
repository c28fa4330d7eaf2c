package workers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/internal/rehearsal"
	"github.com/writhq/writ/internal/store"
)

func init() {
	rehearsal.Open = func(mux any, log *slog.Logger) (rehearsal.Handlers, error) {
		m, ok := mux.(*Mux)
		if !ok || m == nil {
			return nil, fmt.Errorf("workers: %T is no *workers.Mux", mux)
		}
		application, err := m.belong(m.rehearsing())
		if err = errors.Join(err, m.check()); err == nil {
			err = m.wrap()
		}
		return &rehearsed{m, application, log}, err
	}
}

// rehearsed runs the handlers of a mux one at a time, in the goroutine of a test, by the same code as a pool.
type rehearsed struct {
	mux         *Mux
	application string
	log         *slog.Logger
}

// rehearsing names the application of a mux that has subscriptions only, for nobody else does in a test.
func (m *Mux) rehearsing() string {
	if len(m.kinds) == 0 {
		return "test"
	}
	return ""
}

func (r *rehearsed) Application() string { return r.application }

func (r *rehearsed) Deliver(ctx context.Context, s *store.Store, event string, headers map[string]any, body []byte) ([]rehearsal.Delivered, error) {
	p := &Pool{cfg: Config{Log: r.log, TTL: 10 * time.Second}, application: r.application, handlers: ctx, settling: ctx, metrics: newMetrics(nil, nil)}
	var out []rehearsal.Delivered
	for _, one := range r.mux.subscriptions {
		if one.event != event {
			continue
		}
		l := newLine(&subscriber{Pool: p, store: s}, one)
		v := []verdict{l.attend(arrival{letter: newLetter(headers, "application/json", body)})}
		if v[0].err == nil {
			v[0].err = l.create(ctx, v)
		}
		d := rehearsal.Delivered{Subscription: l.full(r.application), Err: v[0].err}
		if v[0].err != nil {
			if err := l.fail(v[0]); err != nil {
				return nil, err
			}
		} else {
			d.Created, d.Repeated = v[0].created, !v[0].fresh
		}
		out = append(out, d)
	}
	return out, nil
}

func (r *rehearsed) Declarations() []store.Declaration { return r.mux.declarations() }

func (r *rehearsed) Timeout(kind string) time.Duration { return r.mux.kinds[kind].Timeout }

func (r *rehearsed) attempt(worker uuid.UUID, c store.Claimed) *attempt {
	kind := r.mux.kinds[c.Kind]
	now := time.Now()
	return &attempt{Claimed: c, kind: kind, worker: worker, deadline: now.Add(kind.Timeout), started: now, logger: r.log}
}

func (r *rehearsed) Attend(ctx context.Context, s *store.Store, stage *rehearsal.Stage, worker uuid.UUID, c store.Claimed, force func() error) (store.Outcome, error) {
	a := r.attempt(worker, c)
	a.desk, a.patience, a.progress, a.draining = s, a.kind.Timeout, stage.Progress, &stage.Draining
	if a.kind.maxExtend > 0 {
		a.clock = newMovable(a.cause(ctx), a.deadline)
	}
	ctx, cancel := a.context(ctx)
	defer cancel()
	if force == nil {
		defer func() { stage.Progress = a.progress }()
		return judgeSafely(ctx, a, call(ctx, a))
	}
	a.effect.Store(true) // it fails where it hurts
	err := forced(force)
	if errors.Is(err, context.DeadlineExceeded) {
		over, cancel := context.WithDeadline(ctx, a.started)
		defer cancel()
		ctx = over
	}
	return judgeSafely(ctx, a, err)
}

// forced is what stands in for a handler, or its panic.
func forced(force func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Value: p}
		}
	}()
	return force()
}

func (r *rehearsed) Write(ctx context.Context, s *store.Store, worker uuid.UUID, c store.Claimed, o store.Outcome) (string, error) {
	a := r.attempt(worker, c)
	for failures := 0; ; {
		fate, err := s.FinishOne(ctx, worker, o)
		if err == nil && fate.Late {
			return "late-report", nil
		}
		var hook *store.HookError
		if !errors.As(err, &hook) {
			return o.Event, err
		}
		if failures++; failures == hookTries {
			o = hookFailed(a, o, hook.Err)
		}
	}
}

func (r *rehearsed) Ask(ctx context.Context, asking *store.Asking) store.Answer {
	kind := r.mux.kinds[asking.Kind]
	ctx, cancel := context.WithTimeout(ctx, kind.probing.Timeout)
	defer cancel()
	answer := askProbe(ctx, kind, r.log, asking)
	answer.Delay, answer.Pause = delay(kind.Backoff, asking.Attempt), pauseAfter(kind.probing.Backoff, asking.Probes)
	return answer
}

func (r *rehearsed) Recover(worker uuid.UUID, kind string) ([]string, func(context.Context, pgx.Tx, store.Owed) error) {
	k := r.mux.kinds[kind]
	if k == nil {
		return nil, nil
	}
	return k.shares(), func(ctx context.Context, tx pgx.Tx, o store.Owed) error {
		return shareOf(r.attempt(worker, o.Claimed), o)(ctx, tx)
	}
}
