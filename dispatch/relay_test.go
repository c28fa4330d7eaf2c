package dispatch_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/goleak"

	"github.com/writhq/writ/dispatch"
	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/rabbit"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type args struct{}

var ping = intent.Kind[args]{Name: "test.relay.ping"}

// bench is a database and a broker's queue for one kind.
type bench struct {
	t     *testing.T
	db    *testkit.DB
	ch    *amqp.Channel
	queue string
}

func setup(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, db: testkit.Database(t)}
	settings, err := store.New(b.db.Pool).Settings(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if b.queue, err = rabbit.QueueName(settings.Installation, ping.Name); err != nil {
		t.Fatal(err)
	}
	conn, err := amqp.Dial(testkit.AMQPURL(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if b.ch, err = conn.Channel(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = b.ch.QueueDelete(b.queue, false, false, false) })
	return b
}

func (b *bench) declare() {
	b.t.Helper()
	if _, err := b.ch.QueueDeclare(b.queue, true, false, false, false, amqp.Table{"x-queue-type": "quorum"}); err != nil {
		b.t.Fatal(err)
	}
}

// messages is how many the queue holds.
func (b *bench) messages() int {
	b.t.Helper()
	q, err := b.ch.QueueDeclarePassive(b.queue, true, false, false, false, amqp.Table{"x-queue-type": "quorum"})
	if err != nil {
		b.t.Fatal(err)
	}
	return q.Messages
}

// hinted empties the queue and returns how often each intent was in it.
func (b *bench) hinted() map[intent.ID]int {
	b.t.Helper()
	out := map[intent.ID]int{}
	for {
		d, ok, err := b.ch.Get(b.queue, true)
		if err != nil {
			b.t.Fatal(err)
		}
		if !ok {
			return out
		}
		frame, err := rabbit.DecodeFrame(d.Body)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, h := range frame {
			out[h.ID]++
		}
	}
}

func (b *bench) awaitMessages(n int, most time.Duration) {
	b.t.Helper()
	testkit.Until(b.t, most, fmt.Sprintf("%d messages in the queue", n), func() (bool, string) {
		got := b.messages()
		return got == n, fmt.Sprint(got)
	})
}

// relay runs one until the test ends, or until the returned function is called.
func (b *bench) relay(database, broker string) (r *dispatch.Relay, stop func()) {
	b.t.Helper()
	pool, err := pgxpool.New(context.Background(), database)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(pool.Close)
	if r, err = dispatch.New(pool, broker, dispatch.Config{Log: testkit.Log(b.t)}); err != nil {
		b.t.Fatal(err)
	}
	return r, b.run(r)
}

// run runs a relay until the test ends, or until the returned function is called.
func (b *bench) run(r *dispatch.Relay) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Errorf("Run: %v", err)
		}
	})
	b.t.Cleanup(stop)
	return stop
}

func (b *bench) create(n int) []intent.Created {
	b.t.Helper()
	var created []intent.Created
	err := pgx.BeginFunc(context.Background(), b.db, func(tx pgx.Tx) (err error) {
		created, err = ping.CreateMany(context.Background(), tx, make([]intent.One[args], n))
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return created
}

func (b *bench) outbox() int {
	return testkit.Value[int](b.t, b.db, "SELECT count(*) FROM writ.outbox")
}

func (b *bench) awaitEmptyOutbox() {
	b.t.Helper()
	testkit.Until(b.t, 20*time.Second, "the outbox is empty", func() (bool, string) {
		n := b.outbox()
		return n == 0, fmt.Sprint(n)
	})
}

func TestPublish(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare()
	b.relay(b.db.URL, testkit.AMQPURL(t))
	b.create(2500)
	b.awaitEmptyOutbox()
	if n := b.messages(); n != 2500 {
		t.Errorf("%d messages for 2,500 hints of a kind whose run time nobody knows; want each alone", n)
	}
}

func TestPublish_framesShortKinds(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		ms    float64
		frame int
	}{"brief": {0.5, 4 * 31}, "short": {2, 31}, "long": {60, 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.declare()
			b.db.Run(t, "INSERT INTO writ.kinds (name, queue, class, run_ms) VALUES ($1, $1, 'manual', $2)", ping.Name, test.ms)
			b.create(1000)
			b.relay(b.db.URL, testkit.AMQPURL(t))
			b.awaitEmptyOutbox()
			if n, want := b.messages(), (1000+test.frame-1)/test.frame; n != want {
				t.Errorf("%d messages for a backlog of 1,000; want %d, frames of %d", n, want, test.frame)
			}
			if got := b.hinted(); len(got) != 1000 {
				t.Errorf("hints for %d intents; want 1,000", len(got))
			}
		})
	}
}

// TestPublish_neverRun: a kind that never ran, for its workers are down, does not make the batches of all others small. What
// goes in one batch shares frames, of a batch's size.
func TestPublish_neverRun(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare()
	b.db.Run(t, `INSERT INTO writ.kinds (name, queue, class, run_ms) VALUES ($1, $1, 'manual', 2), ('test.relay.never', $1, 'manual', NULL)`, ping.Name)
	const known, never = 900, 10
	b.create(known)
	// One in 90, so each batch has both.
	b.db.Run(t, `UPDATE writ.outbox o SET kind = 'test.relay.never'
		FROM (SELECT oid, row_number() OVER (ORDER BY oid) AS n FROM writ.outbox) r WHERE r.oid = o.oid AND r.n % 90 = 1`)
	b.relay(b.db.URL, testkit.AMQPURL(t))
	b.awaitEmptyOutbox()
	const frame = known / 32
	if n, want := b.messages(), never+(known-never+frame-1)/frame; n != want {
		t.Errorf("%d messages for %d hints, %d of which travel singly; want %d, the others in frames of %d", n, known, never, want, frame)
	}
}

// TestPublish_unknownQueue: kept with backoff, explained by why, and sent at once when somebody declares the kind.
func TestPublish_unknownQueue(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.relay(b.db.URL, testkit.AMQPURL(t))
	id := b.create(1)[0].ID
	testkit.Until(t, 10*time.Second, "refused", func() (bool, string) {
		n := testkit.Value[int](t, b.db, "SELECT failures FROM writ.outbox")
		return n > 0, fmt.Sprint(n)
	})
	why, err := intent.Why(context.Background(), b.db, id)
	if err != nil || !strings.Contains(why, "no worker ever declared") {
		t.Errorf("why says %q, %v", why, err)
	}
	b.declare()
	b.db.Run(t, "UPDATE writ.outbox SET due_at = now() + interval '1 h'")
	b.db.Run(t, "INSERT INTO writ.kinds (name, queue, class) VALUES ($1, $1, 'manual')", ping.Name)
	b.awaitMessages(1, 15*time.Second)
}

// TestPublish_badRow: an event for an exchange that does not exist closes the channel; the rows beside it are published.
func TestPublish_badRow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare()
	event := func(exchange, headers string) {
		b.db.Run(t, "INSERT INTO writ.outbox (due_at, exchange, headers, payload) VALUES (now(), $1, $2, 'x')", exchange, headers)
	}
	b.create(20)
	event("writ.test.no-such-exchange", `{}`)
	event("amq.fanout", `{"a": 1, "b": [true, null]}`)
	event("amq.fanout", `{"n": 1e400}`) // legal JSON that no float holds
	b.create(20)
	b.relay(b.db.URL, testkit.AMQPURL(t))
	testkit.Until(t, 20*time.Second, "only the bad rows are left, with their reasons", func() (bool, string) {
		n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.outbox WHERE failures > 0 AND (last_error LIKE '%404%' OR last_error LIKE 'headers%')")
		return n == 2 && b.outbox() == 2, fmt.Sprintf("%d, outbox %d", n, b.outbox())
	})
	// Those whose confirms were lost with the channel came twice.
	if got := b.hinted(); len(got) != 40 {
		t.Errorf("hints for %d intents; want all 40", len(got))
	}
}

// TestDelay: due_at is the timer.
func TestDelay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare()
	b.relay(b.db.URL, testkit.AMQPURL(t))
	b.db.Run(t, "INSERT INTO writ.intents (kind, run_at) VALUES ($1, now() + interval '1.5 s')", ping.Name)
	b.create(1)
	b.awaitMessages(1, 5*time.Second)
	b.awaitMessages(2, 5*time.Second)
	if late := testkit.Value[bool](t, b.db, "SELECT now() < max(run_at) FROM writ.intents"); late {
		t.Error("published before its time")
	}
}

// TestOpenTransaction: rows that commit long after later ones are found behind the low-water mark.
func TestOpenTransaction(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare()
	b.relay(b.db.URL, testkit.AMQPURL(t))
	ctx := context.Background()
	tx, err := b.db.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ping.Create(ctx, tx, args{}, intent.Opts{}); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 30; n++ { // the mark moves on
		b.create(1)
		b.awaitMessages(n, 5*time.Second)
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	b.awaitMessages(31, 5*time.Second)
}

// TestLostAnswer: the relay's commit may be lost; then all is published again, and nothing is left out.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"before", "answer"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.declare()
			proxy, url := testkit.ProxyTo(t, b.db.URL)
			inject, want := proxy.CutBefore, 20 // published, cut, published again
			if fault == "answer" {
				inject, want = proxy.LoseAnswer, 10
			}
			fired := inject("DELETE FROM writ.outbox")
			b.create(10)
			b.relay(url+"&default_query_exec_mode=cache_describe", testkit.AMQPURL(t))
			<-fired
			b.awaitEmptyOutbox()
			b.awaitMessages(want, 5*time.Second)
		})
	}
}

// TestBrokerAway: the outbox absorbs, readiness tells, and the backlog drains when the broker is back.
func TestBrokerAway(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare()
	proxy, url := testkit.ProxyTo(t, testkit.AMQPURL(t))
	r, _ := b.relay(b.db.URL, url)
	b.create(1)
	b.awaitMessages(1, 10*time.Second)
	proxy.Refuse()
	testkit.Until(t, 10*time.Second, "not ready", func() (bool, string) { return r.Ready() != nil, "ready" })
	b.create(500)
	if n := b.outbox(); n != 500 {
		t.Errorf("outbox holds %d; want 500", n)
	}
	proxy.Accept()
	b.awaitMessages(501, 30*time.Second)
	b.awaitEmptyOutbox()
}

// TestSleep: with every relay asleep a creation rings; a relay that is busy is not rung for.
func TestSleep(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare()
	b.relay(b.db.URL, testkit.AMQPURL(t))
	b.relay(b.db.URL, testkit.AMQPURL(t))
	asleep := func() (bool, string) {
		held := testkit.Value[bool](t, b.db, `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = 1465010516
			AND objid = 1 AND mode = 'ExclusiveLock' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`)
		return held, "nobody asleep"
	}
	for n := 1; n <= 20; n++ {
		testkit.Until(t, 10*time.Second, "a relay sleeps", asleep)
		b.create(1)
		b.awaitMessages(n, 5*time.Second)
	}
}

// TestFrozenRelay: a relay that froze while it held rows does not hold them for ever, and meanwhile others do not ask for
// them at full speed.
func TestFrozenRelay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare()
	b.create(10)
	conn, err := pgx.Connect(context.Background(), b.db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	now := time.Now()
	taken, err := store.NewOutbox(conn).Take(context.Background(), now.Add(-time.Hour), now.Add(time.Hour), 100)
	if err != nil || len(taken.Rows) != 10 {
		t.Fatalf("took %d, %v", len(taken.Rows), err)
	}
	var bound string
	if err := conn.QueryRow(context.Background(), "SHOW idle_in_transaction_session_timeout").Scan(&bound); err != nil || bound != "30s" {
		t.Errorf("the server bounds a frozen relay's transaction by %q, %v", bound, err)
	}
	transactions := func() int {
		return testkit.Value[int](t, b.db, "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()")
	}
	b.relay(b.db.URL, testkit.AMQPURL(t))
	before, began := transactions(), time.Now()
	testkit.Until(t, 20*time.Second, "three seconds of looking", func() (bool, string) { return time.Since(began) > 3*time.Second, "" })
	if n := transactions() - before; n > 1500 {
		t.Errorf("%d transactions in 3 s for rows that another relay holds", n)
	}
	taken.Release(context.Background())
	b.awaitMessages(10, 10*time.Second)
}

// TestPaused: an installation that is paused, or a copy that nobody adopted, publishes nothing.
func TestPaused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare()
	b.db.Run(t, "UPDATE writ.settings SET fingerprint = 'another database'")
	b.create(5)
	r, _ := b.relay(b.db.URL, testkit.AMQPURL(t))
	testkit.Until(t, 10*time.Second, "the relay says why it does nothing", func() (bool, string) {
		err := r.Ready()
		return err != nil && strings.Contains(err.Error(), "writ adopt"), fmt.Sprint(err)
	})
	if n := b.messages(); n != 0 {
		t.Errorf("%d messages from a copy", n)
	}
	b.db.Run(t, "SELECT writ.adopt('ann', 'this is the real one now')")
	b.awaitMessages(5, 10*time.Second)
}

func TestNew_reportsAllFaults(t *testing.T) {
	t.Parallel()
	_, err := dispatch.New(nil, "", dispatch.Config{Batch: -1, Poll: -1, ConfirmTimeout: -1})
	for _, part := range []string{"Batch", "Poll", "ConfirmTimeout"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error %v does not tell of %s", err, part)
		}
	}
}
