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

	"github.com/writhq/writ/dispatch"
	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
	writsql "github.com/writhq/writ/sql"
)

// neighbour is a worker of the relay's process.
type neighbour struct {
	mu      sync.Mutex
	offered map[intent.ID]store.Hint
	take    bool
}

func (n *neighbour) offer(h store.Hint) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.offered == nil {
		n.offered = map[intent.ID]store.Hint{}
	}
	n.offered[h.ID] = h
	return n.take
}

func (n *neighbour) got(id intent.ID) store.Hint {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.offered[id]
}

func (n *neighbour) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.offered)
}

// nearby runs a relay that looks by itself so seldom that only the bell explains what is published soon.
func (b *bench) nearby(n *neighbour) {
	b.t.Helper()
	b.declare()
	r, err := dispatch.New(b.db.Pool, testkit.AMQPURL(b.t), dispatch.Config{Log: testkit.Log(b.t), Poll: time.Minute, Near: n.offer})
	if err != nil {
		b.t.Fatal(err)
	}
	b.run(r)
	testkit.Until(b.t, 20*time.Second, "the relay sleeps", func() (bool, string) { return b.asleep(), "not yet" })
}

// asleep reports whether somebody has the sleeping lock.
func (b *bench) asleep() bool {
	b.t.Helper()
	return testkit.Value[bool](b.t, b.db, `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 1
		AND mode = 'ExclusiveLock' AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`)
}

func (b *bench) createAlone() intent.ID {
	b.t.Helper()
	created, err := ping.CreateAlone(context.Background(), b.db.Pool, args{}, intent.Opts{})
	if err != nil {
		b.t.Fatal(err)
	}
	return created.ID
}

// TestNear_ring: a creation rings with its hint, which is offered to the workers of the relay's process, and goes over the
// broker all the same, whether one of them takes it or not.
func TestNear_ring(t *testing.T) {
	t.Parallel()
	for _, take := range []bool{true, false} {
		t.Run(fmt.Sprintf("taken=%t", take), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			n := &neighbour{take: take}
			b.nearby(n)
			for want := 1; want <= 3; want++ {
				id := b.createAlone()
				testkit.Until(t, 20*time.Second, "the hint is offered", func() (bool, string) { return n.count() == want, fmt.Sprint(n.count()) })
				if got := n.got(id); got != (store.Hint{ID: id, Kind: ping.Name, Op: "run"}) {
					t.Errorf("offered %+v", got)
				}
				b.awaitMessages(want, 20*time.Second)
			}
			if got := b.hinted(); len(got) != 3 {
				t.Errorf("hints in the queue: %v", got)
			}
		})
	}
}

// TestNear_glance: when too many come for each to ring, and hints do not come with the ring, as from SQL written by hand,
// they are seen in the outbox. All go over the broker once.
func TestNear_glance(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := &neighbour{take: true}
	b.nearby(n)
	created := 0
	testkit.Until(t, 30*time.Second, "hints are offered that did not come with a ring", func() (bool, string) {
		for range 20 {
			b.db.Run(t, "INSERT INTO writ.intents (kind) VALUES ($1)", ping.Name)
			created++
		}
		return n.count() >= 20, fmt.Sprint(n.count())
	})
	hinted := map[intent.ID]int{}
	testkit.Until(t, 20*time.Second, "all are published", func() (bool, string) {
		for id, times := range b.hinted() {
			hinted[id] += times
		}
		return len(hinted) == created, fmt.Sprintf("%d of %d", len(hinted), created)
	})
	for id, times := range hinted {
		if times != 1 {
			t.Errorf("%s was published %d times", id, times)
		}
	}
}

// TestNear_sleeps: after a burst the relay goes to sleep, and stops looking at the outbox for the workers of its process: who
// creates then rings. It once went on 250 times a second for as long as nothing came.
func TestNear_sleeps(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare()
	_, watch := b.watched(&neighbour{take: true})
	testkit.Until(t, 30*time.Second, "it has looked at the outbox of a burst", func() (bool, string) {
		if watch.read(&watch.all) == 0 {
			b.burst()
		}
		return watch.read(&watch.all) > 0, "not yet"
	})
	testkit.Until(t, 20*time.Second, "it has slept for five polls", func() (bool, string) { return watch.read(&watch.polls) >= 5, fmt.Sprint(watch.read(&watch.polls)) })
	if n := watch.read(&watch.rude); n > 0 {
		t.Errorf("looked %d times while it slept", n)
	}
}

// TestNear_busyPool: the application has all connections of its pool in use. Nobody can look at the outbox for the workers of
// this process, but what is in it goes on over the broker: the relay does not wait until the look would have given up.
func TestNear_busyPool(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare()
	pool, watch := b.watched(&neighbour{take: true})
	for range pool.Config().MaxConns {
		conn, err := pool.Acquire(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
	}
	testkit.Until(t, 30*time.Second, "it goes on without having looked", func() (bool, string) {
		b.burst()
		return pool.Stat().CanceledAcquireCount() > 0, "it never wanted to look"
	})
	watch.mu.Lock()
	defer watch.mu.Unlock()
	if stood := watch.longest; stood > 8*time.Second { // a look gives up after 10 s
		t.Errorf("the relay stood still for %v", stood)
	}
	if watch.all > 0 {
		t.Errorf("looked %d times without a connection", watch.all)
	}
}

// watched runs a relay whose statements are watched, beside a worker of its process, and returns its pool.
func (b *bench) watched(n *neighbour) (*pgxpool.Pool, *watch) {
	b.t.Helper()
	watch := &watch{}
	config := b.db.Config()
	config.MaxConns = 2
	config.ConnConfig.Tracer = watch
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(pool.Close)
	r, err := dispatch.New(pool, testkit.AMQPURL(b.t), dispatch.Config{Log: testkit.Log(b.t), Poll: 50 * time.Millisecond, Near: n.offer})
	if err != nil {
		b.t.Fatal(err)
	}
	b.run(r)
	return pool, watch
}

// burst creates more at once than the workers are told of one by one, and waits until all are published.
func (b *bench) burst() {
	b.t.Helper()
	b.db.Run(b.t, "INSERT INTO writ.intents (kind) SELECT $1 FROM generate_series(1, 3000)", ping.Name)
	b.awaitEmptyOutbox()
}

// watch counts a relay's looks at the outbox.
type watch struct {
	mu     sync.Mutex
	asleep bool
	all    int // glances
	rude   int // glances while it slept
	polls  int // peeks while it slept

	last    time.Time // when the relay last asked for anything
	longest time.Duration
}

func (w *watch) note(sql string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := time.Now(); sql == writsql.Statement("RelayTake") || sql == writsql.Statement("RelayPeek") {
		if !w.last.IsZero() {
			w.longest = max(w.longest, now.Sub(w.last))
		}
		w.last = now
	}
	switch sql {
	case writsql.Statement("RelaySleep"):
		w.asleep = true
	case writsql.Statement("RelayWake"), writsql.Statement("RelayTake"): // the second where it could not fall asleep
		w.asleep = false
	case writsql.Statement("RelayGlance"):
		w.all++
		if w.asleep {
			w.rude++
		}
	case writsql.Statement("RelayPeek"):
		if w.asleep {
			w.polls++
		}
	}
}

func (w *watch) read(n *int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return *n
}

func (w *watch) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	w.note(d.SQL)
	return ctx
}
func (w *watch) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

func (w *watch) TraceBatchStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceBatchStartData) context.Context {
	for _, q := range d.Batch.QueuedQueries {
		w.note(q.SQL)
	}
	return ctx
}
func (w *watch) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (w *watch) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}

// TestBell_lost: the connection that listens is ended by the server. The relay notices, and is rung again.
func TestBell_lost(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := &neighbour{take: true}
	b.nearby(n)
	ended := testkit.Value[int](t, b.db, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE datname = current_database() AND query LIKE 'LISTEN%'`)
	if ended != 1 {
		t.Fatalf("%d connections listened", ended)
	}
	created := 0
	testkit.Until(t, 20*time.Second, "a hint is offered again", func() (bool, string) {
		b.createAlone()
		created++
		return n.count() > 0, "none yet"
	})
	b.awaitMessages(created, 20*time.Second)
}

// TestBell_paused: a relay that may publish nothing does not have every creation ring for ever: commits that ring take turns.
func TestBell_paused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.nearby(&neighbour{take: true})
	b.db.Run(t, "UPDATE writ.settings SET paused_at = now(), paused_by = 'test', paused_why = 'to see'")
	testkit.Until(t, 30*time.Second, "the relay gives the sleeping lock back", func() (bool, string) {
		for range 20 {
			b.createAlone()
		}
		return !b.asleep(), "it is still asleep"
	})
}

// TestBell_none: a relay that gets no second connection polls, and publishes.
func TestBell_none(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare()
	config, err := pgxpool.ParseConfig(b.db.URL)
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.User, config.ConnConfig.Password = "writ_test_"+strings.ReplaceAll(intent.NewID().String(), "-", ""), "secret"
	b.db.Run(t, "CREATE ROLE "+config.ConnConfig.User+" LOGIN PASSWORD 'secret' CONNECTION LIMIT 1 IN ROLE writ_relay")
	t.Cleanup(func() { b.db.Run(t, "DROP ROLE "+config.ConnConfig.User) })
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	r, err := dispatch.New(pool, testkit.AMQPURL(t), dispatch.Config{Log: testkit.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	b.run(r)
	for want := 1; want <= 3; want++ {
		b.createAlone()
		b.awaitMessages(want, 20*time.Second)
	}
}
