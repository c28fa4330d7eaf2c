package mutants_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

// TestUncommitted: nothing of a creation is seen by a relay before its commit, or after its rollback.
func TestUncommitted(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	tx, err := db.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := job.Create(context.Background(), tx, args{1}, intent.Opts{}); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"before the commit", "after the rollback"} {
		if n := testkit.Value[int](t, db, "SELECT count(*) FROM writ.outbox"); n != 0 {
			t.Errorf("%d outbox rows %s", n, when)
		}
		if err := tx.Rollback(context.Background()); err != nil && when == "before the commit" {
			t.Fatal(err)
		}
	}
}

// TestSettleOrphan_guard: an attempt is settled only as it was read, and only while its worker is dead.
func TestSettleOrphan_guard(t *testing.T) {
	t.Parallel()
	r := setup(t)
	entered, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	r.work(r.db.URL, job, func(context.Context, *workers.Job[args]) error {
		entered <- struct{}{}
		<-release
		return nil
	}, workers.Config{})
	id := r.create(job, 1)
	<-entered
	engine := store.New(r.db.Pool)
	settle := func(epoch int32) {
		t.Helper()
		now := testkit.Value[time.Time](t, r.db, "SELECT clock_timestamp()")
		observed := store.Observed{Since: now.Add(-time.Hour), Last: now, Fresh: time.Minute}
		if _, err := engine.SettleOrphan(context.Background(), store.Hint{ID: id, Epoch: epoch}, observed, time.Second); err != nil {
			t.Fatal(err)
		}
	}
	settle(1) // its worker is alive: it came back after it was looked for
	if got := r.get(id); got.Status != "running" {
		t.Errorf("the attempt of a living worker is %s", got.Status)
	}
	r.db.Run(t, "UPDATE writ.intents SET worker_id = gen_random_uuid() WHERE id = $1", id)
	settle(0) // its worker is dead, but it is another attempt than the one that was read
	if got := r.get(id); got.Status != "running" {
		t.Errorf("an attempt that was not read is %s", got.Status)
	}
	settle(1)
	if got := r.get(id); got.Status != "ambiguous" {
		t.Errorf("the attempt of a dead worker is %s; want ambiguous: %s", got.Status, fmt.Sprint(got.FlagReason))
	}
}

// TestClaimAgain_refused: a claim that is sent again and refused for now is not given up: an earlier one of the same
// worker, whose answer was lost, may be applied as soon as the reason has passed, and nobody would know of it.
func TestClaimAgain_refused(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	engine, me := store.New(db.Pool), intent.NewID()
	id := testkit.Value[intent.ID](t, db, "INSERT INTO writ.intents (kind) VALUES ($1) RETURNING id", job.Name)
	db.Run(t, `INSERT INTO writ.workers (id, host, pid, version, kinds, slots, ttl, heartbeat_at)
		VALUES ($1, 'h', 1, '', '{}', 1, '10 s', now() - interval '1 min')`, me)
	again := func() (*store.Claimed, error) {
		return engine.ClaimAgain(context.Background(), me, store.Hint{ID: id, Epoch: 0, Kind: job.Name, Op: "run"}, time.Minute)
	}
	if got, err := again(); !errors.Is(err, store.ErrUndecided) {
		t.Errorf("with a stale heartbeat: %v, %v; want %v", got, err, store.ErrUndecided)
	}
	db.Run(t, "UPDATE writ.workers SET heartbeat_at = now() WHERE id = $1", me)
	if got, err := again(); err != nil || got == nil || got.Epoch != 1 {
		t.Errorf("with a fresh one: %v, %v; want it claimed at epoch 1", got, err)
	}
	db.Run(t, "UPDATE writ.intents SET flagged_at = now(), flag_reason = 'unknown' WHERE id = $1", id)
	if got, err := again(); err != nil || got != nil {
		t.Errorf("flagged meanwhile: %v, %v; want nothing, for good", got, err)
	}
}
