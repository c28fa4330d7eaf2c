package sql_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/writhq/writ/internal/testkit"
)

const fragile = "shop.order.charge"

// said is what a worker hears.
type said struct {
	state      string
	generation int
	mine       bool
}

// report is a worker's.
type report struct {
	worker          uuid.UUID
	seen            int
	calls, failures int
	verdict         string
	timid           bool
	lease           string
}

func (b *bench) report(t *testing.T, r report) (s said) {
	t.Helper()
	if r.lease == "" {
		r.lease = "1 h"
	}
	err := b.QueryRow(context.Background(), "SELECT state, generation, mine FROM writ.breaker_report($1, $2, $3, $4, $5, nullif($6, ''), $7, $8::text::interval)",
		fragile, r.worker, r.seen, r.calls, r.failures, r.verdict, !r.timid, r.lease).Scan(&s.state, &s.generation, &s.mine)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (b *bench) withBreaker(t *testing.T) {
	t.Helper()
	b.Run(t, `INSERT INTO writ.kinds (name, queue, class, breaker) VALUES ($1, $1, 'manual', '{"ratio": 0.5, "least": 20, "window": 30, "open": 60, "most": 150}')`, fragile)
}

// TestBreaker walks it through its states: by the counts of two workers together, trials, leases that end, and verdicts.
func TestBreaker(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.withBreaker(t)
	one, two := uuid.New(), uuid.New()
	is := func(want said, got said) {
		t.Helper()
		if got != want {
			t.Errorf("%+v; want %+v", got, want)
		}
	}
	pass := func() { b.Run(t, "UPDATE writ.breakers SET until = clock_timestamp() WHERE state = 'open'") }
	left := func(want float64) {
		t.Helper()
		if got := testkit.Value[float64](t, b.DB, "SELECT extract(epoch FROM until - changed_at) FROM writ.breakers"); got < want-1 || got > want+1 {
			t.Errorf("it is open for %v s; want %v", got, want)
		}
	}
	is(said{"closed", 0, false}, b.report(t, report{worker: one, calls: 12, failures: 9}))
	is(said{"closed", 0, false}, b.report(t, report{worker: two, calls: 7, failures: 7}))              // 16 of 19: too few
	is(said{"closed", 0, false}, b.report(t, report{worker: two, calls: 100}))                         // 16 of 119
	is(said{"closed", 0, false}, b.report(t, report{worker: two, seen: 7, calls: 999, failures: 999})) // of another state
	b.Run(t, "UPDATE writ.breaker_counts SET slot = slot - 10")                                        // longer ago than the window
	is(said{"closed", 0, false}, b.report(t, report{worker: one, calls: 12, failures: 9}))
	is(said{"open", 1, false}, b.report(t, report{worker: two, calls: 8, failures: 1})) // 10 of 20
	left(60)
	is(said{"open", 1, false}, b.report(t, report{worker: one, seen: 1, verdict: "done"})) // nobody asked it
	pass()
	is(said{"open", 1, false}, b.report(t, report{worker: one, seen: 1, timid: true}))
	is(said{"half-open", 2, true}, b.report(t, report{worker: one, seen: 1}))
	is(said{"half-open", 2, false}, b.report(t, report{worker: two, seen: 1}))                          // one is enough
	is(said{"half-open", 2, false}, b.report(t, report{worker: two, seen: 2, verdict: "done"}))         // it is not asked
	is(said{"half-open", 2, false}, b.report(t, report{worker: two, seen: 2, calls: 99, failures: 99})) // nothing is counted
	is(said{"open", 3, false}, b.report(t, report{worker: one, seen: 2, verdict: "failed"}))
	left(120)
	is(said{"open", 3, false}, b.report(t, report{worker: one, seen: 2, verdict: "failed"})) // said again: its answer was lost
	pass()
	is(said{"half-open", 4, true}, b.report(t, report{worker: one, seen: 3, lease: "0"}))
	is(said{"half-open", 5, true}, b.report(t, report{worker: two, seen: 4})) // one is not heard of any more
	is(said{"half-open", 5, false}, b.report(t, report{worker: one, seen: 4, verdict: "done"}))
	is(said{"open", 6, false}, b.report(t, report{worker: two, seen: 5, verdict: "failed"}))
	left(150) // the most
	pass()
	is(said{"half-open", 7, true}, b.report(t, report{worker: two, seen: 6}))
	is(said{"closed", 8, false}, b.report(t, report{worker: two, seen: 7, verdict: "done"}))
	is(said{"closed", 8, false}, b.report(t, report{worker: two, seen: 0, calls: 99, failures: 99})) // of before
	if n := testkit.Value[int](t, b.DB, "SELECT count(*) FROM writ.breaker_counts"); n != 0 {
		t.Errorf("%d counts are left", n)
	}
	is(said{"open", 9, false}, b.report(t, report{worker: two, seen: 8, calls: 20, failures: 20}))
	left(60) // anew
	b.Run(t, "UPDATE writ.kinds SET breaker = NULL")
	if state := testkit.Value[string](t, b.DB, "SELECT breaker FROM writ.flow"); state != "closed" {
		t.Errorf("a breaker that is declared no more is %s", state)
	}
	want := "opened tried opened tried tried opened tried closed opened"
	if got := testkit.Value[string](t, b.DB, "SELECT string_agg(substr(event, 9), ' ' ORDER BY id) FROM writ.log WHERE evidence ->> 'kind' = $1 AND event LIKE 'breaker-%'", fragile); got != want {
		t.Errorf("the log has %s; want %s", got, want)
	}
}

// TestBreaker_many: of many workers that ask at once exactly one may try.
func TestBreaker_many(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.withBreaker(t)
	b.Run(t, "INSERT INTO writ.breakers (kind, state, generation, until) VALUES ($1, 'open', 1, now())", fragile)
	var mu sync.Mutex
	may := 0
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if s := b.report(t, report{worker: uuid.New(), seen: 1}); s.mine {
				mu.Lock()
				may++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if may != 1 {
		t.Errorf("%d may try; want 1", may)
	}
}

// TestPauseQueue: all kinds of a queue, also one that is declared later; a kind that is paused by itself stays so.
func TestPauseQueue(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Run(t, "INSERT INTO writ.kinds (name, queue, class) VALUES ('a.b.one', 'slow', 'manual'), ('a.b.two', 'slow', 'manual'), ('a.b.three', 'fast', 'manual')")
	paused := func() string {
		return testkit.Value[string](t, b.DB, "SELECT coalesce(string_agg(kind || ': ' || pause, ', ' ORDER BY kind), '') FROM writ.flow WHERE paused")
	}
	is := func(want string) {
		t.Helper()
		if got := paused(); got != want {
			t.Errorf("paused are %s; want %s", got, want)
		}
	}
	b.Run(t, "SELECT writ.pause('ann', 'it is far too slow', 'a.b.two')")
	b.Run(t, "SELECT writ.pause('eve', 'the disk is full', queue => 'slow')")
	b.Run(t, "INSERT INTO writ.kinds (name, queue, class) VALUES ('a.b.later', 'slow', 'manual')")
	slow := "queue slow is paused by eve (the disk is full)"
	is(fmt.Sprintf("a.b.later: %s, a.b.one: %s, a.b.two: %s", slow, slow, slow))
	b.Run(t, "SELECT writ.resume('eve', 'the disk is empty', queue => 'slow')")
	is("a.b.two: kind a.b.two is paused by ann (it is far too slow)")
	if n := testkit.Value[int](t, b.DB, "SELECT count(*) FROM writ.kinds WHERE opened_at IS NOT NULL"); n != 3 {
		t.Errorf("%d kinds opened; want the 3 of the queue", n)
	}
	b.Run(t, "SELECT writ.pause('eve', 'all of it is too slow')")
	if got := paused(); strings.Count(got, "everything is paused by eve (all of it is too slow)") != 4 {
		t.Errorf("paused are %s", got)
	}
	if _, err := b.Exec(context.Background(), "SELECT writ.pause('eve', 'all of it is too slow', 'a.b.one', 'slow')"); err == nil {
		t.Error("a kind and a queue at once: accepted")
	}
}
