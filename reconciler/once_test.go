package reconciler_test

import (
	"context"
	"testing"
	"time"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

// TestOnce_flaggedByItsWorker: a worker that flagged all that it held and then died is found dead, too: until then a probe's
// «not done» does not count.
func TestOnce_flaggedByItsWorker(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare(job.Name, "probed")
	id := b.insert(job.Name, 1, 0)[0]
	w := b.worker(0)
	b.claim(w, id)
	if _, err := b.store.FinishOne(context.Background(), w, store.Outcome{ID: id, Epoch: 1, Event: store.Flagged, Why: "overdue", Probe: true}); err != nil {
		t.Fatal(err)
	}
	b.db.Run(t, "UPDATE writ.intents SET deadline_at = now() - interval '1 h' WHERE id = $1", id)
	b.silence(w, time.Hour)
	if got := b.once(); got.Left != 0 || got.Flagged != 0 {
		t.Errorf("it did %+v; there is nothing to be flagged", got)
	}
	if danger := testkit.Value[*string](t, b.db, "SELECT writ.probe_danger(i) FROM writ.intents i WHERE id = $1", id); danger != nil {
		t.Errorf("a not done does not count: %s", *danger)
	}
}

// TestForgetWorkers: the row of a dead worker that a person is to decide about stays, for it says which machine it was.
func TestForgetWorkers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	named, failed := b.worker(0), b.worker(0)
	b.worker(0) // held nothing
	ids := b.insert(job.Name, 2, 0)
	b.claim(named, ids[0])
	b.claim(failed, ids[1])
	for n, w := range []store.Outcome{{Event: store.Flagged, Why: "unknown"}, {Event: store.Failed, Why: "stopped", Error: "no such customer"}} {
		w.ID, w.Epoch = ids[n], 1
		if _, err := b.store.FinishOne(context.Background(), []intent.ID{named, failed}[n], w); err != nil {
			t.Fatal(err)
		}
	}
	b.db.Run(t, "UPDATE writ.workers SET heartbeat_at = now() - interval '2 h', swept_at = now() - interval '2 h'")
	forget := func(want ...intent.ID) {
		t.Helper()
		if err := b.store.ForgetWorkers(context.Background()); err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !testkit.Value[bool](t, b.db, "SELECT EXISTS (SELECT FROM writ.workers WHERE id = $1)", w) {
				t.Errorf("the row of %s is gone", w)
			}
		}
		if n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.workers"); n != len(want) {
			t.Errorf("%d workers on record; want %d", n, len(want))
		}
	}
	forget(named, failed)
	b.db.Run(t, "UPDATE writ.workers SET swept_at = now() - interval '2 h'")
	b.db.Run(t, "SELECT writ.give_up($1, 'sending', 1, 'ann', 'nobody will ever know')", ids[0])
	b.db.Run(t, "SELECT writ.cancel($1, 'error', 1, 'ann', 'the customer is gone')", ids[1])
	forget(named)
}
