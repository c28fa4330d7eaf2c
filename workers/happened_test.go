package workers_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

// TestOnHappened: where a verdict says that it was done, of the probe or of a person, no worker has its hook any more, and
// OnHappened leaves the receipt, once. One that fails is owed, is seen, and is run again.
func TestOnHappened(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Run(t, "CREATE TABLE receipts (id uuid PRIMARY KEY, n int, epoch int)")
	receipt := func(ctx context.Context, tx pgx.Tx, j *workers.Job[args]) error {
		_, err := tx.Exec(ctx, "INSERT INTO receipts VALUES ($1, $2, $3)", j.ID(), j.Args.N, j.Epoch())
		return err
	}
	var locked atomic.Bool
	h := workers.Handler[args]{
		Do: func(ctx context.Context, j *workers.Job[args]) error {
			if j.Args.N > 0 {
				return errors.New("no answer came")
			}
			return j.Done(func(ctx context.Context, tx pgx.Tx) error { return receipt(ctx, tx, j) })
		},
		OnHappened: func(ctx context.Context, tx pgx.Tx, j *workers.Job[args]) error {
			if err := receipt(ctx, tx, j); err != nil || !locked.Load() {
				return err
			}
			return errors.New("the orders are locked")
		},
		Probing: quick,
	}
	b.work(b.db.URL, h, job)
	h.Probe = always(workers.WasDone)
	b.work(b.db.URL, h, asked)
	receipts := func(id intent.ID) int {
		return testkit.Value[int](t, b.db, "SELECT count(*) FROM receipts WHERE id = $1", id)
	}
	ends := func(id intent.ID, event string) {
		t.Helper()
		testkit.Until(t, 20*time.Second, event, func() (bool, string) {
			e := b.events(id)
			return len(e) > 0 && e[len(e)-1] == event, fmt.Sprint(e)
		})
	}

	plain := b.create(job, 0)
	b.await(plain, "sent")
	probed := b.create(asked, 7)
	b.await(probed, "sent")
	ends(probed, "recovered")

	locked.Store(true)
	decided := b.create(job, 8)
	seen := b.await(decided, "ambiguous")
	if _, err := intent.Happened(t.Context(), b.db, intent.Verdict{ID: decided, Seen: seen.Position(), Actor: "ann", Why: "it is in their list"}); err != nil {
		t.Fatal(err)
	}
	ends(decided, "recovery-failed")
	if why := b.why(decided); receipts(decided) != 0 || !strings.Contains(why, "OnHappened") || !strings.Contains(why, "the orders are locked") {
		t.Errorf("%d receipts, and why says %q", receipts(decided), why)
	}
	locked.Store(false)
	b.db.Run(t, `INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) SELECT now(), kind, id, epoch, 'recover' FROM writ.intents WHERE id = $1`, decided)
	ends(decided, "recovered")

	for _, id := range []intent.ID{plain, probed, decided} {
		if n := receipts(id); n != 1 {
			t.Errorf("%d receipts of %s; want 1", n, id)
		}
	}
	if why := b.why(decided); strings.Contains(why, "OnHappened") {
		t.Errorf("nothing is owed, and why says %q", why)
	}
}
