package workers_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

// TestLimit_moot: a hint of which nothing comes gives its token back, so that another may go.
func TestLimit_moot(t *testing.T) {
	t.Parallel()
	b := setup(t)
	kind := job
	kind.Name, kind.Limits = "test.limit.moot", []intent.Limit{{Starts: 2, Per: 24 * time.Hour, Burst: 2}}
	w := b.steady(b.db.URL, workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { return nil }}, kind)
	ready(t, w)
	first := b.create(kind, 1)
	b.await(first, "sent")
	for range 3 { // doubled hints
		b.db.Run(t, "INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) VALUES (now(), $1, $2, 0, 'run')", kind.Name, first)
	}
	testkit.Until(t, 10*time.Second, "they are through", func() (bool, string) {
		n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.outbox")
		return n == 0, fmt.Sprint(n)
	})
	b.await(b.create(kind, 2), "sent")
	third := b.create(kind, 3)
	testkit.Until(t, 10*time.Second, "the third waits", func() (bool, string) {
		why := testkit.Value[string](t, b.db, "SELECT coalesce(writ.why_limited(i), '') FROM writ.intents i WHERE id = $1", third)
		return why == "rate-limited: at most 2 in 1 d 0 h, next token in 11 h 59 m", why
	})
}

// TestLimit_lostAnswers: whatever answer is lost, never more run at once than there are places, and none of them is lost.
func TestLimit_lostAnswers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	kind := job
	kind.Name, kind.Limits = "test.limit.lost", []intent.Limit{{Running: 2, Starts: 60}, {Key: "args.n", Running: 1}}
	var mu sync.Mutex
	now, most, done := 0, 0, 0
	handler := workers.Handler[args]{Do: func(ctx context.Context, _ *workers.Job[args]) error {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
		mu.Lock()
		defer mu.Unlock()
		now--
		done++
		return nil
	}}
	proxy, url := testkit.ProxyTo(t, b.db.URL)
	w1 := b.steady(url, handler, kind)
	w2 := b.steady(b.db.URL, handler, kind)
	ready(t, w1, w2)
	b.fill(kind, 100)
	for _, fault := range []func(string) <-chan struct{}{proxy.LoseAnswer, proxy.CutBefore} {
		for _, statement := range []string{"lease_places", "lease_tokens"} {
			select {
			case <-fault(statement):
			case <-time.After(20 * time.Second):
				t.Fatalf("no %s to break", statement)
			}
		}
	}
	b.sent(kind, 100, 60*time.Second)
	if most > 2 || done != 100 {
		t.Errorf("%d at once, %d runs; want 2 and 100", most, done)
	}
	testkit.Until(t, 10*time.Second, "no place is left taken", func() (bool, string) {
		n := testkit.Value[int](t, b.db, "SELECT coalesce(sum(held), 0) FROM writ.places")
		return n == 0, fmt.Sprint(n)
	})
}

// TestLimit_brokerCut: what waits for a limit when the broker's connection is lost comes again, and is not there twice.
func TestLimit_brokerCut(t *testing.T) {
	t.Parallel()
	b := setup(t)
	kind := job
	kind.Name, kind.Limits = "test.limit.cut", []intent.Limit{{Starts: 24, Per: 24 * time.Hour}}
	mux := workers.NewMux()
	workers.Handle(mux, kind, workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { return nil }})
	broker, url := testkit.ProxyTo(t, testkit.AMQPURL(t))
	registry := prometheus.NewRegistry()
	w, err := workers.New(b.db.Pool, url, mux, workers.Config{Slots: 10, Metrics: registry, Log: testkit.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	b.run(w.Run)
	ready(t, w)
	b.fill(kind, 4)
	b.sent(kind, 1, 20*time.Second)
	ch := channel(t)
	inHand := func() {
		t.Helper()
		testkit.Until(t, 20*time.Second, "two are here, and one is left to the broker", func() (bool, string) {
			messages, consumers := b.ready(ch, kind)
			return messages == 1 && consumers == 1, fmt.Sprint(messages, consumers)
		})
	}
	inHand()
	for range 3 {
		broker.CutAll()
		testkit.Until(t, 20*time.Second, "the connection is gone", func() (bool, string) { return w.Ready() != nil, "it is there" })
		ready(t, w)
		inHand()
	}
	testkit.Until(t, 5*time.Second, "two wait", func() (bool, string) {
		n := gauge(t, registry, "writ_limit_waiting")
		return n == 2, fmt.Sprint(n)
	})
}
