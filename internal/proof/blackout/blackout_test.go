package blackout

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/migrations"
)

// standing is how far an intent is with its attempts.
type standing struct {
	State   string
	Attempt int
	Epoch   int
	RunAt   time.Time
}

// TestBlackout: attempts and backoff are in the database, so a blackout of everything between two attempts changes nothing: the next
// one has the next number, and does not come before its time.
func TestBlackout(t *testing.T) {
	t.Parallel()
	const many = 40
	ctx := context.Background()
	w := build(t)
	pool, err := pgxpool.New(ctx, w.stack.DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := migrations.Up(ctx, pool.Config().ConnConfig); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.settleQueue(pool)
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		_, err := tried.CreateMany(ctx, tx, make([]intent.One[task], many))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	look := func() (map[intent.ID]standing, error) {
		rows, err := pool.Query(ctx, "SELECT id, state, attempt, epoch, run_at FROM writ.intents")
		if err != nil {
			return nil, err
		}
		out := map[intent.ID]standing{}
		var id intent.ID
		var s standing
		_, err = pgx.ForEachRow(rows, []any{&id, &s.State, &s.Attempt, &s.Epoch, &s.RunAt}, func() error { out[id] = s; return nil })
		return out, err
	}
	all := func(most time.Duration, what string, as func(standing) bool) map[intent.ID]standing {
		t.Helper()
		var seen map[intent.ID]standing
		testkit.Until(t, most, what, func() (bool, string) {
			var err error
			if seen, err = look(); err != nil {
				return false, err.Error()
			}
			n := 0
			for _, s := range seen {
				if as(s) {
					n++
				}
			}
			return n == many, fmt.Sprintf("%d of %d", n, many)
		})
		return seen
	}
	before := all(30*time.Second, "the first attempts are over", func(s standing) bool { return s.State == "pending" && s.Attempt == 1 })

	w.kill()
	if err := w.stack.StopPostgres(ctx, "immediate"); err != nil {
		t.Fatal(err)
	}
	if err := w.stack.KillBroker(ctx); err != nil {
		t.Fatal(err)
	}
	dark := time.Now()
	if err := w.stack.StartPostgres(ctx); err != nil {
		t.Fatal(err)
	}
	after := all(30*time.Second, "the database has kept all", func(standing) bool { return true })
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the blackout changed rows (-before +after):\n%s", diff)
	}
	if err := w.stack.StartBroker(ctx); err != nil {
		t.Fatal(err)
	}
	w.start()
	all(2*time.Minute, "all are sent", func(s standing) bool { return s.State == "sent" && s.Attempt == 3 })

	least := time.Duration(1 << 62)
	for id, entries := range w.entries() {
		if len(entries) != 3 || entries[0].Attempt != 1 || entries[1].Attempt != 2 || entries[2].Attempt != 3 {
			t.Errorf("%s: the outside world saw %+v; want attempts 1, 2 and 3", id, entries)
			continue
		}
		early := entries[1].At.Sub(before[id].RunAt)
		if least = min(least, early); early < 0 {
			t.Errorf("%s: its second attempt came %v before its time", id, -early)
		}
		if !entries[0].At.Before(dark) || !entries[1].At.After(dark) {
			t.Errorf("%s: the blackout was not between its first two attempts", id)
		}
	}
	t.Logf("%d intents; dark %v after the first attempt was over; second attempts at the earliest %v after their time", len(w.entries()), time.Since(dark).Round(time.Second), least)
}
