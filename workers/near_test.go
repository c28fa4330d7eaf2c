package workers_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/dispatch"
	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

// TestNear: relay and worker of one process. Each intent is run once, though its hint comes twice: by the bell and by the
// broker.
func TestNear(t *testing.T) {
	t.Parallel()
	b := &bench{t: t, db: testkit.Database(t)}
	var calls tally
	w, _ := b.work(b.db.URL, workers.Handler[args]{Do: func(_ context.Context, j *workers.Job[args]) error {
		calls.add(j.Args.N)
		return nil
	}})
	var taken atomic.Int32
	relay, err := dispatch.New(b.db.Pool, testkit.AMQPURL(t), dispatch.Config{Log: testkit.Log(t), Near: func(h store.Hint) bool {
		ok := w.Offer(h)
		if ok {
			taken.Add(1)
		}
		return ok
	}})
	if err != nil {
		t.Fatal(err)
	}
	b.run(relay.Run)
	total := 0
	for _, burst := range []int{1, 1, 1, 100, 400} {
		ids := make([]intent.ID, burst)
		for i := range ids {
			total++
			ids[i] = b.createAlone(b.db.Pool, total)
		}
		for _, id := range ids {
			b.await(id, "sent")
		}
	}
	testkit.Until(t, 20*time.Second, "the broker's copies are settled", func() (bool, string) {
		return testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.outbox") == 0, "the outbox is not empty"
	})
	for n := range total {
		if got := calls.of(n + 1); got != 1 {
			t.Errorf("%d was run %d times", n+1, got)
		}
	}
	if n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.intents WHERE epoch <> 1 OR attempt <> 1"); n > 0 {
		t.Errorf("%d intents were claimed more than once", n)
	}
	if taken.Load() < 3 {
		t.Errorf("the worker took %d hints directly", taken.Load())
	}
}

func (b *bench) createAlone(pool *pgxpool.Pool, n int) intent.ID {
	b.t.Helper()
	created, err := job.CreateAlone(context.Background(), pool, args{n}, intent.Opts{})
	if err != nil {
		b.t.Fatal(err)
	}
	return created.ID
}

// TestOffer_locked: a hint that came directly meets a locked row, and is dropped; the broker's copy is put back like any
// other until it is claimed.
func TestOffer_locked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w, _ := b.work(b.db.URL, workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { return nil }})
	b.await(b.create(job, 1), "sent") // it is up
	id := testkit.Value[intent.ID](t, b.db, "INSERT INTO writ.intents (kind, args, run_at) VALUES ($1, '{}', now() + interval '1 h') RETURNING id", job.Name)
	tx, err := b.db.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background()) // after the commit: nothing
	// Due from now on, without a hint: the trigger that would write one is for others.
	for _, sql := range []string{
		"SET LOCAL session_replication_role = replica",
		"UPDATE writ.intents SET run_at = now() WHERE id = '" + id.String() + "'",
		"DELETE FROM writ.outbox WHERE intent_id = '" + id.String() + "'",
	} {
		if _, err := tx.Exec(context.Background(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
	lock, err := b.db.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Rollback(context.Background())
	if _, err := lock.Exec(context.Background(), "SELECT FROM writ.intents WHERE id = $1 FOR UPDATE", id); err != nil {
		t.Fatal(err)
	}
	if !w.Offer(store.Hint{ID: id, Kind: job.Name, Op: "run"}) {
		t.Fatal("an idle worker refused a hint")
	}
	copied := testkit.Value[int64](t, b.db, "INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) VALUES (now(), $1, $2, 0, 'run') RETURNING oid", job.Name, id)
	testkit.Until(t, 20*time.Second, "the copy is put back", func() (bool, string) {
		return testkit.Value[int64](t, b.db, "SELECT coalesce(max(oid), 0) FROM writ.outbox WHERE intent_id = $1", id) > copied, "no new outbox row"
	})
	if err := lock.Rollback(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := b.await(id, "sent"); got.Epoch != 1 {
		t.Errorf("it was claimed %d times", got.Epoch)
	}
}

// TestOffer_copyWhileUnsure: the answer of a claim is lost, by a direct hint or by its copy from the broker, and the other one
// comes while the worker asks again. It is run once.
func TestOffer_copyWhileUnsure(t *testing.T) {
	t.Parallel()
	b := setup(t)
	proxy, url := testkit.ProxyTo(t, b.db.URL)
	var calls tally
	w, stop := b.work(url+"&default_query_exec_mode=cache_describe", workers.Handler[args]{Do: func(_ context.Context, j *workers.Job[args]) error {
		calls.add(j.Args.N)
		return nil
	}})
	b.await(b.create(job, 1), "sent") // it is up
	fired := proxy.LoseAnswer("'attempted'")
	created, err := job.CreateAlone(context.Background(), b.db.Pool, args{2}, intent.Opts{})
	if err != nil {
		t.Fatal(err)
	}
	w.Offer(store.Hint{ID: created.ID, Kind: job.Name, Op: "run"})
	select {
	case <-fired:
	case <-time.After(10 * time.Second):
		t.Fatal("the fault was never met")
	}
	b.await(created.ID, "sent")
	stop()
	if n := calls.of(2); n != 1 {
		t.Errorf("it was run %d times", n)
	}
}

// TestOffer_refused: what a worker has no use for, or no room, goes over the broker only.
func TestOffer_refused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	release := make(chan struct{})
	w, _ := b.work(b.db.URL, workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error {
		<-release
		return nil
	}})
	hint := store.Hint{ID: intent.NewID(), Kind: job.Name, Op: "run"}
	other := hint
	other.Kind = "test.other.kind"
	if w.Offer(other) {
		t.Error("took a kind it does not have")
	}
	ids := []intent.ID{b.create(job, 1), b.create(job, 2), b.create(job, 3)} // of ten slots
	for _, id := range ids {
		b.await(id, "running")
	}
	if w.Offer(hint) {
		t.Error("took a hint though a quarter of its slots is busy: other processes should have it")
	}
	close(release)
	for _, id := range ids {
		b.await(id, "sent")
	}
	b.db.Run(t, "UPDATE writ.kinds SET paused_at = now(), paused_by = 'test', paused_why = 'to see' WHERE name = $1", job.Name)
	testkit.Until(t, 10*time.Second, "the worker knows that the kind is paused", func() (bool, string) { return !w.Offer(hint), "it takes hints" })
}
