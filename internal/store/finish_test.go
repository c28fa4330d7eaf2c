package store_test

import (
	"context"
	"testing"
	"time"

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
