package intent_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/intent/intenttest"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

// TestFireAndForget: work of low value never waits for a person, gives up soon, and leaves nothing behind.
func TestFireAndForget(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	warm := intent.FireAndForget[comment]("blog.cache.warm")
	mux := workers.NewMux()
	workers.Handle(mux, warm, workers.Handler[comment]{Do: func(_ context.Context, job *workers.Job[comment]) error {
		if job.Args.ID == 0 {
			return errors.New("the cache is away")
		}
		return nil
	}})
	kit := intenttest.New(t, db.Pool, mux)
	made := func(args comment) intent.ID {
		c, err := warm.CreateAlone(t.Context(), db.Pool, args, intent.Opts{})
		if err != nil {
			t.Fatal(err)
		}
		return c.ID
	}
	done, failed := made(comment{7}), made(comment{})
	kit.Force(done, intenttest.CrashAfter, intenttest.Unknown) // and run in the end
	if steps := kit.DrainAll(); len(steps) != 6 {
		t.Errorf("steps %v; want 3 of each", steps)
	}
	intenttest.RequireStatus(t, db, done, "sent")
	intenttest.RequireStatus(t, db, failed, "error")

	pruned := func(age string) int {
		db.Run(t, "UPDATE writ.intents SET finished_at = now() - $1::text::interval", age)
		s := store.New(db.Pool)
		expiries, err := s.Expiries(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, e := range expiries {
			gone, err := s.Prune(t.Context(), e, 100)
			if err != nil {
				t.Fatal(err)
			}
			n += len(gone)
		}
		return n
	}
	for _, step := range []struct {
		age  time.Duration
		want int
	}{{59 * time.Minute, 0}, {61 * time.Minute, 1}, {23 * time.Hour, 0}, {25 * time.Hour, 1}} {
		if n := pruned(step.age.String()); n != step.want {
			t.Errorf("after %v: %d pruned; want %d", step.age, n, step.want)
		}
	}
}
