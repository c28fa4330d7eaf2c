package workers_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/rabbit"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

// process is a worker with the handlers of a mux, on a pool of its own.
func (b *bench) process(mux *workers.Mux, cfg workers.Config) (*workers.Pool, func()) {
	b.t.Helper()
	pool, err := pgxpool.New(context.Background(), b.db.URL)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(pool.Close)
	cfg.Heartbeat, cfg.TTL, cfg.Drain, cfg.Log = 50*time.Millisecond, time.Second, 5*time.Second, testkit.Log(b.t)
	w, err := workers.New(pool, testkit.AMQPURL(b.t), mux, cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	return w, b.run(w.Run)
}

// many creates n intents of a kind in one transaction.
func (b *bench) many(k intent.Kind[args], n int) {
	b.t.Helper()
	b.db.Run(b.t, `INSERT INTO writ.intents (kind, args) SELECT $1, jsonb_build_object('n', n) FROM generate_series(0, $2 - 1) n`, k.Name, n)
}

// ready is how many messages wait in the broker's queue of a kind, not delivered to anybody.
func (b *bench) ready(ch *amqp.Channel, k intent.Kind[args]) (messages, consumers int) {
	b.t.Helper()
	name, err := rabbit.QueueName(testkit.Value[intent.ID](b.t, b.db, "SELECT installation FROM writ.settings"), k.Name)
	if err != nil {
		b.t.Fatal(err)
	}
	q, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return q.Messages, q.Consumers
}

// channel is one to the broker, for looking.
func channel(t *testing.T) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(testkit.AMQPURL(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func (b *bench) count(sql string, args ...any) int {
	b.t.Helper()
	return testkit.Value[int](b.t, b.db, "SELECT count(*) FROM "+sql, args...)
}

func (b *bench) until(what string, most time.Duration, sql string, args ...any) {
	b.t.Helper()
	testkit.Until(b.t, most, what, func() (bool, string) {
		return testkit.Value[bool](b.t, b.db, "SELECT coalesce((SELECT "+sql+"), false)", args...), "not so"
	})
}

// beats waits until each worker has looked at what was set in the database before.
func (b *bench) beats() {
	b.t.Helper()
	b.until("there are workers", 20*time.Second, "count(*) > 0 FROM writ.workers")
	for range 2 { // a look comes after its beat, so the first one may have been on its way
		b.db.Run(b.t, "DROP TABLE IF EXISTS writ.seen; CREATE TABLE writ.seen AS SELECT id, heartbeat_at FROM writ.workers")
		b.until("all have beaten", 20*time.Second, "bool_and(w.heartbeat_at > s.heartbeat_at) FROM writ.workers w JOIN writ.seen s USING (id)")
	}
}

// countOutbox counts the rows that are ever written to the outbox from now on, by kind.
func (b *bench) countOutbox() {
	b.db.Run(b.t, `CREATE TABLE writ.written (kind text)`)
	b.db.Run(b.t, `GRANT INSERT ON writ.written TO PUBLIC`)
	b.db.Run(b.t, `CREATE FUNCTION writ.note_written() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO writ.written VALUES (NEW.kind); RETURN NULL; END $$`)
	b.db.Run(b.t, `CREATE TRIGGER note_written AFTER INSERT ON writ.outbox FOR EACH ROW EXECUTE FUNCTION writ.note_written()`)
}

func named(name string) intent.Kind[args] {
	k := job
	k.Name = name
	return k
}

// TestSlots: a kind with slots of its own never runs more at once, what is beyond them stays with the broker, for other
// processes, and the rest of the process's slots are left to other kinds.
func TestSlots(t *testing.T) {
	t.Parallel()
	b := setup(t)
	greedy, quick := named("test.job.greedy"), named("test.job.quick")
	release := make(chan struct{})
	var mu sync.Mutex
	running, most := 0, 0
	mux := workers.NewMux()
	workers.Handle(mux, greedy, workers.Handler[args]{Slots: 2, Do: func(context.Context, *workers.Job[args]) error {
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		<-release
		mu.Lock()
		running--
		mu.Unlock()
		return nil
	}})
	workers.Handle(mux, quick, workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { return nil }})
	b.process(mux, workers.Config{Slots: 10})
	b.many(greedy, 200)
	b.until("two of the greedy kind run", 10*time.Second, "count(*) = 2 FROM writ.intents WHERE kind = $1 AND state = 'sending'", greedy.Name)
	ch := channel(t)
	testkit.Until(t, 10*time.Second, "the rest waits in the broker", func() (bool, string) {
		n, _ := b.ready(ch, greedy)
		return n >= 194, fmt.Sprint(n)
	})
	b.many(quick, 300)
	b.until("the others are done", 20*time.Second, "count(*) = 300 FROM writ.intents WHERE kind = $1 AND state = 'sent'", quick.Name)
	if n := b.count("writ.intents WHERE kind = $1 AND state = 'sending'", greedy.Name); n != 2 {
		t.Errorf("%d of the greedy kind run; want 2", n)
	}
	close(release)
	b.until("all are done", 30*time.Second, "count(*) = 200 FROM writ.intents WHERE kind = $1 AND state = 'sent'", greedy.Name)
	if most != 2 {
		t.Errorf("%d ran at once; want 2", most)
	}
}

// TestPause_backlog: a kind is paused in the middle of a backlog of thousands. Its messages stay in the broker, unconsumed;
// what was in hand goes back once, and does not go round; other kinds go on; resumed, all of it is done, once.
func TestPause_backlog(t *testing.T) {
	t.Parallel()
	b := setup(t)
	slow, quick := named("test.job.slow"), named("test.job.quick")
	var calls tally
	mux := workers.NewMux()
	workers.Handle(mux, slow, workers.Handler[args]{Do: func(ctx context.Context, j *workers.Job[args]) error {
		calls.add(j.Args.N)
		timer := time.NewTimer(2 * time.Millisecond)
		defer timer.Stop()
		<-timer.C
		return nil
	}})
	workers.Handle(mux, quick, workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { return nil }})
	for range 2 { // processes
		b.process(mux, workers.Config{Slots: 20})
	}
	const all = 4000
	b.many(slow, all)
	b.until("some are done", 20*time.Second, "count(*) > 200 FROM writ.intents WHERE kind = $1 AND state = 'sent'", slow.Name)
	b.db.Run(t, "SELECT writ.pause('ann', 'the provider is down', $1)", slow.Name)
	ch := channel(t)
	testkit.Until(t, 20*time.Second, "nobody consumes it, and all hints are with the broker", func() (bool, string) {
		_, consumers := b.ready(ch, slow)
		return consumers == 0 && b.count("writ.outbox") == 0, fmt.Sprintf("%d consumers, %d in the outbox", consumers, b.count("writ.outbox"))
	})
	left := b.count("writ.intents WHERE kind = $1 AND state = 'pending'", slow.Name)
	if left < all/4 {
		t.Fatalf("only %d are left to wait; the test needs a backlog", left)
	}
	if n, _ := b.ready(ch, slow); n == 0 {
		t.Error("no message waits in the broker")
	}
	b.countOutbox()
	b.many(quick, 500)
	b.until("the others are done", 20*time.Second, "count(*) = 500 FROM writ.intents WHERE kind = $1 AND state = 'sent'", quick.Name)
	b.many(slow, 10) // created in the pause
	testkit.Until(t, 20*time.Second, "the new ones are with the broker, too", func() (bool, string) {
		return b.count("writ.outbox") == 0, "not yet"
	})
	// Longer than messages wait in hand for a valve, and than a hint that is put back round and round would stay away.
	began := time.Now()
	testkit.Until(t, 20*time.Second, "time passes", func() (bool, string) { return time.Since(began) > 7*time.Second, "" })
	if n := b.count("writ.written WHERE kind = $1", slow.Name); n != 10 {
		t.Errorf("%d outbox rows of the paused kind were written; want the 10 of the new intents", n)
	}
	if n := b.count("writ.intents WHERE kind = $1 AND state <> 'sent'", slow.Name); n != left+10 {
		t.Errorf("%d wait; want %d", n, left+10)
	}
	b.db.Run(t, "SELECT writ.resume('ann', 'the provider is back', $1)", slow.Name)
	b.until("all are done", 60*time.Second, "count(*) = $2 FROM writ.intents WHERE kind = $1 AND state = 'sent'", slow.Name, all+10)
	for n := range all {
		if want := 1 + map[bool]int{true: 1}[n < 10]; calls.of(n) != want {
			t.Errorf("%d was run %d times; want %d", n, calls.of(n), want)
		}
	}
}

// TestPause_briefly: a pause that ends within moments costs nothing: what was in hand goes on in its order.
func TestPause_briefly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var mu sync.Mutex
	var order []int
	step := make(chan struct{})
	mux := workers.NewMux()
	workers.Handle(mux, job, workers.Handler[args]{Slots: 1, Do: func(_ context.Context, j *workers.Job[args]) error {
		mu.Lock()
		order = append(order, j.Args.N)
		mu.Unlock()
		<-step
		return nil
	}})
	w, _ := b.process(mux, workers.Config{Slots: 8})
	testkit.Until(t, 10*time.Second, "it consumes", func() (bool, string) { return w.Ready() == nil, fmt.Sprint(w.Ready()) }) // what is returned loses its place
	b.many(job, 30)
	b.until("one runs", 10*time.Second, "count(*) = 1 FROM writ.intents WHERE state = 'sending'")
	b.countOutbox()
	for range 3 {
		b.db.Run(t, "SELECT writ.pause('ann', 'to see if it holds', $1)", job.Name)
		b.beats()
		step <- struct{}{}
		b.until("nothing runs", 10*time.Second, "count(*) = 0 FROM writ.intents WHERE state = 'sending'")
		b.db.Run(t, "SELECT writ.resume('ann', 'it holds, so go on', $1)", job.Name)
		b.until("one runs", 10*time.Second, "count(*) = 1 FROM writ.intents WHERE state = 'sending'")
	}
	close(step)
	b.until("all are done", 20*time.Second, "count(*) = 30 FROM writ.intents WHERE state = 'sent'")
	if n := b.count("writ.written"); n > 0 {
		t.Errorf("%d rows were written to the outbox", n)
	}
	for i, n := range order {
		if i != n {
			t.Fatalf("they ran in the order %v", order)
		}
	}
}

// TestPause_shared: kinds that share a queue. One that is paused does not hold up the other, and its hints go round ever
// more rarely.
func TestPause_shared(t *testing.T) {
	t.Parallel()
	b := setup(t)
	one, other := named("test.job.one"), named("test.job.other")
	one.Queue, other.Queue = "test.shared", "test.shared"
	mux := workers.NewMux()
	workers.Handle(mux, one, workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { return nil }})
	workers.Handle(mux, other, workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { return nil }})
	b.process(mux, workers.Config{Slots: 10})
	b.many(one, 1)
	b.until("they are declared", 10*time.Second, "count(*) = 1 FROM writ.intents WHERE state = 'sent'")
	b.db.Run(t, "SELECT writ.pause('ann', 'the provider is down', $1)", one.Name)
	b.beats()
	b.many(one, 300)
	b.many(other, 300)
	began := time.Now()
	b.until("the other is done", 20*time.Second, "count(*) = 300 FROM writ.intents WHERE kind = $1 AND state = 'sent'", other.Name)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	b.db.Run(t, "SELECT writ.resume('ann', 'the provider is back', $1)", one.Name)
	b.until("all are done", 60*time.Second, "count(*) = 301 FROM writ.intents WHERE kind = $1 AND state = 'sent'", one.Name)
}
