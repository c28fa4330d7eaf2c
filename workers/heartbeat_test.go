package workers

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/proof/wire"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

// beater is a worker that beats so seldom that a test sees only the beats that it asks for.
func beater(t *testing.T, url string) *Pool {
	t.Helper()
	pool, err := pgxpool.New(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	mux := NewMux()
	Handle(mux, intent.Kind[int]{Name: "test.beat.run"}, Handler[int]{Do: func(context.Context, *Job[int]) error { return nil }})
	w, err := New(pool, testkit.AMQPURL(t), mux, Config{Heartbeat: 10 * time.Minute, TTL: time.Hour, Log: testkit.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// start runs it until the test ends, or until the returned function is called; that returns Run's error.
func start(t *testing.T, w *Pool) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	var err error
	go func() { defer close(ended); err = w.Run(ctx) }()
	stop = func() error {
		cancel()
		<-ended
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}

// await waits for something that must happen.
func await(t *testing.T, what string, happened <-chan struct{}) {
	t.Helper()
	select {
	case <-happened:
	case <-time.After(20 * time.Second):
		t.Fatalf("not met: %s", what)
	}
}

// TestBeat_onLostConnection: a beat that finds the connection of the one before lost is sent again at once on a new one: an
// interval without a beat would bring the worker near to being taken for dead.
func TestBeat_onLostConnection(t *testing.T) {
	t.Parallel()
	const beat = "INSERT INTO writ.workers"
	faults := map[string]wire.Matcher{
		"before it is sent":       wire.Executes(beat),
		"before its answer":       wire.Committed(beat),
		"after, in what it reads": wire.Executes("FROM writ.flow WHERE paused OR"),
	}
	for name, at := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := testkit.Database(t)
			proxy, url := testkit.ProxyTo(t, db.URL)
			w := beater(t, url)
			start(t, w)
			testkit.Until(t, 20*time.Second, "it lives", func() (bool, string) { return w.pulse.alive(), "no beat" })
			again := proxy.On(wire.Rule{At: wire.Executes(beat), Nth: 2, Do: wire.Pass})
			lost := proxy.On(wire.Rule{At: at, Do: wire.Cut})
			w.beatSoon()
			await(t, "the connection is lost", lost)
			await(t, "the beat is sent again", again)
		})
	}
}

// failures counts the beats that failed, by the log. It is safe for concurrent use.
type failures struct{ atomic.Int32 }

func (f *failures) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("heartbeat failed")) {
		f.Add(1)
	}
	return len(line), nil
}

// TestBeat_whileAway: while the database is away a beat is sent again once; from then on each is sent when it is due, and only
// then.
func TestBeat_whileAway(t *testing.T) {
	t.Parallel()
	proxy, url := testkit.ProxyTo(t, testkit.Database(t).URL)
	w := beater(t, url)
	var failed failures
	w.cfg.Log = slog.New(slog.NewTextHandler(&failed, nil))
	start(t, w)
	testkit.Until(t, 20*time.Second, "it lives", func() (bool, string) { return w.pulse.alive(), "no beat" })
	proxy.Refuse()
	for asked := range int32(10) {
		w.beatSoon()
		least := asked + 2 // the first one twice
		testkit.Until(t, 20*time.Second, fmt.Sprint(least, " beats have failed"), func() (bool, string) {
			n := failed.Load()
			return n >= least, fmt.Sprint(n)
		})
		if n := failed.Load(); n > least+1 { // the beat that nobody asked for may have been under way, too
			t.Fatalf("%d beats failed; want %d or %d", n, least, least+1)
		}
	}
	proxy.Accept()
	before := w.pulse.confirmed.Load()
	w.beatSoon()
	testkit.Until(t, 20*time.Second, "it beats again", func() (bool, string) { return w.pulse.confirmed.Load() != before, "no beat" })
}

// TestRun_endsEarly: a worker that never begins leaves no connection behind for its heartbeats, and does not wait for one
// either.
func TestRun_endsEarly(t *testing.T) {
	t.Parallel()
	t.Run("while it connects", func(t *testing.T) {
		t.Parallel()
		silent, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { silent.Close() })
		var accepted, ended atomic.Int32
		go func() {
			for {
				conn, err := silent.Accept()
				if err != nil {
					return
				}
				accepted.Add(1)
				go func() {
					defer ended.Add(1)
					defer conn.Close()
					_, _ = io.Copy(io.Discard, conn)
				}()
			}
		}()
		w := beater(t, "postgres://writ@"+silent.Addr().String()+"/writ?sslmode=disable")
		stop := start(t, w)
		testkit.Until(t, 20*time.Second, "it connects to register, and to beat", func() (bool, string) {
			return accepted.Load() >= 2, fmt.Sprint(accepted.Load())
		})
		if err := stop(); err != nil {
			t.Error(err)
		}
		w.pool.Close()
		testkit.Until(t, 20*time.Second, "all connections are closed", func() (bool, string) {
			return ended.Load() == accepted.Load(), fmt.Sprint(ended.Load(), " of ", accepted.Load())
		})
	})
	t.Run("in another application's database", func(t *testing.T) {
		t.Parallel()
		db := testkit.Database(t)
		if err := store.New(db.Pool).Own(context.Background(), "shop"); err != nil {
			t.Fatal(err)
		}
		proxy, url := testkit.ProxyTo(t, db.URL)
		connected := make(chan struct{})
		goOn := sync.OnceFunc(func() { close(connected) })
		defer goOn()
		proxy.On(wire.Rule{At: wire.Executes("coalesce(application, '')"), Do: wire.Call(func() { <-connected }, wire.Pass)})
		both := proxy.On(wire.Rule{At: wire.Committed("fingerprint = writ.fingerprint()"), Nth: 2, Do: wire.Pass})
		w := beater(t, url+"&application_name=beater")
		ended := make(chan error, 1)
		go func() { ended <- w.Run(t.Context()) }()
		await(t, "it has connected to register, and to beat", both)
		goOn()
		if err := <-ended; err == nil {
			t.Error("it ran")
		}
		w.pool.Close()
		testkit.Until(t, 5*time.Second, "all connections are closed", func() (bool, string) {
			n := testkit.Value[int](t, db, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'beater'")
			return n == 0, fmt.Sprint(n)
		})
	})
}
