//go:build drill

package drills

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

// The two kinds that one worker process has: one that is well, and one whose every attempt fails.
var (
	steady  = intent.Kind[effect]{Name: "drill.steady.run", Timeout: time.Minute}
	failing = intent.Kind[effect]{Name: "drill.failing.run", Timeout: time.Minute, MaxAttempts: 1000}
)

// playBoth is a worker process that has both.
func playBoth(ctx context.Context, log *slog.Logger) error {
	pool, err := connect(context.Background())
	if err != nil {
		return err
	}
	defer pool.Close()
	mux := workers.NewMux()
	work := func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
			return nil
		}
	}
	workers.Handle(mux, steady, workers.Handler[effect]{Do: func(ctx context.Context, _ *workers.Job[effect]) error { return work(ctx) }})
	workers.Handle(mux, failing, workers.Handler[effect]{
		Do: func(ctx context.Context, _ *workers.Job[effect]) error {
			return workers.NotDone(errors.Join(errors.New("the other side is down"), work(ctx)))
		},
		Breaker: workers.Breaker{Ratio: 0.5},
	})
	w, err := workers.New(pool, os.Getenv("AMQP_URL"), mux, workers.Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	log.Info("both kinds", "worker", w.ID())
	fmt.Println(w.ID())
	return w.Run(ctx)
}

// TestFailingKind: 10,000 intents of a kind that fails at each attempt come to two worker processes, until its breaker opens, and then wait with
// the broker, but for one that is tried now and then. Another kind of the same processes starts as soon as without them. In turns, each in a
// database of its own, for a minute; what counts is the ratio. It is a measurement: it means something on a quiet machine only.
func TestFailingKind(t *testing.T) {
	const rounds, most = 3, 1.20
	took := map[int][]time.Duration{}
	for round := range rounds {
		turns := []int{0, 10_000}
		if round%2 == 1 {
			slices.Reverse(turns)
		}
		for _, n := range turns {
			t.Run(fmt.Sprintf("%d/%d", round, n), func(t *testing.T) { took[n] = append(took[n], besideFailing(t, n)) })
		}
	}
	if t.Failed() {
		return
	}
	for _, all := range took {
		slices.Sort(all)
	}
	ratio := float64(took[10_000][rounds/2]) / float64(took[0][rounds/2])
	t.Logf("p99 from creation to start: %v without, %v beside 10,000 that fail; ratio of the medians %.2f", took[0], took[10_000], ratio)
	if ratio > most {
		t.Errorf("10,000 intents of a failing kind make another's p99 %.2f times as long; want at most %.2f", ratio, most)
	}
}

// besideFailing returns the p99 from creation to start of a steady load beside n intents that fail.
func besideFailing(t *testing.T, n int) time.Duration {
	t.Helper()
	f := &field{t: t, db: testkit.DatabaseOn(t, stack.DatabaseURL), requeue: time.Minute}
	f.dropAfter(steady.Name, failing.Name)
	f.start("relay")
	f.start("reconciler")
	f.start("both")
	f.start("both")
	if n > 0 {
		f.bulk(failing, n, effect{})
		testkit.Until(t, 2*time.Minute, "the breaker opens, and all hints are with the broker", func() (bool, string) {
			left := testkit.Value[int](t, f.db, "SELECT count(*) FROM writ.outbox WHERE due_at <= now()")
			opened := testkit.Value[bool](t, f.db, "SELECT EXISTS (SELECT FROM writ.log WHERE event = 'breaker-opened')")
			return opened && left == 0, fmt.Sprintf("opened: %t, %d in the outbox", opened, left)
		})
	}
	load := func(many int) {
		var creating sync.WaitGroup
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for range many {
			<-tick.C
			creating.Go(func() {
				if _, err := create(context.Background(), f.db, steady, effect{}); err != nil {
					t.Error(err)
				}
			})
		}
		creating.Wait()
		testkit.Until(t, time.Minute, "all of the steady load is sent", func() (bool, string) {
			open := testkit.Value[int](t, f.db, "SELECT count(*) FROM writ.intents WHERE kind = $1 AND state <> 'sent'", steady.Name)
			return open == 0, fmt.Sprint(open)
		})
	}
	load(1000) // connections, plans, and what the flood left to be written
	began := testkit.Value[time.Time](t, f.db, "SELECT clock_timestamp()")
	attempts := "SELECT coalesce(sum(epoch), 0)::int FROM writ.intents WHERE kind = $1"
	before := testkit.Value[int](t, f.db, attempts, failing.Name)
	load(6000)
	failed := testkit.Value[int](t, f.db, attempts, failing.Name) - before
	p99 := time.Duration(testkit.Value[float64](t, f.db, `SELECT 1e9 * percentile_disc(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - requested_at))
		FROM writ.intents WHERE kind = $1 AND requested_at > $2`, steady.Name, began))
	t.Logf("p99 %v of 6,000 beside %d that fail, which made %d attempts meanwhile", p99, n, failed)
	return p99
}
