package reconciler_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/internal/proof/wire"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/reconciler"
	writsql "github.com/writhq/writ/sql"
)

// run runs a reconciler until the test ends, or stop.
func (b *bench) run(pool *pgxpool.Pool, cfg reconciler.Config) (r *reconciler.Reconciler, stop func()) {
	b.t.Helper()
	cfg.Log = testkit.Log(b.t)
	r, err := reconciler.New(pool, cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	var once atomic.Bool
	stop = func() {
		if once.CompareAndSwap(false, true) {
			cancel()
			if err := <-ended; err != nil {
				b.t.Error(err)
			}
		}
	}
	b.t.Cleanup(stop)
	return r, stop
}

// finished makes rows that were finished so long ago.
func (b *bench) finished(kind, state string, n int, ago time.Duration) {
	b.t.Helper()
	b.db.Run(b.t, `WITH i AS (SELECT writ.uuid_v7() AS id FROM generate_series(1, $3::int) OFFSET 0)
		INSERT INTO writ.intents (id, tid, kind, event) SELECT id, id, $1, 'requested' FROM i WHERE $2::text <> ''`, kind, state, n)
	b.db.Run(b.t, "UPDATE writ.intents SET state = 'cancelled' WHERE kind = $1 AND finished_at IS NULL", kind)
	b.db.Run(b.t, "ALTER TABLE writ.intents DISABLE TRIGGER USER")
	b.db.Run(b.t, `UPDATE writ.intents SET state = $2, finished_at = now() - $3::interval, failed_at = CASE WHEN $2 = 'error' THEN now() END
		WHERE kind = $1 AND finished_at > now() - interval '1 min'`, kind, state, ago)
	b.db.Run(b.t, "ALTER TABLE writ.intents ENABLE TRIGGER USER")
}

func (b *bench) count(kind string) int {
	b.t.Helper()
	return testkit.Value[int](b.t, b.db, "SELECT count(*) FROM writ.intents WHERE kind = $1", kind)
}

// TestSchedules: each duty is done when its own schedule says so.
func TestSchedules(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare("test.old.job", "manual")
	b.finished("test.old.job", "sent", 10, 8*24*time.Hour)
	lost := b.insert(job.Name, 1, 2*time.Minute)[0]
	b.run(b.db.Pool, reconciler.Config{Schedule: "0 4 29 2 *", Schedules: map[reconciler.Duty]string{reconciler.Prune: "@every 1s"}})
	testkit.Until(t, 20*time.Second, "old rows are pruned", func() (bool, string) { n := b.count("test.old.job"); return n == 0, fmt.Sprint(n) })
	if n := b.hints(lost); n != 0 {
		t.Errorf("%d hints, years before the schedule of requeue", n)
	}

	b.finished("test.old.job", "sent", 10, 8*24*time.Hour)
	r, err := reconciler.New(b.db.Pool, reconciler.Config{Log: testkit.Log(t), Schedules: map[reconciler.Duty]string{reconciler.Prune: "never", reconciler.Requeue: "0 4 * * *"}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.Once(context.Background()); err != nil || got != (reconciler.Report{Requeued: 1}) {
		t.Errorf("once: %+v, %v; want the hint, whatever the hour, and nothing pruned", got, err)
	}
}

func TestSchedules_areChecked(t *testing.T) {
	t.Parallel()
	_, err := reconciler.New(nil, reconciler.Config{Schedules: map[reconciler.Duty]string{
		"dance": "@every 1s", reconciler.Prune: "every day", reconciler.Sweep: "CRON_TZ=UTC", reconciler.Flag: "never",
	}})
	for _, part := range []string{"[dance]", "[prune]", "[sweep]"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error %v does not tell of %s", err, part)
		}
	}
	if err != nil && strings.Contains(err.Error(), "[flag]") {
		t.Errorf("never is refused: %v", err)
	}
}

// scene has something for each duty.
func (b *bench) scene() {
	b.t.Helper()
	b.declare("test.job.idempotent", "idempotent")
	b.declare("test.old.job", "manual")
	b.insert(job.Name, 3, 2*time.Minute)
	dead, gone := b.worker(0), b.worker(0)
	b.claim(dead, append(b.insert(job.Name, 2, 0), b.insert("test.job.idempotent", 1, 0)...)...)
	b.claim(gone, b.insert(job.Name, 1, 0)...)
	b.silence(dead, time.Minute)
	b.db.Run(b.t, "DELETE FROM writ.workers WHERE id = $1", gone)
	b.finished("test.old.job", "sent", 4, 8*24*time.Hour)
}

// contents is all that is in the tables.
func (b *bench) contents() string {
	b.t.Helper()
	return testkit.Value[string](b.t, b.db, `SELECT concat(
		(SELECT string_agg(i::text, E'\n' ORDER BY i.id) FROM writ.intents i), (SELECT string_agg(o::text, E'\n' ORDER BY o.oid) FROM writ.outbox o),
		(SELECT string_agg(l::text, E'\n' ORDER BY l.id) FROM writ.log l), (SELECT string_agg(w::text, E'\n' ORDER BY w.id) FROM writ.workers w))`)
}

// TestRehearse: it tells, row by row, exactly what Once then does, and changes nothing.
func TestRehearse(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.scene()
	before := b.contents()
	told := map[string][]string{}
	reports := map[string]reconciler.Report{}
	for _, how := range []string{"rehearsed", "done"} {
		r, err := reconciler.New(b.db.Pool, reconciler.Config{
			Log: testkit.Log(t), WorkerTTL: time.Second,
			OnAct: func(a reconciler.Act) {
				if a.Why == "" || a.Kind == "" {
					t.Errorf("%+v does not say why, or of what", a)
				}
				told[how] = append(told[how], fmt.Sprint(a.Duty, " ", a.Did, " ", a.Kind, " ", a.ID, " ", a.Epoch))
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		do := r.Once
		if how == "rehearsed" {
			do = r.Rehearse
		}
		if reports[how], err = do(context.Background()); err != nil {
			t.Fatal(err)
		}
		slices.Sort(told[how])
		if how == "rehearsed" {
			if diff := cmp.Diff(before, b.contents()); diff != "" {
				t.Errorf("a rehearsal changed something:\n%s", diff)
			}
		}
	}
	if want := (reconciler.Report{Requeued: 3, Flagged: 3, Retried: 1, Pruned: 4}); reports["done"] != want {
		t.Errorf("did %+v; want %+v", reports["done"], want)
	}
	if diff := cmp.Diff(told["done"], told["rehearsed"]); diff != "" || reports["done"] != reports["rehearsed"] {
		t.Errorf("the rehearsal said %+v, then %+v was done (-done +rehearsed):\n%s", reports["rehearsed"], reports["done"], diff)
	}
}

// TestRehearse_isBounded: of a great many rows it tells 10,000, and that there are more.
func TestRehearse_isBounded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare("test.old.job", "manual")
	b.finished("test.old.job", "sent", 12_000, 8*24*time.Hour)
	got, err := b.reconciler().Rehearse(context.Background())
	if want := (reconciler.Report{Pruned: 10_000, Unfinished: true}); err != nil || got != want {
		t.Errorf("rehearsed %+v, %v; want %+v", got, err, want)
	}
	if got := b.once(); got.Pruned != 12_000 || got.Unfinished {
		t.Errorf("did %+v; want all 12,000", got)
	}
}

// TestLease_ofTheFrozen: a leader that freezes is replaced within twice the lease's time. When it thaws it does not lead, and
// what both did was done once.
func TestLease_ofTheFrozen(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const lease = 2 * time.Second
	cfg := reconciler.Config{Schedule: "@every 1s", WorkerTTL: time.Second, Lease: lease}
	proxy, url := testkit.ProxyTo(t, b.db.URL)
	pool, err := pgxpool.New(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	first, _ := b.run(pool, cfg)
	testkit.Until(t, 10*time.Second, "the first leads", func() (bool, string) { return first.Leading(), "" })
	second, _ := b.run(b.db.Pool, cfg)

	warm := make(chan struct{})
	thaw := sync.OnceFunc(func() { close(warm) })
	t.Cleanup(thaw)
	frozen := make(chan struct{})
	proxy.On(wire.Rule{At: wire.Executes("writ.leader"), Do: wire.Call(func() { close(frozen); <-warm }, wire.Pass)})
	met(t, frozen)
	held := testkit.Value[time.Time](t, b.db, "SELECT renewed_at FROM writ.leader")
	w := b.worker(0)
	ids := b.insert(job.Name, 50, 0)
	b.claim(w, ids...)
	b.silence(w, time.Minute)
	testkit.Until(t, 20*time.Second, "the second leads", func() (bool, string) { return second.Leading(), "" })
	if took := testkit.Value[time.Time](t, b.db, "SELECT renewed_at FROM writ.leader").Sub(held); took > 2*lease {
		t.Errorf("took over %v after the last sign of the first; want at most %v", took, 2*lease)
	}
	thaw()
	testkit.Until(t, 20*time.Second, "the first knows that it does not lead", func() (bool, string) { return !first.Leading(), "" })
	testkit.Until(t, 20*time.Second, "all are flagged", func() (bool, string) {
		n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.intents WHERE flagged_at IS NOT NULL")
		return n == len(ids), fmt.Sprint(n)
	})
	if n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.log WHERE event = 'flagged'"); n != len(ids) {
		t.Errorf("%d log rows for %d flags", n, len(ids))
	}
}

// TestTick_isCapped: a turn ends when its time is up, and the next one goes on, until all is done, each row once.
func TestTick_isCapped(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.worker(0)
	ids := b.insert(job.Name, 300, 0)
	b.claim(w, ids...)
	b.silence(w, time.Minute)
	var turns atomic.Int64
	last := time.Now()
	b.run(b.db.Pool, reconciler.Config{
		Schedule: "@every 1s", WorkerTTL: time.Second, Lease: 300 * time.Millisecond, // turns of 100 ms
		OnAct: func(reconciler.Act) {
			if time.Since(last) > 300*time.Millisecond { // the next one comes a second later
				turns.Add(1)
			}
			last = time.Now()
		},
	})
	testkit.Until(t, 60*time.Second, "all are flagged", func() (bool, string) {
		n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.intents WHERE flagged_at IS NOT NULL")
		return n == len(ids), fmt.Sprint(n)
	})
	if turns.Load() < 2 {
		t.Errorf("300 rows in %d turns of 100 ms; want several", turns.Load())
	}
	if n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.log WHERE event = 'flagged'"); n != len(ids) {
		t.Errorf("%d log rows for %d flags", n, len(ids))
	}
}

// TestLostAnswers: whatever duty's commit goes unanswered, the next turn finds what is left to do, and nothing is done twice.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	for name, statement := range map[string]string{
		"requeue": "'requeued'", "flag": "'worker-died'", "prune": "DELETE FROM writ.log", "lease": "writ.leader",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.scene()
			proxy, url := testkit.ProxyTo(t, b.db.URL)
			pool, err := pgxpool.New(context.Background(), url)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			lost := proxy.LoseAnswer(statement)
			b.run(pool, reconciler.Config{Schedule: "@every 1s", WorkerTTL: time.Second, Schedules: map[reconciler.Duty]string{reconciler.Sweep: "@every 1s", reconciler.Prune: "@every 1s"}})
			met(t, lost)
			testkit.Until(t, 30*time.Second, "all is done", func() (bool, string) {
				got := testkit.Value[string](t, b.db, `SELECT concat((SELECT count(*) FROM writ.log WHERE event = 'requeued'), ' requeued, ',
					(SELECT count(*) FROM writ.intents WHERE flagged_at IS NOT NULL), ' flagged, ', (SELECT count(*) FROM writ.log WHERE event = 'retried'), ' retried, ',
					(SELECT count(*) FROM writ.intents WHERE kind = 'test.old.job'), ' old')`)
				return got == "3 requeued, 3 flagged, 1 retried, 0 old", got
			})
			if n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.log WHERE event = 'flagged'"); n != 3 {
				t.Errorf("%d log rows for 3 flags", n)
			}
			if n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.outbox"); n != 4 {
				t.Errorf("%d hints for 3 lost ones and a retry", n)
			}
		})
	}
}

// met waits for a rule's message.
func met(t *testing.T, fired <-chan struct{}) {
	t.Helper()
	testkit.Until(t, 20*time.Second, "the fault's message comes", func() (bool, string) {
		select {
		case <-fired:
			return true, ""
		default:
			return false, "it did not"
		}
	})
}

// TestPrune_cost: rows of another state that are kept for ever are walked once; from the mark on they cost nothing.
func TestPrune_cost(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const kind = "test.old.job"
	b.declare(kind, "manual")
	b.finished(kind, "error", 20_000, 30*24*time.Hour)
	b.finished(kind, "sent", 3, 7*24*time.Hour+time.Minute)
	b.db.Run(t, "VACUUM ANALYZE writ.intents")
	before := time.Now().Add(-7 * 24 * time.Hour)
	cost := func(from time.Time) int {
		tx, err := b.db.Begin(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.Background()) }()
		if _, err := tx.Exec(context.Background(), writsql.Statement("EngineTransaction")); err != nil {
			t.Fatal(err)
		}
		return buffers(t, tx, writsql.Statement("Prune"), kind, "sent", before, 1000, from)
	}
	all, rest := cost(time.Time{}), cost(before.Add(-time.Hour))
	if rest > 200 || all < 5*rest {
		t.Errorf("pruning touches %d buffers beside 20,000 rows that are kept, and %d from the mark on", all, rest)
	}
	if got := b.once(); got.Pruned != 3 || b.count(kind) != 20_000 {
		t.Errorf("pruned %d, %d are left; want 3, and all errors", got.Pruned, b.count(kind))
	}
}

// buffers is how many pages a statement touches.
func buffers(t *testing.T, q interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, statement string, args ...any,
) int {
	t.Helper()
	var plan []map[string]any
	if err := q.QueryRow(context.Background(), "EXPLAIN (ANALYZE, BUFFERS, FORMAT json) "+statement, args...).Scan(&plan); err != nil {
		t.Fatal(err)
	}
	p := plan[0]["Plan"].(map[string]any)
	return int(p["Shared Hit Blocks"].(float64) + p["Shared Read Blocks"].(float64))
}

// TestForget: settled events are forgotten in time; those that wait for a person are not.
func TestForget(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	db.Run(t, `INSERT INTO writ.inbox (subscription, source, event_id, settled_at, dead_at)
		SELECT 's', 'api', n::text, CASE WHEN n <= 2500 THEN now() - interval '31 days' WHEN n <= 2600 THEN now() - interval '29 days' END,
			CASE WHEN n > 2600 THEN now() - interval '1 year' END FROM generate_series(1, 2700) n`)
	r, err := reconciler.New(db.Pool, reconciler.Config{Log: testkit.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	report, err := r.Once(context.Background())
	if left := testkit.Value[int](t, db, "SELECT count(*) FROM writ.inbox"); err != nil || report.Forgotten != 2500 || left != 200 {
		t.Errorf("forgot %d, %d are left, %v; want 2,500 and 200", report.Forgotten, left, err)
	}
}
