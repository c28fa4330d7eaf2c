package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

// TestSafePointOrder: a safe point whose statement comes late, out of a lost connection, does not put progress back; one that is
// said again is taken again; and only the holder's, at its epoch, counts.
func TestSafePointOrder(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	db := testkit.Database(t)
	s, worker := store.New(db.Pool), uuid.New()
	db.Run(t, "INSERT INTO writ.workers (id, host, pid, version, kinds, slots, ttl) VALUES ($1, 'h', 1, 'v', '{}', 1, '1 day')", worker)
	db.Run(t, "INSERT INTO writ.intents (kind) VALUES ('test.row.walk')")
	id := testkit.Value[uuid.UUID](t, db, "SELECT id FROM writ.intents")
	claim := func(epoch int32) store.Hold {
		t.Helper()
		claimed, err := s.Claim(ctx, worker, []store.Group{{Epoch: epoch, Timeout: time.Minute, IDs: []uuid.UUID{id}}})
		if err != nil || len(claimed) != 1 {
			t.Fatalf("claimed %d, %v; want 1", len(claimed), err)
		}
		return store.Hold{ID: id, Epoch: epoch + 1, Worker: worker}
	}
	say := func(h store.Hold, n int32, progress string, held bool) {
		t.Helper()
		got, err := s.SafePoint(ctx, h, n, []byte(progress))
		if err != nil || got.Held != held {
			t.Errorf("point %d at epoch %d: %+v, %v; want taken: %t", n, h.Epoch, got, err, held)
		}
	}
	is := func(h store.Hold, want string) {
		t.Helper()
		if got, err := s.Progress(ctx, h); err != nil || !got.Held || string(got.Progress) != want {
			t.Errorf("progress at epoch %d: %+v (%s), %v; want %s", h.Epoch, got, got.Progress, err, want)
		}
	}
	first := claim(0)
	say(first, 1, `"one"`, true)
	say(first, 2, `"two"`, true)
	say(first, 1, `"one"`, false)
	say(first, 2, `"two"`, true)
	say(store.Hold{ID: id, Epoch: 1, Worker: uuid.New()}, 3, `"another's"`, false)
	is(first, `"two"`)
	left, err := s.FinishBatch(ctx, worker, []store.Outcome{{ID: id, Epoch: 1, Event: store.Retried, Free: true, Why: "handed over"}})
	if err != nil || len(left) > 0 {
		t.Fatalf("left %v, %v", left, err)
	}
	say(first, 3, `"nobody's"`, false)
	second := claim(1)
	is(second, `"two"`)
	say(second, 1, `"three"`, true)
	say(first, 3, `"the old one's"`, false)
	is(second, `"three"`)
}

// TestExtend_guards: only the holder of an attempt that is not flagged gets more time, and none gets less.
func TestExtend_guards(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	db := testkit.Database(t)
	s, worker := store.New(db.Pool), uuid.New()
	db.Run(t, "INSERT INTO writ.workers (id, host, pid, version, kinds, slots, ttl) VALUES ($1, 'h', 1, 'v', '{}', 1, '1 day')", worker)
	db.Run(t, "INSERT INTO writ.intents (kind) VALUES ('test.row.wait')")
	h := store.Hold{ID: testkit.Value[uuid.UUID](t, db, "SELECT id FROM writ.intents"), Epoch: 1, Worker: worker}
	if got, err := s.Extend(ctx, h, time.Hour); err != nil || got.Held || got.State != "pending" {
		t.Errorf("of a pending one: %+v, %v", got, err)
	}
	if _, err := s.Claim(ctx, worker, []store.Group{{Timeout: time.Minute, IDs: []uuid.UUID{h.ID}}}); err != nil {
		t.Fatal(err)
	}
	for _, by := range []time.Duration{time.Hour, time.Second} {
		if got, err := s.Extend(ctx, h, by); err != nil || !got.Held {
			t.Errorf("by %v: %+v, %v", by, got, err)
		}
	}
	if left := testkit.Value[float64](t, db, "SELECT extract(epoch FROM deadline_at - now())::float8 FROM writ.intents"); left > 3600 || left < 3540 {
		t.Errorf("%v s are left; want about an hour", left)
	}
	db.Run(t, "UPDATE writ.intents SET flagged_at = now(), flag_reason = 'by hand'")
	if got, err := s.Extend(ctx, h, 2*time.Hour); err != nil || got.Held || got.Flag != "by hand" {
		t.Errorf("of a flagged one: %+v, %v", got, err)
	}
	if got, err := s.Extend(ctx, store.Hold{ID: uuid.New(), Epoch: 1, Worker: worker}, time.Hour); err != nil || got.Held || got.State != "" {
		t.Errorf("of none: %+v, %v", got, err)
	}
}
