package workers_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/rabbit"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

type user struct {
	N int `json:"n"`
}

// town is a database whose application publishes an event of its own and subscribes to it.
type town struct {
	*bench
	event intent.Event[user]
	ch    *amqp.Channel
	drain time.Duration // of the workers that it starts
}

func settle(t *testing.T) *town {
	t.Helper()
	return settleIn(t, setup(t))
}

func settleIn(t *testing.T, b *bench) *town {
	t.Helper()
	e := &town{bench: b, drain: 5 * time.Second, event: intent.Event[user]{Name: "u" + strings.ReplaceAll(uuid.NewString(), "-", "") + ".authorized"}}
	conn, err := amqp.Dial(testkit.AMQPURL(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if e.ch, err = conn.Channel(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.ch.ExchangeDelete(rabbit.EventExchange(e.event.Name), false, false) })
	return e
}

// queue is the broker's name of a subscription's queue.
func (e *town) queue(subscription string) string {
	e.t.Helper()
	settings, err := store.New(e.db.Pool).Settings(context.Background())
	if err != nil {
		e.t.Fatal(err)
	}
	name, err := rabbit.QueueName(settings.Installation, "event:test:"+e.event.Name+":"+subscription)
	if err != nil {
		e.t.Fatal(err)
	}
	return name
}

// listen starts a worker that has only subscriptions, through the given URLs, and waits until their queues exist.
func (e *town) listen(database, broker string, all ...workers.Subscription[user]) (stop func()) {
	e.t.Helper()
	pool, err := pgxpool.New(context.Background(), database)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(pool.Close)
	mux := workers.NewMux()
	for _, s := range all {
		workers.Subscribe(mux, e.event, s)
	}
	w, err := workers.New(pool, broker, mux, workers.Config{
		Application: "test", Heartbeat: 50 * time.Millisecond, TTL: time.Second, Drain: e.drain, Log: testkit.Log(e.t),
	})
	if err != nil {
		e.t.Fatal(err)
	}
	stop = e.run(w.Run)
	for _, s := range all {
		queue := e.queue(s.Name)
		e.t.Cleanup(func() { _, _ = e.ch.QueueDelete(queue, false, false, false) })
	}
	testkit.Until(e.t, 20*time.Second, "the subscriptions are consumed", func() (bool, string) {
		conn, err := amqp.Dial(testkit.AMQPURL(e.t)) // asking for a queue that is missing closes the channel
		if err != nil {
			return false, err.Error()
		}
		defer conn.Close()
		ch, err := conn.Channel()
		for _, s := range all {
			if err == nil {
				var q amqp.Queue
				if q, err = ch.QueueDeclarePassive(e.queue(s.Name), true, false, false, false, nil); err == nil && q.Consumers == 0 {
					err = errors.New("not consumed")
				}
			}
		}
		return err == nil, fmt.Sprint(err)
	})
	return stop
}

// tell publishes an event by its application.
func (e *town) tell(n int) intent.ID {
	e.t.Helper()
	var id intent.ID
	err := pgx.BeginFunc(context.Background(), e.db, func(tx pgx.Tx) (err error) {
		id, err = e.event.Publish(context.Background(), tx, user{n}, intent.EventOpts{})
		return err
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return id
}

// post sends a message as a stranger would.
func (e *town) post(headers amqp.Table, contentType, body string) {
	e.t.Helper()
	err := e.ch.PublishWithContext(context.Background(), rabbit.EventExchange(e.event.Name), "", false, false,
		amqp.Publishing{Headers: headers, ContentType: contentType, Body: []byte(body)})
	if err != nil {
		e.t.Fatal(err)
	}
}

// intents are how many there are of each argument, of a kind.
func (e *town) intents(kind string) map[int]int {
	e.t.Helper()
	rows, err := e.db.Query(context.Background(), "SELECT (args ->> 'n')::int FROM writ.intents WHERE kind = $1", kind)
	if err != nil {
		e.t.Fatal(err)
	}
	ns, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		e.t.Fatal(err)
	}
	out := map[int]int{}
	for _, n := range ns {
		out[n]++
	}
	return out
}

func (e *town) awaitIntents(kind string, want int) {
	e.t.Helper()
	testkit.Until(e.t, 60*time.Second, fmt.Sprintf("%d intents of %s", want, kind), func() (bool, string) {
		got := e.intents(kind)
		return len(got) >= want, fmt.Sprint(got)
	})
	for n, times := range e.intents(kind) {
		if times != 1 {
			e.t.Errorf("%d intents of %s for event %d", times, kind, n)
		}
	}
}

// greets returns a subscription that creates one intent of the kind for each event.
func greets(name string) workers.Subscription[user] {
	return workers.Subscription[user]{Name: name, Backoff: intent.Backoff{Max: time.Second}, Do: func(_ context.Context, e workers.Event[user]) ([]intent.New, error) {
		return []intent.New{kindOf(name).New(args{e.Data.N}, intent.Opts{})}, nil
	}}
}

func kindOf(subscription string) intent.Kind[args] {
	return intent.Kind[args]{Name: "test.user." + subscription}
}

// TestSubscribe: two subscriptions each get an event once, also the one that was down when it came; what is rolled back
// nobody gets; tid, parent and trace go along.
func TestSubscribe(t *testing.T) {
	t.Parallel()
	e := settle(t)
	stop := e.listen(e.db.URL, testkit.AMQPURL(t), greets("greet"), greets("count"))
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	cause := intent.Cause{TID: intent.NewID(), Parent: intent.NewID(), Trace: trace}
	err := pgx.BeginFunc(context.Background(), e.db, func(tx pgx.Tx) error {
		_, err := e.event.Publish(intent.WithCause(context.Background(), cause), tx, user{1}, intent.EventOpts{Subject: "user:1"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = pgx.BeginFunc(context.Background(), e.db, func(tx pgx.Tx) error {
		if _, err := e.event.Publish(context.Background(), tx, user{99}, intent.EventOpts{}); err != nil {
			t.Error(err)
		}
		return errors.New("rolled back")
	})
	for _, name := range []string{"greet", "count"} {
		kind := kindOf(name).Name
		e.awaitIntents(kind, 1)
		found, err := intent.List(context.Background(), e.db, intent.Filter{Kind: kind})
		if err != nil || len(found) != 1 {
			t.Fatalf("found %v, %v", found, err)
		}
		if i := found[0]; i.TID != cause.TID || i.ParentID == nil || *i.ParentID != cause.Parent {
			t.Errorf("%s has tid %s and parent %v; want those of the event, %+v", kind, i.TID, i.ParentID, cause)
		}
		if got := testkit.Value[string](t, e.db, "SELECT trace FROM writ.intents WHERE kind = $1", kind); got != trace {
			t.Errorf("%s has trace %q", kind, got)
		}
	}
	stop()
	e.tell(2)
	e.listen(e.db.URL, testkit.AMQPURL(t), greets("greet"), greets("count"), greets("late"))
	e.awaitIntents(kindOf("greet").Name, 2)
	e.tell(3)
	e.awaitIntents(kindOf("count").Name, 3)
	e.awaitIntents(kindOf("late").Name, 1)
	if got := e.intents(kindOf("late").Name); got[3] != 1 {
		t.Errorf("a subscription added later got %v; want what came from then on", got)
	}
	// It would have been told before the others.
	if got := e.intents(kindOf("greet").Name); got[99] != 0 {
		t.Errorf("an event that was rolled back was told: %v", got)
	}
	if n := testkit.Value[int](t, e.db, "SELECT count(*) FROM writ.subscriptions"); n != 3 {
		t.Errorf("%d subscriptions are declared; want 3", n)
	}
}

// TestSubscribe_repeats: the broker's repeats, and those of the publisher with the same id, create nothing twice; events of
// the same id from another source are others.
func TestSubscribe_repeats(t *testing.T) {
	t.Parallel()
	e := settle(t)
	e.listen(e.db.URL, testkit.AMQPURL(t), greets("greet"))
	for range 5 {
		for _, source := range []string{"api", "shop"} {
			n := map[string]int{"api": 1, "shop": 2}[source]
			e.post(amqp.Table{"cloudEvents_specversion": "1.0", "cloudEvents_id": "e1", "cloudEvents_source": source, "cloudEvents_type": e.event.Name},
				"application/json", fmt.Sprintf(`{"n": %d}`, n))
		}
		e.post(nil, "application/cloudevents+json; charset=utf-8", fmt.Sprintf(
			`{"specversion": "1.0", "id": "e3", "source": "api", "type": %q, "time": "2026-11-22T08:00:00Z", "data": {"n": 3}}`, e.event.Name))
	}
	e.tell(4)
	e.awaitIntents(kindOf("greet").Name, 4)
	testkit.Until(t, 10*time.Second, "the queue is empty", func() (bool, string) {
		q, err := e.ch.QueueDeclarePassive(e.queue("greet"), true, false, false, false, nil)
		return err == nil && q.Messages == 0, fmt.Sprint(q.Messages, err)
	})
	e.awaitIntents(kindOf("greet").Name, 4)
}

// TestSubscribe_failing: an event that fails is tried again, and in the end kept as dead; neither it nor one that cannot be
// read holds up those behind it, and nothing is lost: a person has it tried again.
func TestSubscribe_failing(t *testing.T) {
	t.Parallel()
	e := settle(t)
	var mended atomic.Bool
	var calls tally
	e.listen(e.db.URL, testkit.AMQPURL(t), workers.Subscription[user]{
		Name: "greet", MaxAttempts: 3, Backoff: intent.Backoff{Min: time.Millisecond, Max: 10 * time.Millisecond}, Places: 2,
		Do: func(_ context.Context, ev workers.Event[user]) ([]intent.New, error) {
			kind, n := kindOf("greet"), calls.add(ev.Data.N)
			switch {
			case ev.Data.N == 1 && n < 3:
				return nil, errors.New("not yet")
			case ev.Data.N == 2 && !mended.Load():
				panic("at the second")
			case ev.Data.N == 3 && !mended.Load():
				kind.Name = "shop.order.charge" // another application's
			case ev.Data.N == 4:
				return nil, nil // nothing to do
			}
			return []intent.New{kind.New(args{ev.Data.N}, intent.Opts{})}, nil
		},
	})
	e.post(amqp.Table{"cloudEvents_id": "no specversion"}, "", "\xff\x00")
	for n := 1; n <= 50; n++ {
		e.tell(n)
	}
	e.awaitIntents(kindOf("greet").Name, 50-3) // all but the two that fail and the one of which nothing follows
	dead := func() int {
		return testkit.Value[int](t, e.db, "SELECT count(*) FROM writ.unsettled WHERE status = 'dead'")
	}
	testkit.Until(t, 20*time.Second, "three are dead", func() (bool, string) { return dead() == 3, fmt.Sprint(dead()) })
	for _, words := range []string{"panic: at the second", "shop.order.charge is a task of application shop", "malformed: %specversion"} {
		if n := testkit.Value[int](t, e.db, "SELECT count(*) FROM writ.unsettled WHERE last_error LIKE '%' || $1 || '%' AND failures = 3", words); n != 1 {
			t.Errorf("%d dead events tell of %q", n, words)
		}
	}
	mended.Store(true)
	e.db.Run(t, "SELECT writ.decide_event(CASE WHEN event_id LIKE 'sha256:%' THEN 'drop' ELSE 'retry' END, subscription, source, event_id, 'ann', 'the code is mended now') FROM writ.unsettled")
	e.awaitIntents(kindOf("greet").Name, 50-1)
	testkit.Until(t, 10*time.Second, "all settled", func() (bool, string) {
		n := testkit.Value[int](t, e.db, "SELECT count(*) FROM writ.unsettled")
		return n == 0, fmt.Sprint(n)
	})
	if n := testkit.Value[int](t, e.db, "SELECT count(*) FROM writ.log WHERE event IN ('event-retry', 'event-drop') AND actor = 'ann'"); n != 3 {
		t.Errorf("%d decisions are in the log; want 3", n)
	}
}

// TestSubscribe_lostAnswer: the transaction that settles events breaks before and after its commit, and the broker at the
// delivery and at the ack; each event has its intent, once.
func TestSubscribe_lostAnswer(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"before", "answer", "fail-before", "fail-answer"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			e := settle(t)
			proxy, url := testkit.ProxyTo(t, e.db.URL)
			statement := "INSERT INTO writ.inbox (subscription, source, event_id, settled_at)"
			s := greets("greet")
			if strings.HasPrefix(fault, "fail") {
				statement = "INSERT INTO writ.inbox AS i"
				do, calls := s.Do, new(tally)
				s.Do = func(ctx context.Context, ev workers.Event[user]) ([]intent.New, error) {
					if calls.add(ev.Data.N) == 1 {
						return nil, errors.New("not yet")
					}
					return do(ctx, ev)
				}
			}
			inject := proxy.CutBefore
			if strings.HasSuffix(fault, "answer") {
				inject = proxy.LoseAnswer
			}
			fired := inject(statement)
			e.listen(url+"&default_query_exec_mode=cache_describe", testkit.AMQPURL(t), s)
			for n := range 20 {
				e.tell(n)
			}
			<-fired
			e.awaitIntents(kindOf("greet").Name, 20)
		})
	}
}

// TestSubscribe_poison: an event that the database breaks off each time, or does not come to an end with, is kept as failed,
// and does not hold up the others, also when it is tried again.
func TestSubscribe_poison(t *testing.T) {
	t.Parallel()
	for name, poison := range map[string]string{
		"late":      "PERFORM pg_sleep(60)", // longer than the worker waits for an answer
		"cancelled": "RAISE EXCEPTION 'canceling statement due to statement timeout' USING ERRCODE = '57014'",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := settle(t)
			e.db.Run(t, "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "+poison+"; RETURN NEW; END $$")
			e.db.Run(t, "CREATE TRIGGER poison BEFORE INSERT ON writ.intents FOR EACH ROW WHEN ((NEW.args ->> 'n')::int IN (3, 7)) EXECUTE FUNCTION poison()")
			s := greets("greet")
			s.Places = 50
			e.listen(e.db.URL, testkit.AMQPURL(t), s)
			for n := range 50 {
				e.tell(n)
			}
			e.awaitIntents(kindOf("greet").Name, 48)
			testkit.Until(t, 30*time.Second, "the two are kept, with the reason, and tried again", func() (bool, string) {
				kept := testkit.Value[string](t, e.db, "SELECT coalesce(string_agg(failures || ' ' || last_error, '; '), '') FROM writ.unsettled WHERE failures > 1")
				return strings.Count(kept, "timeout")+strings.Count(kept, "deadline exceeded") >= 2, kept
			})
			e.db.Run(t, "DROP TRIGGER poison ON writ.intents")
			e.awaitIntents(kindOf("greet").Name, 50)
		})
	}
}

// TestSubscribe_unkept: events that failed and that the database does not keep for now go back to the broker, more of them
// than are prefetched, and are kept when it does; the others go on meanwhile.
func TestSubscribe_unkept(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"55P03", "23514"} { // a lock that was waited for too long; a refusal
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			e := settle(t)
			e.db.Run(t, "CREATE TABLE refusing ()")
			e.db.Run(t, `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
				IF to_regclass('refusing') IS NOT NULL THEN RAISE EXCEPTION 'not now' USING ERRCODE = '`+code+`'; END IF;
				RETURN NEW; END $$`)
			e.db.Run(t, "CREATE TRIGGER refuse BEFORE INSERT ON writ.inbox FOR EACH ROW WHEN (NEW.last_error IS NOT NULL) EXECUTE FUNCTION refuse()")
			s := greets("greet")
			do := s.Do
			s.Backoff = intent.Backoff{Min: time.Hour, Max: time.Hour}
			s.Do = func(ctx context.Context, ev workers.Event[user]) ([]intent.New, error) {
				if ev.Data.N < 100 {
					return nil, errors.New("not yet")
				}
				return do(ctx, ev)
			}
			e.listen(e.db.URL, testkit.AMQPURL(t), s)
			for n := 60; n < 110; n++ {
				e.tell(n)
			}
			e.awaitIntents(kindOf("greet").Name, 10) // behind forty that cannot be kept
			for n := range 60 {
				e.tell(n)
			}
			e.db.Run(t, "DROP TABLE refusing")
			testkit.Until(t, 60*time.Second, "the hundred are kept", func() (bool, string) {
				n := testkit.Value[int](t, e.db, "SELECT count(*) FROM writ.unsettled")
				return n == 100, fmt.Sprint(n)
			})
		})
	}
}

// TestSubscribe_stale: what waits here while the broker's connection breaks again and again is not asked about once for each
// time that it was delivered.
func TestSubscribe_stale(t *testing.T) {
	t.Parallel()
	e := settle(t)
	proxy, url := testkit.ProxyTo(t, testkit.AMQPURL(t))
	hang := make(chan struct{})
	var calls atomic.Int32
	s := greets("greet")
	do := s.Do
	s.Places = 1
	s.Do = func(ctx context.Context, ev workers.Event[user]) ([]intent.New, error) {
		<-hang
		calls.Add(1)
		return do(ctx, ev)
	}
	e.listen(e.db.URL, url, s)
	for n := range 64 {
		e.tell(n)
	}
	taken := func() {
		t.Helper()
		testkit.Until(t, 20*time.Second, "all are delivered", func() (bool, string) {
			q, err := e.ch.QueueDeclarePassive(e.queue("greet"), true, false, false, false, nil)
			return err == nil && q.Messages == 0 && q.Consumers == 1, fmt.Sprint(q, err)
		})
	}
	testkit.Until(t, 20*time.Second, "all are published", func() (bool, string) {
		n := testkit.Value[int](t, e.db, "SELECT count(*) FROM writ.outbox")
		return n == 0, fmt.Sprint(n)
	})
	taken()
	for range 5 {
		proxy.Refuse()
		testkit.Until(t, 20*time.Second, "the broker has them back", func() (bool, string) {
			q, err := e.ch.QueueDeclarePassive(e.queue("greet"), true, false, false, false, nil)
			return err == nil && q.Consumers == 0, fmt.Sprint(q, err)
		})
		proxy.Accept()
		taken()
	}
	close(hang)
	e.awaitIntents(kindOf("greet").Name, 64)
	if n := calls.Load(); n > 3*64 {
		t.Errorf("%d calls for 64 events", n)
	}
}

// TestSubscribe_goexit: code that ends its goroutine has failed once, and its place is taken by another.
func TestSubscribe_goexit(t *testing.T) {
	t.Parallel()
	e := settle(t)
	var calls tally
	s := greets("greet")
	do := s.Do
	s.Places = 1
	s.Do = func(ctx context.Context, ev workers.Event[user]) ([]intent.New, error) {
		if calls.add(ev.Data.N) == 1 && ev.Data.N < 3 {
			runtime.Goexit()
		}
		return do(ctx, ev)
	}
	e.listen(e.db.URL, testkit.AMQPURL(t), s)
	for n := range 10 {
		e.tell(n)
	}
	e.awaitIntents(kindOf("greet").Name, 10)
	if failed := testkit.Value[string](t, e.db, "SELECT string_agg(failures || ' ' || last_error, '; ') FROM writ.inbox WHERE failures > 0"); strings.Count(failed, "1 the subscription ended its goroutine") != 3 {
		t.Errorf("failed: %s", failed)
	}
}

// TestSubscribe_drained: what a shutdown cancels has not failed: it is given back, and the next worker takes it, at once.
func TestSubscribe_drained(t *testing.T) {
	t.Parallel()
	e := settle(t)
	var calls tally
	var waiting atomic.Int32
	s := greets("greet")
	s.Backoff = intent.Backoff{Min: time.Millisecond, Max: time.Millisecond}
	s.Do = func(ctx context.Context, ev workers.Event[user]) ([]intent.New, error) {
		if calls.add(ev.Data.N) == 1 && ev.Data.N == 0 {
			return nil, errors.New("not yet")
		}
		waiting.Add(1)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	e.drain = 100 * time.Millisecond
	stop := e.listen(e.db.URL, testkit.AMQPURL(t), s)
	for n := range 5 {
		e.tell(n)
	}
	testkit.Until(t, 20*time.Second, "five are waited for", func() (bool, string) { return waiting.Load() == 5, fmt.Sprint(waiting.Load()) })
	stop()
	if n := testkit.Value[int](t, e.db, "SELECT count(*) FROM writ.inbox WHERE failures = 1 AND due_at <= clock_timestamp()"); n != 1 {
		t.Errorf("%d are due again; want the one that had failed before", n)
	}
	if n := testkit.Value[int](t, e.db, "SELECT count(*) FROM writ.inbox"); n != 1 {
		t.Errorf("%d are in the inbox; want the one that had failed before", n)
	}
	e.listen(e.db.URL, testkit.AMQPURL(t), greets("greet"))
	e.awaitIntents(kindOf("greet").Name, 5)
}

// TestSubscribe_unbound: a subscription's exchange, and its binding, are deleted while it is connected; nothing is lost.
func TestSubscribe_unbound(t *testing.T) {
	t.Parallel()
	e := settle(t)
	e.listen(e.db.URL, testkit.AMQPURL(t), greets("greet"))
	e.tell(1)
	e.awaitIntents(kindOf("greet").Name, 1)
	exchange := rabbit.EventExchange(e.event.Name)
	if err := e.ch.ExchangeDelete(exchange, false, false); err != nil {
		t.Fatal(err)
	}
	e.tell(2)
	e.awaitIntents(kindOf("greet").Name, 2)
	if err := e.ch.QueueUnbind(e.queue("greet"), "", exchange, nil); err != nil {
		t.Fatal(err)
	}
	e.tell(3)
	e.awaitIntents(kindOf("greet").Name, 3)
}

// TestSubscribe_retries: what failed together is tried again without delay, as fast as its places allow, and those that come from
// the broker have theirs meanwhile.
func TestSubscribe_retries(t *testing.T) {
	t.Parallel()
	e := settle(t)
	var mended atomic.Bool
	var trying, most atomic.Int32
	s := greets("greet")
	do := s.Do
	s.MaxAttempts, s.Backoff = 1000, intent.Backoff{Min: time.Hour, Max: time.Hour}
	s.Do = func(ctx context.Context, ev workers.Event[user]) ([]intent.New, error) {
		if ev.Data.N < 400 {
			if !mended.Load() {
				return nil, errors.New("not yet")
			}
			most.Store(max(most.Load(), trying.Add(1)))
			defer trying.Add(-1)
		}
		return do(ctx, ev)
	}
	e.listen(e.db.URL, testkit.AMQPURL(t), s)
	for n := range 400 {
		e.tell(n)
	}
	testkit.Until(t, 60*time.Second, "all have failed", func() (bool, string) {
		n := testkit.Value[int](t, e.db, "SELECT count(*) FROM writ.unsettled")
		return n == 400, fmt.Sprint(n)
	})
	mended.Store(true)
	e.db.Run(t, "UPDATE writ.inbox SET due_at = now()")
	for n := range 100 {
		e.tell(400 + n)
	}
	e.awaitIntents(kindOf("greet").Name, 500) // within a minute: at 4 a second it was 100 s
	if n := most.Load(); n > 4 {
		t.Errorf("%d of 8 places were taken by those that failed before; want at most 4", n)
	}
}

// TestSubscribe_slow: one subscription that hangs does not slow another.
func TestSubscribe_slow(t *testing.T) {
	t.Parallel()
	e := settle(t)
	hang := make(chan struct{})
	slow := greets("greet")
	do := slow.Do
	slow.Do = func(ctx context.Context, ev workers.Event[user]) ([]intent.New, error) {
		<-hang
		return do(ctx, ev)
	}
	e.listen(e.db.URL, testkit.AMQPURL(t), slow, greets("count"))
	for n := range 150 { // more than the prefetch of the one that hangs
		e.tell(n)
	}
	e.awaitIntents(kindOf("count").Name, 150)
	if n := len(e.intents(kindOf("greet").Name)); n != 0 {
		t.Errorf("the one that hangs has created %d", n)
	}
	close(hang)
	e.awaitIntents(kindOf("greet").Name, 150)
}

// TestSubscribe_paused: while all is paused events wait with the broker.
func TestSubscribe_paused(t *testing.T) {
	t.Parallel()
	e := settle(t)
	e.listen(e.db.URL, testkit.AMQPURL(t), greets("greet"))
	if err := intent.Pause(context.Background(), e.db, "", intent.Word{Actor: "ann", Why: "the provider is away"}); err != nil {
		t.Fatal(err)
	}
	e.post(amqp.Table{"cloudEvents_specversion": "1.0", "cloudEvents_id": "e1", "cloudEvents_source": "api", "cloudEvents_type": e.event.Name}, "", `{"n": 1}`)
	testkit.Until(t, 10*time.Second, "it was tried", func() (bool, string) {
		n := testkit.Value[int](t, e.db, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'ROLLBACK%' OR query LIKE 'rollback%'")
		return n > 0, "nobody rolled back"
	})
	if n := len(e.intents(kindOf("greet").Name)); n != 0 {
		t.Errorf("%d intents were created while all was paused", n)
	}
	if err := intent.Resume(context.Background(), e.db, "", intent.Word{Actor: "ann", Why: "the provider is back"}); err != nil {
		t.Fatal(err)
	}
	e.awaitIntents(kindOf("greet").Name, 1)
}

// TestApplication: a mux belongs to one application, and so does a database that it was said of.
func TestApplication(t *testing.T) {
	t.Parallel()
	b := setup(t)
	foreign := intent.Kind[args]{Name: "shop.order.charge"}
	nothing := workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { return nil }}
	mux := workers.NewMux()
	workers.Handle(mux, job, nothing)
	workers.Handle(mux, foreign, nothing)
	workers.Subscribe(mux, intent.Event[user]{Name: "nothing"}, workers.Subscription[user]{Name: "No", Places: -1})
	_, err := workers.New(b.db.Pool, testkit.AMQPURL(t), mux, workers.Config{Application: "test"})
	for _, words := range []string{"shop.order.charge is a task of application shop", "names no model", "Name must begin", "Do is missing", "Places is -1"} {
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("New says %v; want %q in it", err, words)
		}
	}

	create := func(ctx context.Context, k intent.Kind[args]) error {
		return pgx.BeginFunc(ctx, b.db, func(tx pgx.Tx) error {
			_, err := k.Create(ctx, tx, args{1}, intent.Opts{})
			return err
		})
	}
	ctx := context.Background()
	if err := create(ctx, foreign); err != nil {
		t.Errorf("nobody owns the database yet: %v", err)
	}
	for range 2 {
		if err := store.New(b.db.Pool).Own(ctx, "test"); err != nil {
			t.Fatal(err)
		}
	}
	if err := create(ctx, job); err != nil {
		t.Error(err)
	}
	// What was there before can be settled.
	var left intent.ID
	if err := b.db.QueryRow(ctx, "UPDATE writ.intents SET state = 'cancelled' WHERE kind = $1 RETURNING id", foreign.Name).Scan(&left); err != nil {
		t.Error(err)
	}
	if err := create(ctx, foreign); !errors.Is(err, intent.ErrInvalid) || !strings.Contains(err.Error(), "task of application test") {
		t.Errorf("another application's task: %v", err)
	}
	if _, err := b.db.Exec(ctx, "INSERT INTO writ.intents (kind) VALUES ('shop.order.charge')"); err == nil || !strings.Contains(err.Error(), "task of application test") {
		t.Errorf("the same by SQL: %v", err)
	}
	mux = workers.NewMux()
	workers.Handle(mux, foreign, nothing)
	w, err := workers.New(b.db.Pool, testkit.AMQPURL(t), mux, workers.Config{Application: "shop", Log: testkit.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Run(ctx); err == nil || !strings.Contains(err.Error(), "belongs to application test") {
		t.Errorf("a worker of another application ran: %v", err)
	}
	if w, err = workers.New(b.db.Pool, testkit.AMQPURL(t), mux, workers.Config{Log: testkit.Log(t)}); err != nil {
		t.Fatal(err)
	}
	if err := w.Run(ctx); err == nil || !strings.Contains(err.Error(), "belongs to application test, and the kinds of this worker are tasks of shop") {
		t.Errorf("a worker whose kinds are another application's ran: %v", err)
	}
	if _, err := b.db.Exec(ctx, "SELECT writ.own(NULL)"); err == nil || !strings.Contains(err.Error(), "who gives this database back") {
		t.Errorf("it was given back without a word: %v", err)
	}
	b.db.Run(t, "SELECT writ.own(NULL, 'ann', 'it was a mistake')")
	if said := testkit.Value[string](t, b.db, "SELECT string_agg(concat_ws(' ', event, actor = session_user OR actor = 'ann', evidence), ', ' ORDER BY id) FROM writ.log WHERE event LIKE '%owned'"); said != `owned t {"application": "test"}, disowned t {"before": "test"}` {
		t.Errorf("the log says %s", said)
	}
	if err := create(ctx, foreign); err != nil {
		t.Errorf("nobody owns the database any more: %v", err)
	}
}

// TestCause: what a handler creates and publishes, also in its hooks, is part of its tree; another application's task is
// refused there, whoever owns the database.
func TestCause(t *testing.T) {
	t.Parallel()
	e := settleIn(t, setup(t))
	next, last := job, job
	next.Name, last.Name = "test.job.next", "test.job.last"
	var refused atomic.Value
	e.work(e.db.URL, workers.Handler[args]{Do: func(ctx context.Context, j *workers.Job[args]) error {
		if j.Args.N > 1 {
			return nil
		}
		err := pgx.BeginFunc(ctx, e.db, func(tx pgx.Tx) error {
			if _, err := next.Create(ctx, tx, args{2}, intent.Opts{}); err != nil {
				return err
			}
			_, err := e.event.Publish(ctx, tx, user{7}, intent.EventOpts{})
			return err
		})
		foreign := pgx.BeginFunc(ctx, e.db, func(tx pgx.Tx) error {
			_, err := intent.Kind[args]{Name: "shop.order.charge"}.Create(ctx, tx, args{}, intent.Opts{})
			return err
		})
		again := pgx.BeginFunc(ctx, e.db, func(tx pgx.Tx) error {
			_, err := intent.Kind[args]{Name: "shop.order.charge"}.Create(intent.WithCause(ctx, intent.Cause{Trace: "mine"}), tx, args{}, intent.Opts{})
			return err
		})
		refused.Store(fmt.Sprintf("%v; %v", foreign, again))
		return errors.Join(err, j.Done(func(ctx context.Context, tx pgx.Tx) error {
			_, err := last.Create(ctx, tx, args{3}, intent.Opts{})
			return err
		}))
	}}, job, next, last)
	e.listen(e.db.URL, testkit.AMQPURL(t), greets("greet"))
	root := e.create(job, 1)
	e.await(root, "sent")
	e.awaitIntents(kindOf("greet").Name, 1)
	tree, err := intent.Tree(context.Background(), e.db, root)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]bool{}
	for _, i := range tree {
		kinds[i.Kind] = true
		if i.TID != root || i.ID != root && (i.ParentID == nil || *i.ParentID != root) {
			t.Errorf("%s has tid %s and parent %v; want %s", i.Kind, i.TID, i.ParentID, root)
		}
	}
	if len(tree) != 4 || len(kinds) != 4 {
		t.Errorf("the tree is %v; want the root, what it created in a transaction and in its hook, and what followed from its event", kinds)
	}
	if same, err := intent.Tree(context.Background(), e.db, tree[len(tree)-1].ID); err != nil || len(same) != 4 {
		t.Errorf("asked by a leaf the tree has %d, %v", len(same), err)
	}
	if said := refused.Load().(string); strings.Count(said, "is a task of application shop, and this is test") != 2 {
		t.Errorf("another application's task: %s", said)
	}
}
