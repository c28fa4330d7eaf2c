package workers_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

// TestOldHint_lostAnswer: a hint of an attempt that this very worker had, and flagged, comes again, and the answer of its
// claim is lost. The row is sending, at the epoch behind the hint's and this worker's own; yet it is not started again.
func TestOldHint_lostAnswer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	proxy, url := testkit.ProxyTo(t, b.db.URL)
	var calls tally
	_, stop := b.work(url+"&default_query_exec_mode=cache_describe", workers.Handler[args]{Do: func(_ context.Context, j *workers.Job[args]) error {
		calls.add(j.Args.N)
		return workers.Unknown(errors.New("nobody knows"))
	}})
	id := b.create(job, 1)
	b.await(id, "ambiguous")
	fired := proxy.LoseAnswer("'attempted'")
	b.db.Run(t, "INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) VALUES (now(), $1, $2, 0, 'run')", job.Name, id)
	select {
	case <-fired:
	case <-time.After(10 * time.Second):
		t.Fatal("the fault was never met")
	}
	stop() // waits for what is being resolved, and for handlers
	if n := calls.of(1); n != 1 {
		t.Errorf("it was run %d times at one epoch", n)
	}
	b.await(id, "ambiguous")
}

// TestEarlyHint_lostAnswer: the answer of a claim is lost, and the row is not due for long, so that only time can decide if
// that claim will still be applied. A worker that shuts down does not wait for it.
func TestEarlyHint_lostAnswer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	proxy, url := testkit.ProxyTo(t, b.db.URL)
	_, stop := b.work(url+"&default_query_exec_mode=cache_describe", workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { return nil }})
	b.await(b.create(job, 1), "sent") // it is up
	id := testkit.Value[intent.ID](t, b.db, `INSERT INTO writ.intents (kind, args, run_at) VALUES ($1, '{}', now() + interval '1 h') RETURNING id`, job.Name)
	fired := proxy.LoseAnswer("'attempted'")
	b.db.Run(t, "INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) VALUES (now(), $1, $2, 0, 'run')", job.Name, id)
	select {
	case <-fired:
	case <-time.After(10 * time.Second):
		t.Fatal("the fault was never met")
	}
	began := time.Now()
	stop()
	if took := time.Since(began); took > 5*time.Second { // its Drain
		t.Errorf("it took %v to stop", took)
	}
	b.await(id, "scheduled")
}

// TestOldHint_besideNew: an old hint and the present one of the same intent are claimed together. The old one takes
// neither slot nor place in the registry with it: the worker signs off, as one does that holds nothing.
func TestOldHint_besideNew(t *testing.T) {
	t.Parallel()
	b := setup(t)
	later := workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { return workers.Snooze(time.Hour) }}
	_, stop := b.work(b.db.URL, later)
	ids := make([]intent.ID, 40)
	for n := range ids {
		ids[n] = b.create(job, n)
	}
	for _, id := range ids {
		b.await(id, "scheduled")
	}
	stop()
	b.db.Run(t, `INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op)
		SELECT now() - interval '1 s', kind, id, epoch - old, 'run' FROM writ.intents, generate_series(0, 1) old ORDER BY id, old DESC`)
	b.db.Run(t, "UPDATE writ.outbox SET due_at = now() + interval '1 h' WHERE due_at > now()")
	b.db.Run(t, "ALTER TABLE writ.intents DISABLE TRIGGER intents_guard") // the hints are there already
	b.db.Run(t, "UPDATE writ.intents SET run_at = now()")
	testkit.Until(t, 10*time.Second, "the hints are with the broker", func() (bool, string) {
		n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.outbox WHERE due_at <= now()")
		return n == 0, fmt.Sprint(n)
	})
	_, stop = b.work(b.db.URL, workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { return nil }})
	for _, id := range ids {
		b.await(id, "sent")
	}
	stop()
	if n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.workers"); n != 0 {
		t.Errorf("%d workers ended in good order and hold something still", n)
	}
}
