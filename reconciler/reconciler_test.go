package reconciler_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/reconciler"
	writsql "github.com/writhq/writ/sql"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type args struct{}

var job = intent.Kind[args]{Name: "test.job.run"}

type bench struct {
	t     *testing.T
	db    *testkit.DB
	store *store.Store
}

func setup(t *testing.T) *bench {
	t.Helper()
	db := testkit.Database(t)
	return &bench{t: t, db: db, store: store.New(db.Pool)}
}

func (b *bench) reconciler() *reconciler.Reconciler {
	b.t.Helper()
	r, err := reconciler.New(b.db.Pool, reconciler.Config{Log: testkit.Log(b.t), WorkerTTL: time.Second, RequeueAfter: time.Minute})
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func (b *bench) once() reconciler.Report {
	b.t.Helper()
	report, err := b.reconciler().Once(context.Background())
	if err != nil {
		b.t.Fatal(err)
	}
	return report
}

// declare makes a kind of a class, with three attempts.
func (b *bench) declare(kind, class string) {
	b.t.Helper()
	b.db.Run(b.t, "INSERT INTO writ.kinds (name, queue, class, max_attempts, recovers) VALUES ($1, $1, $2, 3, true)", kind, class)
}

// insert makes pending intents that have been due for a while, without hints.
func (b *bench) insert(kind string, n int, due time.Duration) []intent.ID {
	b.t.Helper()
	rows, err := b.db.Query(context.Background(), `INSERT INTO writ.intents (id, tid, kind, event, run_at)
		SELECT id, id, $1, 'requested', now() - $3::interval FROM (SELECT writ.uuid_v7() AS id FROM generate_series(1, $2::int) OFFSET 0) g RETURNING id`, kind, n, due)
	if err != nil {
		b.t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[intent.ID])
	if err != nil {
		b.t.Fatal(err)
	}
	return ids
}

// worker makes a worker row whose last heartbeat was so long ago.
func (b *bench) worker(silent time.Duration) intent.ID {
	b.t.Helper()
	id := intent.NewID()
	b.db.Run(b.t, `INSERT INTO writ.workers (id, host, pid, version, kinds, slots, ttl) VALUES ($1, 'h', 1, '', '{}', 1, '1 s')`, id)
	b.silence(id, silent)
	return id
}

func (b *bench) silence(worker intent.ID, d time.Duration) {
	b.t.Helper()
	b.db.Run(b.t, "UPDATE writ.workers SET heartbeat_at = now() - $2::interval WHERE id = $1", worker, d)
}

// claim has a living worker claim intents.
func (b *bench) claim(worker intent.ID, ids ...intent.ID) {
	b.t.Helper()
	store.Sort(ids)
	got, err := b.store.Claim(context.Background(), worker, []store.Group{{Timeout: time.Minute, IDs: ids}})
	if err != nil || len(got) != len(ids) {
		b.t.Fatalf("claimed %d of %d: %v", len(got), len(ids), err)
	}
}

func (b *bench) get(id intent.ID) intent.Intent {
	b.t.Helper()
	i, err := intent.Get(context.Background(), b.db, id)
	if err != nil {
		b.t.Fatal(err)
	}
	return i
}

func (b *bench) hints(id intent.ID) int {
	b.t.Helper()
	return testkit.Value[int](b.t, b.db, "SELECT count(*) FROM writ.outbox WHERE intent_id = $1", id)
}

func TestRequeue(t *testing.T) {
	t.Parallel()
	b := setup(t)
	lost := b.insert(job.Name, 3, 90*time.Second)
	fresh := b.insert(job.Name, 1, 30*time.Second)
	waiting := b.insert(job.Name, 1, 2*time.Minute)
	b.db.Run(t, "UPDATE writ.intents SET waiting_on = 1 WHERE id = $1", waiting[0])
	hinted := b.insert(job.Name, 1, 2*time.Minute)
	b.db.Run(t, "INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) VALUES (now(), $1, $2, 0, 'run')", job.Name, hinted[0])

	if got := b.once(); got.Requeued != 3 {
		t.Errorf("requeued %d; want 3", got.Requeued)
	}
	for _, id := range lost {
		if b.hints(id) != 1 {
			t.Errorf("a lost one has %d hints; want 1", b.hints(id))
		}
	}
	if n := b.hints(fresh[0]) + b.hints(waiting[0]); n != 0 {
		t.Errorf("%d hints for what is not due for long, or waits for others", n)
	}
	// The spacing doubles: the relay has published it, and a minute's silence is not enough the second time.
	b.db.Run(t, "DELETE FROM writ.outbox")
	if got := b.once(); got.Requeued != 1 {
		t.Errorf("requeued %d at once again; want only the one whose hint has just gone", got.Requeued)
	}
	b.db.Run(t, "DELETE FROM writ.outbox")
	b.db.Run(t, "UPDATE writ.intents SET run_at = run_at - interval '3 min' WHERE id = ANY ($1)", lost)
	b.db.Run(t, "DELETE FROM writ.outbox") // moving a row's time brings a hint and forgets the requeues
	b.db.Run(t, "UPDATE writ.intents SET requeues = 1 WHERE id = ANY ($1)", lost)
	if got := b.once(); got.Requeued < 3 {
		t.Errorf("requeued %d after twice the time; want all 3", got.Requeued)
	}
}

// TestRequeue_deepQueue: a deep queue stretches the spacing, it never forbids.
func TestRequeue_deepQueue(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare(job.Name, "manual")
	b.insert(job.Name, 1, 2*time.Minute)
	b.db.Run(t, "INSERT INTO writ.relay (queue, ready) VALUES ($1, 50000)", job.Name)
	if got := b.once(); got.Requeued != 0 {
		t.Errorf("requeued %d behind 50,000 messages after two minutes", got.Requeued)
	}
	b.db.Run(t, "UPDATE writ.relay SET ready = 100")
	if got := b.once(); got.Requeued != 1 {
		t.Errorf("requeued %d; want 1", got.Requeued)
	}
}

// TestRequeue_delayed: a refused hint, or one that was put back, comes again by itself; a second one beside it would stay
// for as long as the first.
func TestRequeue_delayed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.insert(job.Name, 1, 2*time.Minute)[0]
	b.db.Run(t, `INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op, failures, last_error)
		VALUES (now() + interval '50 s', $1, $2, 0, 'run', 7, 'no such queue')`, job.Name, id)
	if got := b.once(); got.Requeued != 0 || b.hints(id) != 1 {
		t.Errorf("requeued %d, %d hints; want none beside the one that is refused for now", got.Requeued, b.hints(id))
	}
	b.db.Run(t, "UPDATE writ.outbox SET due_at = now() + interval '1 h'") // further off than anything is put back
	if got := b.once(); got.Requeued != 1 {
		t.Errorf("requeued %d; want 1", got.Requeued)
	}
}

// TestRequeue_shut: hints of a kind that is shut wait in the broker; they are not lost, nor are they for a while after it opens.
func TestRequeue_shut(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare(job.Name, "manual")
	b.insert(job.Name, 1, 2*time.Minute)
	b.db.Run(t, "INSERT INTO writ.relay (queue, ready) VALUES ($1, 0)", job.Name)
	for _, shut := range []struct{ reason, begin, end string }{
		{"paused", "UPDATE writ.kinds SET paused_at = now(), paused_by = 'op', paused_why = 'x'", "UPDATE writ.kinds SET paused_at = NULL"},
		{"paused with its queue", "INSERT INTO writ.queues SELECT queue, now(), 'op', 'x' FROM writ.kinds", "DELETE FROM writ.queues"},
		{"stopped by its breaker", "UPDATE writ.kinds SET breaker = '{}'; INSERT INTO writ.breakers (kind, state, until) SELECT name, 'open', now() FROM writ.kinds", "DELETE FROM writ.breakers"},
		{"open only since a moment", "UPDATE writ.kinds SET opened_at = now() - interval '10 s'", "UPDATE writ.kinds SET opened_at = now() - interval '3 min'"},
	} {
		b.db.Run(t, shut.begin)
		if got := b.once(); got.Requeued != 0 {
			t.Errorf("requeued %d of a kind that is %s", got.Requeued, shut.reason)
		}
		b.db.Run(t, shut.end)
	}
	if got := b.once(); got.Requeued != 1 {
		t.Errorf("requeued %d after it opened; want 1", got.Requeued)
	}
}

// TestRequeue_relayBehind: what is lost cannot be told from what is late, and the report says so. Refused hints are no sign
// of it, however many and old: they would stop all healing.
func TestRequeue_relayBehind(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insert(job.Name, 1, 10*time.Minute)
	b.db.Run(t, `INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op)
		SELECT now() - interval '2 min', 'test.other.job', gen_random_uuid(), 0, 'run' FROM generate_series(1, 10000)`)
	if got := b.once(); got.Requeued != 0 || !got.Suspended {
		t.Errorf("%+v; want it suspended", got)
	}
	b.db.Run(t, "UPDATE writ.outbox SET failures = 1")
	if got := b.once(); got.Requeued != 1 || got.Suspended {
		t.Errorf("%+v; want 1 requeued", got)
	}
}

// TestRequeue_windows: rows of one bulk creation share their time, and there are more of them than one look goes through.
func TestRequeue_windows(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.insert(job.Name, 45_000, 2*time.Minute)
	if got := b.once(); got.Requeued != 45_000 {
		t.Errorf("requeued %d; want 45,000", got.Requeued)
	}
}

func TestDeadWorker(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, class := range []string{"manual", "probed", "idempotent"} {
		b.declare("test.job."+class, class)
	}
	undeclared := "test.job.unheard"
	dead, alive := b.worker(0), b.worker(-time.Minute)
	ids := map[string]intent.ID{}
	for _, kind := range []string{"test.job.manual", "test.job.probed", "test.job.idempotent", undeclared} {
		pair := b.insert(kind, 2, 0)
		b.claim(dead, pair[0])
		b.claim(alive, pair[1])
		ids[kind], ids[kind+" alive"] = pair[0], pair[1]
	}
	spent := b.insert("test.job.idempotent", 1, 0)[0]
	b.db.Run(t, "UPDATE writ.intents SET attempt = 2 WHERE id = $1", spent)
	b.claim(dead, spent)
	b.silence(dead, time.Minute)

	got := b.once()
	if got.Flagged != 3 || got.Retried != 2 {
		t.Errorf("flagged %d and retried %d; want 3 and 2", got.Flagged, got.Retried)
	}
	for name, want := range map[string]string{
		"test.job.manual": "ambiguous", "test.job.probed": "ambiguous", undeclared: "ambiguous",
		"test.job.manual alive": "running", "test.job.probed alive": "running", "test.job.idempotent alive": "running", undeclared + " alive": "running",
	} {
		if i := b.get(ids[name]); i.Status != want {
			t.Errorf("%s is %s; want %s", name, i.Status, want)
		}
	}
	if i := b.get(ids["test.job.idempotent"]); i.State != "pending" || i.Epoch != 2 {
		t.Errorf("the idempotent one is %s at epoch %d; want pending at 2", i.Status, i.Epoch)
	}
	if i := b.get(spent); i.Status != "error" || b.hints(spent) != 1 {
		t.Errorf("the spent one is %s with %d hints; want error and a recovery hint", i.Status, b.hints(spent))
	}
	if owed := testkit.Value[bool](t, b.db, "SELECT probe_at IS NOT NULL FROM writ.intents WHERE id = $1", ids["test.job.probed"]); !owed {
		t.Error("nobody owes the probed one a look")
	}
	if again := b.once(); again != (reconciler.Report{}) {
		t.Errorf("a second look did %+v", again)
	}
}

// TestDeadWorker_rowGone: rows of workers that are not even there any more are found too.
func TestDeadWorker_rowGone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.insert(job.Name, 1, 0)[0]
	gone := b.worker(0)
	b.claim(gone, id)
	b.db.Run(t, "DELETE FROM writ.workers WHERE id = $1", gone)
	if got := b.once(); got.Flagged != 1 {
		t.Errorf("flagged %d; want 1", got.Flagged)
	}
}

// TestDeadWorker_lockedRow: somebody's open transaction on one row does not keep the others from being looked at.
func TestDeadWorker_lockedRow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := b.insert(job.Name, 5, 0)
	w := b.worker(0)
	b.claim(w, ids...)
	b.silence(w, time.Minute)
	tx, err := b.db.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(context.Background(), "SELECT FROM writ.intents WHERE id = $1 FOR UPDATE", ids[0]); err != nil {
		t.Fatal(err)
	}
	if got := b.once(); got.Flagged != 4 || got.Left != 1 {
		t.Errorf("flagged %d beside a locked row and said that %d are left; want 4 and 1", got.Flagged, got.Left)
	}
}

// TestDeadWorker_steepBackoff: a backoff beyond what an interval can hold is cut to its maximum, for one row and for all
// that are looked at with it.
func TestDeadWorker_steepBackoff(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare("test.job.idempotent", "idempotent")
	b.db.Run(t, "UPDATE writ.kinds SET backoff_factor = 1e300, max_attempts = 100")
	steep, plain := b.insert("test.job.idempotent", 1, 0)[0], b.insert(job.Name, 1, 0)[0]
	b.db.Run(t, "UPDATE writ.intents SET attempt = 60 WHERE id = $1", steep)
	w := b.worker(0)
	b.claim(w, steep, plain)
	b.silence(w, time.Minute)
	if got := b.once(); got.Retried != 1 || got.Flagged != 1 {
		t.Errorf("retried %d and flagged %d; want one each", got.Retried, got.Flagged)
	}
	if far := testkit.Value[bool](t, b.db, "SELECT run_at > now() + interval '1 h' FROM writ.intents WHERE id = $1", steep); far {
		t.Error("the backoff is beyond its maximum")
	}
}

// TestPause: after a pause of the database every heartbeat looks old; nothing is flagged on an observation that is not
// fresh, nor before the workers had time to beat again.
func TestPause(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.insert(job.Name, 1, 0)[0]
	w := b.worker(0)
	b.claim(w, id)
	b.silence(w, time.Minute)
	now := testkit.Value[time.Time](t, b.db, "SELECT clock_timestamp()")
	class, err := b.store.SettleOrphan(context.Background(), store.Hint{ID: id, Epoch: 1}, store.Observed{Last: now.Add(-3 * time.Second), Fresh: 2500 * time.Millisecond}, time.Second)
	if err != nil || class.Class != "" {
		t.Errorf("settled as %+v on an old observation, %v", class, err)
	}
	class, err = b.store.SettleOrphan(context.Background(), store.Hint{ID: id, Epoch: 1}, store.Observed{Last: now, Fresh: time.Minute}, 2*time.Minute)
	if err != nil || class.Class != "" {
		t.Errorf("settled as %+v after a shorter silence than the reconciler needs, %v", class, err)
	}
	// The worker's own TTL is 1 s; a pause ended half a second ago, and it had no time to beat again.
	class, err = b.store.SettleOrphan(context.Background(), store.Hint{ID: id, Epoch: 1}, store.Observed{Since: now.Add(-500 * time.Millisecond), Last: now, Fresh: time.Minute}, time.Millisecond)
	if err != nil || class.Class != "" {
		t.Errorf("settled as %+v within the worker's TTL after a pause, %v", class, err)
	}
	class, err = b.store.SettleOrphan(context.Background(), store.Hint{ID: id, Epoch: 1}, store.Observed{Last: now, Fresh: time.Minute}, time.Second)
	if err != nil || class.Class != "manual" {
		t.Errorf("settled as %+v; want manual, %v", class, err)
	}
}

// TestRun: two reconcilers side by side flag once, one leads, and the other takes over at once when it resigns.
func TestRun(t *testing.T) {
	t.Parallel()
	b := setup(t)
	type running struct {
		*reconciler.Reconciler
		stop func()
	}
	start := func() running {
		r, err := reconciler.New(b.db.Pool, reconciler.Config{Log: testkit.Log(t), Schedule: "@every 1s", WorkerTTL: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		stopped := false
		stop := func() {
			if !stopped {
				stopped = true
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
		}
		t.Cleanup(stop)
		return running{r, stop}
	}
	one, two := start(), start()
	id := b.insert(job.Name, 1, 0)[0]
	w := b.worker(0)
	b.claim(w, id)
	b.silence(w, time.Minute)
	testkit.Until(t, 20*time.Second, "flagged", func() (bool, string) { s := b.get(id).Status; return s == "ambiguous", s })
	if n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.log WHERE intent_id = $1", id); n != 1 {
		t.Errorf("%d log rows for one flag", n)
	}
	leader, other := one, two
	if two.Leading() {
		leader, other = two, one
	}
	if !leader.Leading() || other.Leading() {
		t.Errorf("leading: %v and %v; want one", leader.Leading(), other.Leading())
	}
	leader.stop()
	testkit.Until(t, 10*time.Second, "the other leads", func() (bool, string) { return other.Leading(), "" })
}

func TestPrune(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare(job.Name, "manual")
	finish := func(state string, ago time.Duration) intent.ID {
		id := b.insert(job.Name, 1, 0)[0]
		b.db.Run(t, "INSERT INTO writ.keys (kind, key, intent_id) VALUES ($1, $2, $3)", job.Name, id.String(), id)
		w := b.worker(0)
		switch state {
		case "cancelled":
			b.db.Run(t, "UPDATE writ.intents SET state = 'cancelled' WHERE id = $1", id)
		default:
			b.claim(w, id)
			event := map[string]string{"sent": store.Succeeded, "error": store.Failed}[state]
			if _, err := b.store.FinishOne(context.Background(), w, store.Outcome{ID: id, Epoch: 1, Event: event}); err != nil {
				t.Fatal(err)
			}
		}
		b.db.Run(t, "UPDATE writ.intents SET finished_at = now() - $2::interval WHERE id = $1", id, ago)
		return id
	}
	const day = 24 * time.Hour
	kept := []intent.ID{finish("sent", 6*day), finish("error", 1000*day), finish("cancelled", 29*day)}
	gone := []intent.ID{finish("sent", 8*day), finish("cancelled", 31*day)}
	if got := b.once(); got.Pruned != 2 {
		t.Errorf("pruned %d; want 2", got.Pruned)
	}
	for _, table := range []string{"intents WHERE id", "keys WHERE intent_id", "log WHERE intent_id"} {
		if n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ."+table+" = ANY ($1)", gone); n != 0 {
			t.Errorf("%d rows left in %s", n, table)
		}
	}
	if n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.intents WHERE id = ANY ($1)", kept); n != len(kept) {
		t.Errorf("%d of %d kept", n, len(kept))
	}
}

func TestNew_reportsAllFaults(t *testing.T) {
	t.Parallel()
	for _, schedule := range []string{"nonsense", "TZ=UTC", "0 0 31 2 *"} {
		_, err := reconciler.New(nil, reconciler.Config{Schedule: schedule, RequeueAfter: -1, RequeueMost: -1})
		for _, part := range []string{"Schedule", "RequeueAfter", "RequeueMost"} {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: error %v does not tell of %s", schedule, err, part)
			}
		}
	}
}

// TestTick_cost holds what a look costs to what is open: finished rows add nothing. The buffers that it touches are
// counted, not the time.
func TestTick_cost(t *testing.T) {
	t.Parallel()
	b := setup(t)
	dead := []intent.ID{b.worker(time.Minute)}
	b.insert(job.Name, 100, 0)
	cost := func() (n int) {
		b.db.Run(t, "ANALYZE writ.intents")
		err := pgx.BeginFunc(context.Background(), b.db, func(tx pgx.Tx) error {
			_, err := tx.Exec(context.Background(), writsql.Statement("EngineTransaction")) // with its settings, as the reconciler does
			n = buffers(t, tx, writsql.Statement("Orphans"), dead, 1000)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := cost()
	b.db.Run(t, `INSERT INTO writ.intents (id, tid, kind, event, run_at) SELECT id, id, $1, 'requested', now() FROM (SELECT writ.uuid_v7() AS id FROM generate_series(1, 20000) OFFSET 0) g`, "test.job.finished")
	b.db.Run(t, "UPDATE writ.intents SET state = 'cancelled' WHERE kind = 'test.job.finished'")
	b.db.Run(t, "VACUUM writ.intents")
	after := cost()
	if after > 3*before+50 {
		t.Errorf("a look touches %d buffers beside 20,000 finished rows, %d without", after, before)
	}
}
