package workers_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/writhq/writ/dispatch"
	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

func TestMain(m *testing.M) {
	switch os.Getenv("WRIT_TEST_CHILD") {
	case "breaker":
		child()
	case "probed":
		probedChild()
	}
	goleak.VerifyTestMain(m)
}

type args struct {
	N int `json:"n"`
}

var job = intent.Kind[args]{
	Name: "test.job.run", Timeout: 10 * time.Second, MaxAttempts: 3,
	Backoff: intent.Backoff{Min: time.Millisecond, Max: 20 * time.Millisecond},
}

// bench is a database with a relay; tests add workers.
type bench struct {
	t  *testing.T
	db *testkit.DB
}

func setup(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, db: testkit.Database(t)}
	relay, err := dispatch.New(b.db.Pool, testkit.AMQPURL(t), dispatch.Config{Log: testkit.Log(t), Poll: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	b.run(relay.Run)
	return b
}

// run runs a part until the test ends, or until the returned function is called.
func (b *bench) run(part func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- part(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Errorf("Run: %v", err)
		}
	})
	b.t.Cleanup(stop)
	return stop
}

// work starts a worker with one handler for job, on a pool of its own through the given URL.
func (b *bench) work(url string, h workers.Handler[args], kinds ...intent.Kind[args]) (*workers.Pool, func()) {
	b.t.Helper()
	pool, err := pgxpool.New(context.Background(), url)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(pool.Close)
	mux := workers.NewMux()
	for _, k := range append(kinds, job)[:max(1, len(kinds))] {
		workers.Handle(mux, k, h)
	}
	w, err := workers.New(pool, testkit.AMQPURL(b.t), mux, workers.Config{
		Slots: 10, Heartbeat: 50 * time.Millisecond, TTL: time.Second, Drain: 5 * time.Second, Log: testkit.Log(b.t),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return w, b.run(w.Run)
}

func (b *bench) create(k intent.Kind[args], n int) intent.ID {
	b.t.Helper()
	var created intent.Created
	err := pgx.BeginFunc(context.Background(), b.db, func(tx pgx.Tx) (err error) {
		created, err = k.Create(context.Background(), tx, args{n}, intent.Opts{})
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return created.ID
}

func (b *bench) await(id intent.ID, status string) intent.Intent {
	b.t.Helper()
	var got intent.Intent
	testkit.Until(b.t, 20*time.Second, fmt.Sprintf("%s is %s", id, status), func() (bool, string) {
		var err error
		if got, err = intent.Get(context.Background(), b.db, id); err != nil {
			b.t.Fatal(err)
		}
		return got.Status == status, got.Status
	})
	return got
}

// events are the log's, in order.
func (b *bench) events(id intent.ID) []string {
	b.t.Helper()
	rows, err := b.db.Query(context.Background(), "SELECT event FROM writ.log WHERE intent_id = $1 ORDER BY id", id)
	if err != nil {
		b.t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// tally counts calls by argument. Safe for concurrent use.
type tally struct {
	mu sync.Mutex
	n  map[int]int
}

func (c *tally) add(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[int]int{}
	}
	c.n[n]++
	return c.n[n]
}

func (c *tally) of(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[n]
}

func TestDone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Run(t, "CREATE TABLE receipts (id uuid PRIMARY KEY)")
	const fine, failing, flaky, panicking = 1, 2, 3, 4
	var hooks tally
	b.work(b.db.URL, workers.Handler[args]{Do: func(_ context.Context, j *workers.Job[args]) error {
		return j.Done(func(ctx context.Context, tx pgx.Tx) error {
			n := hooks.add(j.Args.N)
			if _, err := tx.Exec(ctx, "INSERT INTO receipts VALUES ($1)", j.ID()); err != nil {
				return err
			}
			switch {
			case j.Args.N == failing, j.Args.N == flaky && n < 3:
				return errors.New("receipt refused")
			case j.Args.N == panicking:
				panic("hook")
			}
			return nil
		})
	}})
	ids := map[int]intent.ID{}
	for _, n := range []int{fine, failing, flaky, panicking} {
		ids[n] = b.create(job, n)
	}
	b.await(ids[fine], "sent")
	b.await(ids[flaky], "sent")
	for _, n := range []int{failing, panicking} {
		got := b.await(ids[n], "ambiguous")
		if got.FlagReason == nil || *got.FlagReason != "hook-failed" {
			t.Errorf("flag reason %v; want hook-failed", got.FlagReason)
		}
		if hooks.of(n) != 5 {
			t.Errorf("hook was called %d times; want 5", hooks.of(n))
		}
	}
	if n := testkit.Value[int](t, b.db, "SELECT count(*) FROM receipts"); n != 2 {
		t.Errorf("%d receipts; want those of the two that are sent", n)
	}
}

func TestOnError(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Run(t, "CREATE TABLE failures (id uuid, cause text)")
	kind := job
	kind.Name = "test.job.fail"
	recovering := workers.Handler[args]{
		Do: func(_ context.Context, j *workers.Job[args]) error {
			if j.Args.N == 1 {
				return workers.NotDone(fmt.Errorf("try %d\x00 \xff", j.Attempt()))
			}
			return errors.New("who knows")
		},
		OnError: func(ctx context.Context, tx pgx.Tx, j *workers.Job[args], cause error) error {
			_, err := tx.Exec(ctx, "INSERT INTO failures VALUES ($1, replace($2, E'\\uFFFD', ''))", j.ID(), fmt.Sprintf("%.5s", cause.Error()))
			return err
		},
	}
	b.work(b.db.URL, recovering, kind)
	spent := b.create(kind, 1)
	got := b.await(spent, "error")
	if got.Attempt != 3 {
		t.Errorf("%d attempts; want 3", got.Attempt)
	}
	if diff := cmp.Diff([]string{"retried", "retried", "failed"}, b.events(spent)); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
	// A person's verdict ends in error too; the recovery function runs in a worker, which has the code.
	given := b.create(kind, 2)
	seen := b.await(given, "ambiguous")
	if _, err := intent.GiveUp(context.Background(), b.db, intent.Verdict{ID: given, Seen: seen.Position(), Actor: "ann", Why: "nobody will ever know"}); err != nil {
		t.Fatal(err)
	}
	testkit.Until(t, 10*time.Second, "recovered", func() (bool, string) {
		e := b.events(given)
		return e[len(e)-1] == "recovered", fmt.Sprint(e)
	})
	if n := testkit.Value[int](t, b.db, "SELECT count(*) FROM failures WHERE id = ANY ($1)", []intent.ID{spent, given}); n != 2 {
		t.Errorf("the recovery function ran %d times; want once for each", n)
	}
}

func TestArgs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.work(b.db.URL, workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { return nil }})
	id := testkit.Value[intent.ID](t, b.db, `INSERT INTO writ.intents (kind, args) VALUES ($1, '{"n": "seven"}') RETURNING id`, job.Name)
	if got := b.await(id, "error"); got.Error == nil {
		t.Error("no error text for arguments that do not fit")
	}
}

func TestSnooze(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var calls tally
	b.work(b.db.URL, workers.Handler[args]{Do: func(_ context.Context, j *workers.Job[args]) error {
		if calls.add(0) < 6 { // more often than there are attempts
			return workers.Snooze(time.Millisecond)
		}
		return nil
	}})
	if got := b.await(b.create(job, 0), "sent"); got.Attempt != 1 {
		t.Errorf("attempt %d; want 1: snoozes are free", got.Attempt)
	}
}

// TestTimeout: a handler that ignores its context keeps slot and row; the row is flagged overdue, and late truth counts.
func TestTimeout(t *testing.T) {
	t.Parallel()
	b := setup(t)
	kind := job
	kind.Name, kind.Timeout = "test.job.hang", 100*time.Millisecond
	release := make(chan struct{})
	defer close(release)
	b.work(b.db.URL, workers.Handler[args]{Do: func(ctx context.Context, j *workers.Job[args]) error {
		<-ctx.Done()
		if j.Args.N == 1 {
			<-release
		}
		if j.Args.N == 2 {
			return nil
		}
		return ctx.Err()
	}}, kind)
	stuck, late, timedOut := b.create(kind, 1), b.create(kind, 2), b.create(kind, 3)
	b.await(late, "sent")
	if got := b.await(timedOut, "ambiguous"); *got.FlagReason != "timeout" {
		t.Errorf("reason %s; want timeout", *got.FlagReason)
	}
	if got := b.await(stuck, "ambiguous"); *got.FlagReason != "overdue" {
		t.Errorf("reason %s; want overdue", *got.FlagReason)
	}
	testkit.Until(t, 5*time.Second, "the heartbeat tells of the stuck handler", func() (bool, string) {
		n := testkit.Value[int](t, b.db, "SELECT coalesce(sum(stuck), 0) FROM writ.workers")
		return n == 1, fmt.Sprint(n)
	})
	release <- struct{}{}
	testkit.Until(t, 5*time.Second, "its own report says more", func() (bool, string) {
		got := b.await(stuck, "ambiguous")
		return *got.FlagReason == "timeout", *got.FlagReason
	})
}

// TestDrain: running handlers go on, nothing new is taken, and the worker's row is gone.
func TestDrain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	entered, release := make(chan struct{}), make(chan struct{})
	w, stop := b.work(b.db.URL, workers.Handler[args]{Do: func(ctx context.Context, _ *workers.Job[args]) error {
		entered <- struct{}{}
		<-release
		return ctx.Err()
	}})
	first := b.create(job, 1)
	<-entered
	go func() {
		testkit.Until(t, 5*time.Second, "draining shows", func() (bool, string) {
			return testkit.Value[bool](t, b.db, "SELECT coalesce(bool_or(draining), true) FROM writ.workers WHERE id = $1", w.ID()), ""
		})
		close(release)
	}()
	stop()
	if got := b.await(first, "sent"); got.Attempt != 1 {
		t.Errorf("attempt %d; want 1", got.Attempt)
	}
	if n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.workers"); n != 0 {
		t.Errorf("%d worker rows after a clean stop", n)
	}
}

// TestHints: stale, doubled, early and foreign hints are harmless.
func TestHints(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var calls tally
	b.work(b.db.URL, workers.Handler[args]{Do: func(_ context.Context, j *workers.Job[args]) error {
		calls.add(j.Args.N)
		return nil
	}})
	id := b.create(job, 1)
	hint := func(id intent.ID, epoch int) {
		b.db.Run(t, "INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) VALUES (now(), $1, $2, $3, 'run')", job.Name, id, epoch)
	}
	for range 20 {
		hint(id, 0)
		hint(id, 1)
		hint(intent.NewID(), 0) // of no intent
	}
	b.await(id, "sent")
	var later intent.ID
	err := pgx.BeginFunc(context.Background(), b.db, func(tx pgx.Tx) error {
		c, err := job.Create(context.Background(), tx, args{2}, intent.Opts{RunAt: time.Now().Add(time.Second)})
		later = c.ID
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	hint(later, 0) // too early
	got := b.await(later, "sent")
	if got.StartedAt.Before(got.RunAt) {
		t.Errorf("started %v before its time", got.RunAt.Sub(*got.StartedAt))
	}
	testkit.Until(t, 10*time.Second, "the outbox is empty", func() (bool, string) {
		n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.outbox")
		return n == 0, fmt.Sprint(n)
	})
	if calls.of(1) != 1 || calls.of(2) != 1 {
		t.Errorf("ran %d and %d times; want once each", calls.of(1), calls.of(2))
	}
}

// TestLockedRow: somebody's open transaction on one row holds up that row alone.
func TestLockedRow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	locked := b.create(job, 0)
	tx, err := b.db.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(context.Background(), "SELECT FROM writ.intents WHERE id = $1 FOR UPDATE", locked); err != nil {
		t.Fatal(err)
	}
	b.work(b.db.URL, workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { return nil }})
	for n := range 50 {
		b.await(b.create(job, n), "sent")
	}
	if err := tx.Rollback(context.Background()); err != nil {
		t.Fatal(err)
	}
	b.await(locked, "sent")
}

// faulty is a worker whose database connection breaks at a chosen statement.
func (b *bench) faulty(h workers.Handler[args], kinds ...intent.Kind[args]) *testkit.Proxy {
	proxy, url := testkit.ProxyTo(b.t, b.db.URL)
	b.work(url+"&default_query_exec_mode=cache_describe", h, kinds...)
	return proxy
}

// TestLostAnswers: the connection is cut before a claim or an outcome is sent, or after it was committed and before the
// answer came. Each intent runs once and ends as its handler said.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	faults := map[string]func(*testkit.Proxy) <-chan struct{}{
		"before the claim":   func(p *testkit.Proxy) <-chan struct{} { return p.CutBefore("'attempted'") },
		"claim's answer":     func(p *testkit.Proxy) <-chan struct{} { return p.LoseAnswer("'attempted'") },
		"before the outcome": func(p *testkit.Proxy) <-chan struct{} { return p.CutBefore("event = 'succeeded'") },
		"outcome's answer":   func(p *testkit.Proxy) <-chan struct{} { return p.LoseAnswer("event = 'succeeded'") },
		"retry's answer":     func(p *testkit.Proxy) <-chan struct{} { return p.LoseAnswer("event = 'retried'") },
		"before the retry":   func(p *testkit.Proxy) <-chan struct{} { return p.CutBefore("event = 'retried'") },
	}
	for name, inject := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			var calls tally
			proxy := b.faulty(workers.Handler[args]{Do: func(_ context.Context, j *workers.Job[args]) error {
				if calls.add(j.Args.N) == 1 && j.Args.N%2 == 1 {
					return workers.NotDone(errors.New("once more"))
				}
				return nil
			}})
			b.await(b.create(job, 0), "sent") // the worker is well
			fired := inject(proxy)
			ids := []intent.ID{b.create(job, 1), b.create(job, 2), b.create(job, 3), b.create(job, 4)}
			for _, id := range ids {
				b.await(id, "sent")
			}
			select {
			case <-fired:
			case <-time.After(10 * time.Second):
				t.Fatal("the fault was never met")
			}
			for n := 1; n <= 4; n++ {
				if want := 1 + n%2; calls.of(n) != want {
					t.Errorf("job %d ran %d times; want %d", n, calls.of(n), want)
				}
			}
			if n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.log WHERE event IN ('late-report', 'flagged')"); n != 0 {
				t.Errorf("%d late reports or flags for outcomes that were applied", n)
			}
		})
	}
}

// TestOutage: a worker that cannot reach the database starts nothing new, running handlers go on, and their outcomes are
// written when it is back.
func TestOutage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	entered, release := make(chan struct{}), make(chan struct{})
	proxy, url := testkit.ProxyTo(t, b.db.URL)
	w, _ := b.work(url, workers.Handler[args]{Do: func(ctx context.Context, _ *workers.Job[args]) error {
		entered <- struct{}{}
		<-release
		return ctx.Err()
	}})
	id := b.create(job, 1)
	<-entered
	proxy.Refuse()
	testkit.Until(t, 10*time.Second, "it is not ready any more", func() (bool, string) { return w.Ready() != nil, "ready" })
	other := b.create(job, 2)
	release <- struct{}{}
	proxy.Accept()
	b.await(id, "sent")
	<-entered
	release <- struct{}{}
	b.await(other, "sent")
	if events := b.events(id); len(events) != 0 {
		t.Errorf("a database outage left %v in the log of a healthy call", events)
	}
}

// TestVerdictFirst: a verdict that came before the outcome stands, and the outcome is kept as a late report.
func TestVerdictFirst(t *testing.T) {
	t.Parallel()
	b := setup(t)
	entered, release := make(chan struct{}), make(chan struct{})
	b.work(b.db.URL, workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error {
		entered <- struct{}{}
		<-release
		return nil
	}})
	id := b.create(job, 1)
	<-entered
	b.db.Run(t, "UPDATE writ.intents SET flagged_at = now(), flag_reason = 'worker-died' WHERE id = $1", id)
	seen := b.await(id, "ambiguous")
	if _, err := intent.GiveUp(context.Background(), b.db, intent.Verdict{ID: id, Seen: seen.Position(), Actor: "ann", Why: "it took far too long"}); err != nil {
		t.Fatal(err)
	}
	// An earlier, lesser late report, as of a deadline that passed meanwhile, does not stand in for the decisive one.
	b.db.Run(t, "INSERT INTO writ.log (intent_id, epoch, event, actor, worker_id, why) SELECT id, 1, 'late-report', 'worker', worker_id, 'flagged' FROM writ.intents WHERE id = $1", id)
	close(release)
	testkit.Until(t, 10*time.Second, "a late report", func() (bool, string) {
		n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.log WHERE intent_id = $1 AND event = 'late-report' AND why = 'succeeded'", id)
		return n == 1, fmt.Sprint(b.events(id))
	})
	b.await(id, "error")
}

// rude is an error that panics when it is asked, as a typed nil pointer does.
type rude struct{ text string }

func (e *rude) Error() string { return e.text }

// TestRudeHandlers: neither an error that panics nor a handler that ends its goroutine takes the process with it.
func TestRudeHandlers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.work(b.db.URL, workers.Handler[args]{Do: func(_ context.Context, j *workers.Job[args]) error {
		switch j.Args.N {
		case 1:
			var none *rude
			return none
		case 2:
			runtime.Goexit()
		}
		return nil
	}})
	nilError, gone := b.create(job, 1), b.create(job, 2)
	for id, reason := range map[intent.ID]string{nilError: "panic", gone: "unknown"} {
		if got := b.await(id, "ambiguous"); *got.FlagReason != reason {
			t.Errorf("flag reason %s; want %s", *got.FlagReason, reason)
		}
	}
	for n := range 20 { // twice the slots: none leaked
		b.await(b.create(job, 10+n), "sent")
	}
}

// TestWrongHints: a hint of another kind than its intent's, or of an operation that is not known, claims nothing and
// holds up nobody.
func TestWrongHints(t *testing.T) {
	t.Parallel()
	b := setup(t)
	other := job
	other.Name = "test.job.other"
	var calls tally
	b.work(b.db.URL, workers.Handler[args]{Do: func(_ context.Context, j *workers.Job[args]) error {
		calls.add(j.Args.N)
		return nil
	}})
	b.await(b.create(job, 0), "sent")
	stranger := b.create(other, 1) // of a kind that this worker does not know
	b.db.Run(t, "INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) VALUES (now(), $1, $2, 0, 'run'), (now(), $1, $2, 0, 'recover'), (now(), $1, $2, 0, 'probe')", job.Name, stranger)
	for n := 2; n < 20; n++ {
		b.await(b.create(job, n), "sent")
	}
	testkit.Until(t, 10*time.Second, "the wrong hints are gone", func() (bool, string) {
		n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.outbox WHERE kind = $1", job.Name)
		return n == 0, fmt.Sprint(n)
	})
	if got := b.await(stranger, "ready"); got.Epoch != 0 || calls.of(1) != 0 {
		t.Errorf("it was claimed (epoch %d) or run (%d times) by a hint of another kind", got.Epoch, calls.of(1))
	}
}

// TestDone_refusedAtCommit: what the database has against the application's part only at the commit counts as its failure.
func TestDone_refusedAtCommit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Run(t, "CREATE TABLE customers (id int PRIMARY KEY)")
	b.db.Run(t, "CREATE TABLE charges (customer int REFERENCES customers DEFERRABLE INITIALLY DEFERRED)")
	b.work(b.db.URL, workers.Handler[args]{Do: func(_ context.Context, j *workers.Job[args]) error {
		return j.Done(func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO charges VALUES (7)")
			return err
		})
	}})
	if got := b.await(b.create(job, 1), "ambiguous"); *got.FlagReason != "hook-failed" {
		t.Errorf("flag reason %s; want hook-failed", *got.FlagReason)
	}
}

// TestDone_alwaysCounts: whatever way the application's part fails, it is not called for ever.
func TestDone_alwaysCounts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Run(t, "CREATE TABLE taken (n int PRIMARY KEY)")
	b.db.Run(t, "INSERT INTO taken VALUES (1)")
	b.work(b.db.URL, workers.Handler[args]{Do: func(_ context.Context, j *workers.Job[args]) error {
		return j.Done(func(ctx context.Context, tx pgx.Tx) error {
			switch j.Args.N {
			case 1: // swallows the error that aborted the transaction: the commit becomes a rollback
				_, _ = tx.Exec(ctx, "INSERT INTO taken VALUES (1)")
			case 2:
				runtime.Goexit()
			case 3:
				return tx.Rollback(ctx)
			}
			return nil
		})
	}})
	for n := 1; n <= 3; n++ {
		if got := b.await(b.create(job, n), "ambiguous"); *got.FlagReason != "hook-failed" {
			t.Errorf("hook %d: flag reason %s; want hook-failed", n, *got.FlagReason)
		}
	}
}

// TestCopy: on a database whose cluster is another one, all else being equal, a worker does not live and starts nothing.
func TestCopy(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Run(t, "UPDATE writ.settings SET fingerprint = regexp_replace(fingerprint, '^[0-9]+', '42')")
	var calls tally
	w, _ := b.work(b.db.URL, workers.Handler[args]{Do: func(_ context.Context, j *workers.Job[args]) error {
		calls.add(j.Args.N)
		return nil
	}})
	id := b.create(job, 1)
	testkit.Until(t, 10*time.Second, "it says why", func() (bool, string) {
		err := w.Ready()
		return err != nil, fmt.Sprint(err)
	})
	if n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.workers") + calls.of(1); n != 0 {
		t.Errorf("a worker lives, or has worked, on a copy that nobody adopted")
	}
	b.db.Run(t, "SELECT writ.adopt('ann', 'this is the real one now')")
	b.await(id, "sent")
}

func TestNew_reportsAllFaults(t *testing.T) {
	t.Parallel()
	mux := workers.NewMux()
	workers.Handle(mux, intent.Kind[args]{Name: "Bad"}, workers.Handler[args]{})
	workers.Handle(mux, job, workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { return nil }})
	workers.Handle(mux, job, workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { return nil }})
	_, err := workers.New(nil, "", mux, workers.Config{Slots: -1})
	for _, part := range []string{"Slots", "Bad", "Do is missing", "registered twice"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error %v does not tell of %q", err, part)
		}
	}
}
