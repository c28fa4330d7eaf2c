package store_test

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

// TestFinishBatch_whenTheRowMoved: outcomes are written where the claims left the rows. One that has moved since is left
// out and written singly, and what now stands in its place is left alone, even if the same worker holds it.
func TestFinishBatch_whenTheRowMoved(t *testing.T) {
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
	db.Run(t, "INSERT INTO writ.intents (kind) SELECT 'test.row.move' FROM generate_series(1, 3)")
	ids := testkit.Value[[]uuid.UUID](t, db, "SELECT array_agg(id ORDER BY id) FROM writ.intents")
	claimed, err := s.Claim(ctx, worker, []store.Group{{Timeout: time.Minute, IDs: ids}})
	if err != nil || len(claimed) != 3 {
		t.Fatalf("claimed %d, %v; want 3", len(claimed), err)
	}
	slices.SortFunc(claimed, func(a, b store.Claimed) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	moved, still, misplaced := claimed[0], claimed[1], claimed[2]
	db.Run(t, "UPDATE writ.intents SET progress = '1' WHERE id = $1", moved.ID)

	outcomes := []store.Outcome{
		{ID: moved.ID, Epoch: 1, Ref: moved.Ref, Event: store.Succeeded},
		{ID: still.ID, Epoch: 1, Ref: still.Ref, Event: store.Succeeded},
		{ID: moved.ID, Epoch: 1, Ref: misplaced.Ref, Event: store.Succeeded},
	}
	left, err := s.FinishBatch(ctx, worker, outcomes)
	if err != nil || len(left) != 2 || left[0].ID != moved.ID || left[1].ID != moved.ID {
		t.Fatalf("left out: %v, %v; want the moved one twice", left, err)
	}
	states := testkit.Value[[]string](t, db, "SELECT array_agg(state ORDER BY id) FROM writ.intents")
	if states[0] != "sending" || states[1] != "sent" || states[2] != "sending" {
		t.Errorf("states %v; want sending, sent, sending", states)
	}
	if fate, err := s.FinishOne(ctx, worker, left[0]); err != nil || fate.Late {
		t.Errorf("written singly: %+v, %v; want it applied", fate, err)
	}
}
