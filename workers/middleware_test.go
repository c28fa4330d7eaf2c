package workers_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

// trail notes what passes. Safe for concurrent use.
type trail struct {
	mu    sync.Mutex
	steps []string
}

func (l *trail) note(step string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.steps = append(l.steps, step)
}

func (l *trail) layer(name string) workers.Middleware {
	return func(next workers.Do) workers.Do {
		return func(ctx context.Context, j *workers.Job[json.RawMessage]) error {
			l.note(name + " in")
			err := next(ctx, j)
			l.note(fmt.Sprintf("%s out: %v", name, err))
			return err
		}
	}
}

// workWith runs a worker for job whose mux and config the test fills.
func (b *bench) workWith(cfg workers.Config, fill func(*workers.Mux)) (stop func()) {
	b.t.Helper()
	pool, err := pgxpool.New(context.Background(), b.db.URL)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(pool.Close)
	mux := workers.NewMux()
	fill(mux)
	cfg.Heartbeat, cfg.TTL, cfg.Drain = 50*time.Millisecond, time.Second, 5*time.Second
	if cfg.Log == nil {
		cfg.Log = testkit.Log(b.t)
	}
	w, err := workers.New(pool, testkit.AMQPURL(b.t), mux, cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.run(w.Run)
}

func TestMiddleware(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const fine, panics, saved, undone, unfit = 1, 2, 3, 4, 5
	var l trail
	b.workWith(workers.Config{}, func(mux *workers.Mux) {
		mux.Use(l.layer("outer"))
		workers.Handle(mux, job, workers.Handler[args]{
			Use: []workers.Middleware{func(next workers.Do) workers.Do {
				return func(ctx context.Context, j *workers.Job[json.RawMessage]) error {
					switch err := next(ctx, j); string(j.Args) {
					case `{"n": 3}`:
						return nil // it knows better
					case `{"n": 4}`:
						panic(fmt.Sprint("in the middleware, after ", err))
					default:
						return err
					}
				}
			}},
			Do: func(_ context.Context, j *workers.Job[args]) error {
				l.note("handler " + fmt.Sprint(j.Args.N))
				switch j.Args.N {
				case panics:
					panic("in the handler")
				case saved:
					return errors.New("reset")
				}
				return nil
			},
		})
		mux.Use(l.layer("inner"))
	})
	for n, want := range map[int]string{fine: "sent", panics: "ambiguous", saved: "sent", undone: "ambiguous"} {
		got := b.await(b.create(job, n), want)
		if want == "ambiguous" && *got.FlagReason != "panic" {
			t.Errorf("%d is flagged %s; want panic", n, *got.FlagReason)
		}
	}
	id := testkit.Value[[16]byte](t, b.db, `INSERT INTO writ.intents (kind, args) VALUES ($1, '{"n": "seven"}') RETURNING id`, job.Name)
	b.await(id, "error")

	l.steps = nil
	b.await(b.create(job, fine), "sent")
	want := []string{"outer in", "inner in", "handler 1", "inner out: <nil>", "outer out: <nil>"}
	if diff := cmp.Diff(want, l.steps); diff != "" {
		t.Errorf("the order (-want +got):\n%s", diff)
	}
	l.steps = nil
	b.await(b.create(job, panics), "ambiguous")
	if got := strings.Join(l.steps, "\n"); !strings.Contains(got, "inner out: panic: in the handler\nouter out: panic: in the handler") {
		t.Errorf("a panic of the handler comes out of next:\n%s", got)
	}
}

func TestLogging(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var text bytes.Buffer
	var mu sync.Mutex
	log := slog.New(slog.NewTextHandler(locked{&mu, &text}, nil))
	stop := b.workWith(workers.Config{Log: log}, func(mux *workers.Mux) {
		mux.Use(workers.Logging(slog.LevelInfo))
		workers.Handle(mux, job, workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { return nil }})
	})
	id := b.create(job, 1)
	b.await(id, "sent")
	stop()
	for _, want := range []string{"job: begun", "job: returned"} {
		found := false
		for line := range strings.Lines(text.String()) {
			found = found || strings.Contains(line, want) && strings.Contains(line, "id="+id.String()) && strings.Contains(line, "tid="+id.String()) &&
				strings.Contains(line, "kind="+job.Name) && strings.Contains(line, "attempt=1")
		}
		if !found {
			t.Errorf("no line %q that names the job:\n%s", want, text.String())
		}
	}
}

type locked struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (l locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func TestOnFailure(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var mu sync.Mutex
	var told []workers.Failure
	spent, vague, broken, fine, later := 1, 2, 3, 4, 5
	cfg := workers.Config{OnFailure: func(_ context.Context, f workers.Failure) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, f)
		if f.Outcome == "retried" {
			panic("in the hook") // stops nothing
		}
	}}
	stop := b.workWith(cfg, func(mux *workers.Mux) {
		workers.Handle(mux, job, workers.Handler[args]{Do: func(_ context.Context, j *workers.Job[args]) error {
			switch j.Args.N {
			case spent:
				return workers.NotDone(errors.New("no room"))
			case vague:
				return errors.New("reset")
			case broken:
				panic("nil map")
			case later:
				if j.Epoch() == 1 {
					return workers.Snooze(time.Millisecond)
				}
			}
			return nil
		}})
	})
	for n, status := range map[int]string{spent: "error", vague: "ambiguous", broken: "ambiguous", fine: "sent", later: "sent"} {
		b.await(b.create(job, n), status)
	}
	stop() // after that all is told
	count := map[string]int{}
	for _, f := range told {
		count[fmt.Sprintf("%s after %v", f.Outcome, f.Err)]++
		if panicked := new(*workers.PanicError); f.Err != nil && errors.As(f.Err, panicked) && !strings.Contains(string((*panicked).Stack), "TestOnFailure") {
			t.Errorf("the stack of a panic: %s", (*panicked).Stack)
		}
		if f.Kind != job.Name || f.Attempt == 0 || f.Why == "" || f.TID != f.ID {
			t.Errorf("it does not say which: %+v", f)
		}
	}
	want := map[string]int{"retried after no room": 2, "failed after no room": 1, "flagged after reset": 1, "flagged after panic: nil map": 1}
	if diff := cmp.Diff(want, count); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

// TestOnFailureHangs: a hook that never returns holds nothing up, neither jobs nor the end; what it is not told of is counted.
func TestOnFailureHangs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	registry := prometheus.NewRegistry()
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	stop := b.workWith(workers.Config{Metrics: registry, OnFailure: func(context.Context, workers.Failure) { <-release }}, func(mux *workers.Mux) {
		workers.Handle(mux, job, workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { return workers.Stop(errors.New("never")) }})
	})
	const n = 1100
	b.db.Run(t, "INSERT INTO writ.intents (kind, args) SELECT $1, '{}' FROM generate_series(1, $2::int)", job.Name, n)
	testkit.Until(t, 90*time.Second, "all are in error", func() (bool, string) {
		got := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.intents WHERE state = 'error'")
		return got == n, fmt.Sprint(got)
	})
	testkit.Until(t, 10*time.Second, "some are dropped", func() (bool, string) {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "writ_failures_dropped_total" {
				got := f.GetMetric()[0].GetCounter().GetValue()
				return got >= n-1001, fmt.Sprint(got)
			}
		}
		return false, "no such metric"
	})
	began := time.Now()
	stop()
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the end took %v", took)
	}
}

// TestTracing: what a job creates is a child of its attempt's span, and that of the trace which the job was created with.
func TestTracing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const above, span = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-01"
	var l trail
	child := job
	child.Name = "test.job.child"
	b.workWith(workers.Config{}, func(mux *workers.Mux) {
		mux.Use(workers.Tracing(func(ctx context.Context, j *workers.Job[json.RawMessage]) (context.Context, string, func(error)) {
			l.note("begin under " + j.Trace())
			return ctx, span, func(err error) { l.note(fmt.Sprintf("end: %v", err)) }
		}))
		workers.Handle(mux, job, workers.Handler[args]{Do: func(ctx context.Context, j *workers.Job[args]) error {
			if j.Args.N == 2 {
				panic("in the span")
			}
			_, err := child.CreateAlone(ctx, b.db, args{7}, intent.Opts{})
			return err
		}})
	})
	ctx := intent.WithCause(context.Background(), intent.Cause{Trace: above})
	created, err := job.CreateAlone(ctx, b.db, args{1}, intent.Opts{})
	if err != nil {
		t.Fatal(err)
	}
	b.await(created.ID, "sent")
	if got := testkit.Value[string](t, b.db, "SELECT trace FROM writ.intents WHERE kind = $1 AND parent_id = $2", child.Name, created.ID); got != span {
		t.Errorf("the child's trace is %s; want that of the span", got)
	}
	b.await(b.create(job, 2), "ambiguous")
	want := []string{"begin under " + above, "end: <nil>", "begin under ", "end: panic: in the span"}
	if diff := cmp.Diff(want, l.steps); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
}
