package workers_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

// outside is an outside system that is up or down.
type outside struct {
	up    atomic.Bool
	calls atomic.Int32
}

var circuit = workers.Breaker{Ratio: 0.5, Least: 10, Window: 10 * time.Second, Open: 400 * time.Millisecond, Most: 1600 * time.Millisecond}

func banking() intent.Kind[args] {
	k := named("test.order.charge")
	k.MaxAttempts = 1000
	return k
}

func (o *outside) handler() workers.Handler[args] {
	return workers.Handler[args]{Breaker: circuit, Do: func(context.Context, *workers.Job[args]) error {
		o.calls.Add(1)
		if !o.up.Load() {
			return workers.NotDone(errors.New("the bank does not answer"))
		}
		return nil
	}}
}

// withBreaker is a worker process with the kind that has a breaker, and another.
func (b *bench) withBreaker(o *outside, cfg workers.Config) (*workers.Pool, func()) {
	mux := workers.NewMux()
	workers.Handle(mux, banking(), o.handler())
	workers.Handle(mux, named("test.job.other"), workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { return nil }})
	cfg.Slots = 10
	return b.process(mux, cfg)
}

func (b *bench) breaker() (state string) {
	b.t.Helper()
	return testkit.Value[string](b.t, b.db, "SELECT coalesce((SELECT state FROM writ.breakers WHERE kind = $1), 'none')", banking().Name)
}

func (b *bench) flowEvents() []string {
	b.t.Helper()
	return strings.Fields(testkit.Value[string](b.t, b.db, `SELECT coalesce(string_agg(event, ' ' ORDER BY id), '') FROM writ.log WHERE intent_id = '00000000-0000-0000-0000-000000000000'`))
}

func gauge(t *testing.T, r *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return -1
}

// TestBreaker: the outside system goes down under two processes. The kind stops in both, its messages wait in the broker,
// the other kind goes on; one intent at a time is tried, ever more rarely; when the outside is back all of it is done.
func TestBreaker(t *testing.T) {
	t.Parallel()
	b := setup(t)
	registry := prometheus.NewRegistry()
	o := &outside{}
	o.up.Store(true)
	b.withBreaker(o, workers.Config{Metrics: registry})
	b.withBreaker(o, workers.Config{})
	b.many(banking(), 100)
	b.until("the first are done", 20*time.Second, "count(*) = 100 FROM writ.intents WHERE state = 'sent'")
	if state := b.breaker(); state != "closed" || gauge(t, registry, "writ_breaker_state") != 0 {
		t.Errorf("the breaker is %s", state)
	}
	o.up.Store(false)
	b.many(banking(), 1000)
	b.until("it opens", 20*time.Second, "state <> 'closed' FROM writ.breakers")
	b.until("what ran has ended, and it stays open", 20*time.Second, "state = 'open' AND trips >= 3 AND NOT EXISTS (SELECT FROM writ.intents WHERE state = 'sending') FROM writ.breakers")
	b.beats()
	calls := o.calls.Load()
	tried := func() int { return b.count("writ.log WHERE event = 'breaker-tried'") }
	before := tried()
	ch := channel(t)
	testkit.Until(t, 20*time.Second, "messages wait in the broker", func() (bool, string) {
		n, _ := b.ready(ch, banking())
		return n > 0, fmt.Sprint(n)
	})
	id := testkit.Value[intent.ID](t, b.db, "SELECT id FROM writ.intents WHERE state = 'pending' AND run_at <= now() LIMIT 1")
	testkit.Until(t, 10*time.Second, "why", func() (bool, string) {
		why := testkit.Value[string](t, b.db, "SELECT writ.why($1)", id)
		return strings.Contains(why, "the breaker of kind test.order.charge is open until "), why
	})
	testkit.Until(t, 10*time.Second, "the metric", func() (bool, string) {
		v := gauge(t, registry, "writ_breaker_state")
		return v == 2, fmt.Sprint(v)
	})
	b.many(named("test.job.other"), 200)
	b.until("the other kind is done", 20*time.Second, "count(*) = 200 FROM writ.intents WHERE kind = 'test.job.other' AND state = 'sent'")
	b.until("more were tried", 20*time.Second, "count(*) >= $1 FROM writ.log WHERE event = 'breaker-tried'", before+2)
	testkit.Until(t, 20*time.Second, "as many calls as trials", func() (bool, string) {
		now := tried()
		made := int(o.calls.Load() - calls)
		if made > tried()-before {
			t.Fatalf("%d calls for %d trials", made, tried()-before)
		}
		return made == now-before, fmt.Sprintf("%d calls, %d trials", made, now-before)
	})
	o.up.Store(true)
	b.until("it closes", 20*time.Second, "state = 'closed' FROM writ.breakers")
	b.until("all are done", 60*time.Second, "count(*) = 1100 FROM writ.intents WHERE kind = $1 AND state = 'sent'", banking().Name)
	events := b.flowEvents()
	if first, last := events[0], events[len(events)-1]; first != "breaker-opened" || last != "breaker-closed" {
		t.Errorf("the log has %v", events)
	}
}

// TestBreaker_whatCounts: neither Snooze nor Stop opens it; a panic does as well as an error that leaves it open what was done.
func TestBreaker_whatCounts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		say   func() error
		opens bool
	}{
		"snooze":  {func() error { return workers.Snooze(10 * time.Millisecond) }, false},
		"stop":    {func() error { return workers.Stop(errors.New("no such order")) }, false},
		"unknown": {func() error { return errors.New("connection reset") }, true},
		"panic":   {func() error { panic("no") }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			var calls atomic.Int32
			mux := workers.NewMux()
			workers.Handle(mux, banking(), workers.Handler[args]{Breaker: circuit, Do: func(context.Context, *workers.Job[args]) error {
				calls.Add(1)
				return c.say()
			}})
			b.process(mux, workers.Config{})
			b.many(banking(), 40)
			testkit.Until(t, 20*time.Second, "they ran", func() (bool, string) {
				n := calls.Load()
				return n >= 40 || c.opens && n >= 10, fmt.Sprint(n)
			})
			if c.opens {
				b.until("it opens", 10*time.Second, "state <> 'closed' FROM writ.breakers")
				return
			}
			b.beats()
			if state := b.breaker(); state != "none" {
				t.Errorf("the breaker is %s", state)
			}
		})
	}
}

// child is a worker process of its own, for TestBreaker_killed: it says when its handler runs, which never returns.
func child() {
	pool, err := pgxpool.New(context.Background(), os.Getenv("DATABASE_URL"))
	if err != nil {
		panic(err)
	}
	mux := workers.NewMux()
	workers.Handle(mux, banking(), workers.Handler[args]{Breaker: circuit, Do: func(context.Context, *workers.Job[args]) error {
		fmt.Println("tried")
		select {}
	}})
	w, err := workers.New(pool, os.Getenv("AMQP_URL"), mux, workers.Config{
		Heartbeat: 50 * time.Millisecond, TTL: time.Second, Log: slog.New(slog.DiscardHandler),
	})
	if err == nil {
		err = w.Run(context.Background())
	}
	panic(err)
}

// opened opens the breaker by failing intents, and stops the worker that did.
func (b *bench) opened() {
	b.t.Helper()
	o := &outside{}
	_, stop := b.withBreaker(o, workers.Config{})
	b.many(banking(), 50)
	b.until("it opens", 20*time.Second, "state <> 'closed' FROM writ.breakers")
	b.until("nothing runs", 20*time.Second, "count(*) = 0 FROM writ.intents WHERE state = 'sending'")
	stop()
}

// TestBreaker_killed: the process that tries is killed. When its lease has ended another one tries, and one alone.
func TestBreaker_killed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.opened()
	b.db.Run(t, "UPDATE writ.intents SET run_at = now() WHERE state = 'pending'")
	kill := b.spawn("breaker", "tried")
	if n := b.count("writ.intents WHERE state = 'sending'"); n != 1 {
		t.Errorf("%d are tried at once", n)
	}
	kill()
	holder := testkit.Value[string](t, b.db, "SELECT holder::text FROM writ.breakers WHERE state = 'half-open'")
	o := &outside{}
	o.up.Store(true)
	b.withBreaker(o, workers.Config{})
	b.until("it closes", 20*time.Second, "state = 'closed' FROM writ.breakers")
	if n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.log WHERE event = 'breaker-tried' AND evidence ->> 'before' = $1", holder); n != 1 {
		t.Errorf("%d times the dead one's trial was taken over; the log has %v", n, b.flowEvents())
	}
	b.until("all but that one are done", 30*time.Second, "count(*) = 49 FROM writ.intents WHERE state = 'sent'")
}

// TestBreaker_cut: the connection to the database or the broker is cut while one intent is tried: its verdict counts all the
// same, once, and no second one is let through.
func TestBreaker_cut(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]func(db, broker *testkit.Proxy) <-chan struct{}{
		"before the verdict":   func(db, _ *testkit.Proxy) <-chan struct{} { return db.CutBefore("breaker_report") },
		"the verdict's answer": func(db, _ *testkit.Proxy) <-chan struct{} { return db.LoseAnswer("breaker_report") },
		"the broker": func(_, broker *testkit.Proxy) <-chan struct{} {
			broker.CutAll()
			done := make(chan struct{})
			close(done)
			return done
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.opened()
			dbProxy, url := testkit.ProxyTo(t, b.db.URL)
			brokerProxy, broker := testkit.ProxyTo(t, testkit.AMQPURL(t))
			pool, err := pgxpool.New(context.Background(), url+"&default_query_exec_mode=cache_describe")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			var tries atomic.Int32
			tried, release := make(chan struct{}, 100), make(chan struct{})
			mux := workers.NewMux()
			workers.Handle(mux, banking(), workers.Handler[args]{Breaker: circuit, Do: func(context.Context, *workers.Job[args]) error {
				tries.Add(1)
				tried <- struct{}{}
				<-release
				return nil
			}})
			w, err := workers.New(pool, broker, mux, workers.Config{Heartbeat: 50 * time.Millisecond, TTL: 2 * time.Second, Log: testkit.Log(t)})
			if err != nil {
				t.Fatal(err)
			}
			b.run(w.Run)
			select {
			case <-tried:
			case <-time.After(20 * time.Second):
				t.Fatal("nothing is tried")
			}
			fired := cut(dbProxy, brokerProxy)
			b.beats()
			b.beats()
			if n := tries.Load(); n != 1 {
				t.Errorf("%d were let through to try", n)
			}
			close(release)
			b.until("it closes", 20*time.Second, "state = 'closed' FROM writ.breakers")
			select {
			case <-fired:
			case <-time.After(10 * time.Second):
				t.Error("the fault was never met")
			}
			b.until("all are done", 30*time.Second, "count(*) = 50 FROM writ.intents WHERE state = 'sent'")
			events := b.flowEvents()
			if diff := cmp.Diff("breaker-closed", events[len(events)-1]); diff != "" {
				t.Errorf("%v", events)
			}
			if n := b.count("writ.log WHERE event = 'breaker-closed'"); n != 1 {
				t.Errorf("it was closed %d times", n)
			}
		})
	}
}

// TestBreaker_byHand: a person opens it for a while; then it is tried and closes by itself. Closed by hand, it needs no trial.
func TestBreaker_byHand(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o := &outside{}
	o.up.Store(true)
	b.withBreaker(o, workers.Config{})
	b.until("it is declared", 10*time.Second, "count(*) = 1 FROM writ.kinds WHERE breaker IS NOT NULL")
	ctx, word := context.Background(), intent.Word{Actor: "ann", Why: "the bank asks for a break"}
	for _, end := range []struct {
		pause time.Duration
		close bool
	}{{time.Hour, true}, {500 * time.Millisecond, false}} {
		if err := intent.OpenBreaker(ctx, b.db, banking().Name, end.pause, word); err != nil {
			t.Fatal(err)
		}
		b.beats()
		before := o.calls.Load()
		b.many(banking(), 20)
		if end.close {
			b.beats()
			if n := o.calls.Load(); n != before {
				t.Errorf("%d calls while it was open", n-before)
			}
			if err := intent.CloseBreaker(ctx, b.db, banking().Name, word); err != nil {
				t.Fatal(err)
			}
		}
		b.until("all are done", 20*time.Second, "count(*) = 0 FROM writ.intents WHERE state <> 'sent'")
	}
	for name, err := range map[string]error{
		"closing what is closed": intent.CloseBreaker(ctx, b.db, banking().Name, word),
		"a kind without one":     intent.OpenBreaker(ctx, b.db, "test.job.other", 0, word),
	} {
		if !errors.Is(err, intent.ErrIllegal) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := intent.OpenBreaker(ctx, b.db, "test.job.nobody", 0, word); !errors.Is(err, intent.ErrNotFound) {
		t.Errorf("a kind that nobody declared: %v", err)
	}
	if err := intent.OpenBreaker(ctx, b.db, banking().Name, -time.Second, word); !errors.Is(err, intent.ErrInvalid) {
		t.Errorf("for less than nothing: %v", err)
	}
}

func TestBreaker_faults(t *testing.T) {
	t.Parallel()
	for problem, faulty := range map[string]workers.Breaker{
		"Ratio is 1.5": {Ratio: 1.5}, "Ratio is 0, which": {Least: 5}, "Least is -1": {Ratio: 1, Least: -1}, "Window is 1ms": {Ratio: 1, Window: time.Millisecond},
		"Open is 1m0s and Most 1s": {Ratio: 1, Open: time.Minute, Most: time.Second},
	} {
		mux := workers.NewMux()
		workers.Handle(mux, banking(), workers.Handler[args]{Slots: -1, Breaker: faulty, Do: func(context.Context, *workers.Job[args]) error { return nil }})
		_, err := workers.New(setupPool(t), "amqp://localhost", mux, workers.Config{})
		if err == nil || !strings.Contains(err.Error(), problem) || !strings.Contains(err.Error(), "Handler.Slots is -1") {
			t.Errorf("%+v: %v; want a word on %s", faulty, err, problem)
		}
	}
}

func setupPool(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(context.Background(), testkit.DatabaseURL(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// TestBreaker_fullTrier: a process whose slots of the kind are all taken by handlers that hang does not keep the others from trying.
func TestBreaker_fullTrier(t *testing.T) {
	t.Parallel()
	b := setup(t)
	kind := banking()
	kind.Timeout = time.Minute
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	process := func(do func()) {
		mux := workers.NewMux()
		workers.Handle(mux, kind, workers.Handler[args]{Slots: 1, Breaker: circuit, Do: func(context.Context, *workers.Job[args]) error { do(); return nil }})
		b.process(mux, workers.Config{Slots: 10})
	}
	process(func() { <-release })
	b.many(kind, 5)
	b.until("its slot is taken", 20*time.Second, "count(*) = 1 FROM writ.intents WHERE state = 'sending'")
	b.db.Run(t, "SELECT writ.open_breaker($1, 'ann', 'the bank is down (INC-1)', '100 ms')", kind.Name)
	b.until("its time is up", 20*time.Second, "until < now() OR state = 'half-open' FROM writ.breakers")
	b.beats()
	b.beats()
	process(func() {})
	b.until("the other process has tried, and done the rest", 20*time.Second, "count(*) = 4 FROM writ.intents WHERE state = 'sent'")
}
