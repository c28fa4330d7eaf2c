package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

// TestFinishBatch_whenARowIsLocked: somebody else's open transaction on one row holds up no other outcome. That one is left
// out, and written singly.
func TestFinishBatch_whenARowIsLocked(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	db := testkit.Database(t)
	s, worker := store.New(db.Pool), uuid.New()
	conn, err := db.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := store.SendBeat(ctx, conn.Conn(), store.Beat{ID: worker, Host: "h", PID: 1, Version: "v", Kinds: []string{}, TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	db.Run(t, "INSERT INTO writ.intents (kind) SELECT 'test.row.lock' FROM generate_series(1, 2)")
	ids := testkit.Value[[]uuid.UUID](t, db, "SELECT array_agg(id ORDER BY id) FROM writ.intents")
	claimed, err := s.Claim(ctx, worker, []store.Group{{Timeout: time.Minute, IDs: ids}})
	if err != nil || len(claimed) != 2 {
		t.Fatalf("claimed %d, %v; want 2", len(claimed), err)
	}
	other, err := db.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Exec(ctx, "SELECT FROM writ.intents WHERE id = $1 FOR UPDATE", ids[0]); err != nil {
		t.Fatal(err)
	}
	left, err := s.FinishBatch(ctx, worker, []store.Outcome{
		{ID: ids[1], Epoch: 1, Event: store.Succeeded},
		{ID: ids[0], Epoch: 1, Event: store.Succeeded},
	})
	if err != nil || len(left) != 1 || left[0].ID != ids[0] {
		t.Fatalf("left out: %v, %v; want the locked one", left, err)
	}
	if err := other.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	states := testkit.Value[[]string](t, db, "SELECT array_agg(state ORDER BY id) FROM writ.intents")
	if states[0] != "sending" || states[1] != "sent" {
		t.Errorf("states %v; want sending, sent", states)
	}
	if fate, err := s.FinishOne(ctx, worker, left[0]); err != nil || fate.Late {
		t.Errorf("written singly: %+v, %v; want it applied", fate, err)
	}
}

// TestFinishBatch_again: a batch is written again, as after a commit whose answer was lost. What it wrote is found; what another
// worker writes about these attempts is not taken for that.
func TestFinishBatch_again(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	db := testkit.Database(t)
	s, worker := store.New(db.Pool), uuid.New()
	conn, err := db.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := store.SendBeat(ctx, conn.Conn(), store.Beat{ID: worker, Host: "h", PID: 1, Version: "v", Kinds: []string{}, TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	db.Run(t, "INSERT INTO writ.intents (kind) SELECT 'test.row.again' FROM generate_series(1, 4)")
	ids := testkit.Value[[]uuid.UUID](t, db, "SELECT array_agg(id ORDER BY id) FROM writ.intents")
	if claimed, err := s.Claim(ctx, worker, []store.Group{{Timeout: time.Minute, IDs: ids[:3]}}); err != nil || len(claimed) != 3 {
		t.Fatalf("claimed %d, %v; want 3", len(claimed), err)
	}
	sent := func(id uuid.UUID, epoch int32) store.Outcome {
		return store.Outcome{ID: id, Epoch: epoch, Event: store.Succeeded}
	}
	failed := store.Outcome{ID: ids[2], Epoch: 1, Event: store.Failed, Error: "no", Why: "final"}
	finish := func(as uuid.UUID, what ...store.Outcome) []store.Outcome {
		t.Helper()
		left, err := s.FinishBatch(ctx, as, what)
		if err != nil {
			t.Fatal(err)
		}
		return left
	}
	if left := finish(worker, sent(ids[0], 1), failed); len(left) > 0 {
		t.Fatalf("left out at first: %v", left)
	}
	want := []store.Outcome{failed, sent(ids[0], 2), sent(ids[3], 1)} // to be compared with the log; another epoch; never claimed
	if diff := cmp.Diff(want, finish(worker, sent(ids[0], 1), failed, sent(ids[0], 2), sent(ids[1], 1), sent(ids[3], 1))); diff != "" {
		t.Errorf("left out of the second (-want +got):\n%s", diff)
	}
	if left := finish(uuid.New(), sent(ids[0], 1), sent(ids[1], 1)); len(left) != 2 {
		t.Errorf("of another worker's only %v were left out", left)
	}
	states := testkit.Value[[]string](t, db, "SELECT array_agg(state ORDER BY id) FROM writ.intents")
	if diff := cmp.Diff([]string{"sent", "sent", "error", "pending"}, states); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
}
