package workers_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

func ranked(name string, p intent.Priority) intent.Kind[args] {
	k := job
	k.Name, k.Queue, k.Priority, k.Timeout = name, "ranked", p, time.Minute
	return k
}

var (
	urgent = ranked("test.job.urgent", intent.High)
	usual  = ranked("test.job.usual", intent.Normal)
	idle   = ranked("test.job.idle", intent.Low)
)

// TestPriorities: hints of high priority go before a backlog of low ones that was there before them, and those have their
// share of the way.
func TestPriorities(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const low, normal, high, slots = 300, 100, 100, 4
	add := func(k intent.Kind[args], n int) {
		b.db.Run(t, "INSERT INTO writ.intents (kind, args) SELECT $1, '{}' FROM generate_series(1, $2::int)", k.Name, n)
	}
	work := func(h workers.Handler[args]) (stop func()) {
		return b.workWith(workers.Config{Slots: slots}, func(mux *workers.Mux) {
			for _, k := range []intent.Kind[args]{urgent, usual, idle} {
				workers.Handle(mux, k, h)
			}
		})
	}
	stop := work(workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { return nil }})
	for _, k := range []intent.Kind[args]{urgent, usual, idle} { // the queues are there
		b.await(b.create(k, 0), "sent")
	}
	stop()
	queues := testkit.Value[[]string](t, b.db, "SELECT array_agg(queue ORDER BY queue) FROM writ.kinds")
	if fmt.Sprint(queues) != "[ranked ranked.hi ranked.lo]" {
		t.Errorf("queues %v", queues)
	}
	add(idle, low)
	add(usual, normal)
	add(urgent, high)
	testkit.Until(t, 20*time.Second, "all hints are with the broker", func() (bool, string) {
		n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.outbox")
		return n == 0, fmt.Sprint(n)
	})
	var mu sync.Mutex
	var order []string
	work(workers.Handler[args]{Do: func(_ context.Context, j *workers.Job[args]) error {
		mu.Lock()
		defer mu.Unlock()
		order = append(order, j.Kind())
		return nil
	}})
	testkit.Until(t, 30*time.Second, "all are done", func() (bool, string) {
		n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.intents WHERE state <> 'sent'")
		return n == 0, fmt.Sprint(n)
	})
	lastUrgent, idleBefore, usualBefore := 0, 0, 0
	for i, kind := range order {
		if kind == urgent.Name {
			lastUrgent = i + 1
		}
	}
	for _, kind := range order[:lastUrgent] {
		switch kind {
		case idle.Name:
			idleBefore++
		case usual.Name:
			usualBefore++
		}
	}
	t.Logf("before the last urgent one of %d: %d usual, %d idle", high, usualBefore, idleBefore)
	// A fourteenth and two sevenths of them by turns; more of each until all queues are heard from.
	if idleBefore < 8 || idleBefore > 60 || usualBefore < 16 || usualBefore > 80 {
		t.Errorf("before the last urgent one of %d: %d usual, %d idle", high, usualBefore, idleBefore)
	}
}

// TestPrioritiesReserve: long jobs of low priority do not take every slot.
func TestPrioritiesReserve(t *testing.T) {
	t.Parallel()
	b := setup(t)
	release := make(chan struct{})
	b.workWith(workers.Config{Slots: 5}, func(mux *workers.Mux) {
		block := func(ctx context.Context, _ *workers.Job[args]) error {
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		workers.Handle(mux, idle, workers.Handler[args]{Do: block})
		workers.Handle(mux, usual, workers.Handler[args]{Do: block})
		workers.Handle(mux, urgent, workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { return nil }})
	})
	running := func(k intent.Kind[args], n int) {
		t.Helper()
		testkit.Until(t, 20*time.Second, fmt.Sprintf("%d of %s run", n, k.Name), func() (bool, string) {
			got := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.intents WHERE kind = $1 AND state = 'sending'", k.Name)
			return got == n, fmt.Sprint(got)
		})
	}
	b.db.Run(t, "INSERT INTO writ.intents (kind, args) SELECT $1, '{}' FROM generate_series(1, 20)", idle.Name)
	running(idle, 3) // one slot is left to usual ones, and one to urgent ones
	b.db.Run(t, "INSERT INTO writ.intents (kind, args) SELECT $1, '{}' FROM generate_series(1, 20)", usual.Name)
	running(usual, 1)
	for range 3 {
		b.await(b.create(urgent, 1), "sent")
	}
	running(idle, 3)
	close(release)
	testkit.Until(t, 60*time.Second, "all are done", func() (bool, string) {
		n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.intents WHERE state <> 'sent'")
		return n == 0, fmt.Sprint(n)
	})
}
