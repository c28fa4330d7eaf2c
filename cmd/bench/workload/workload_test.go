package workload

import (
	"context"
	"errors"
	"io"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/writhq/writ/cmd/bench/contender"
	"github.com/writhq/writ/cmd/bench/measure"
)

// Contenders take turns within each round, and what was measured before a failure is kept.
func TestRun(t *testing.T) {
	t.Parallel()
	type step struct {
		Contender, Variant string
		Round              int
	}
	broken := errors.New("broken")
	calls := 0
	w := Workload{
		Name:  "try",
		Turns: []Turn{{Contender: contender.Writ{Label: "writ"}, Variant: "a"}, {Contender: contender.River{}}},
		Run: func(_ context.Context, _ *Env, turn Turn) (Sample, error) {
			if calls++; calls == 4 {
				return Sample{}, broken
			}
			return Sample{Metrics: Metrics{"call": float64(calls)}}, nil
		},
	}
	results, err := Run(context.Background(), &Env{Progress: io.Discard}, w, 3)
	if !errors.Is(err, broken) {
		t.Errorf("error %v; want %v", err, broken)
	}
	var got []step
	for _, r := range results {
		got = append(got, step{r.Contender, r.Variant, r.Round})
	}
	if diff := cmp.Diff([]step{{"writ", "a", 1}, {"river", "", 1}, {"writ", "a", 2}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMetrics_add(t *testing.T) {
	t.Parallel()
	m := Metrics{}
	m.add(measure.Cost{
		Postgres: 2 * time.Second, Broker: time.Second, Workers: 3 * time.Second, Creator: 4 * time.Second,
		Counters: measure.Counters{Statements: 500, Buffers: 42_000, Dirtied: 100, WAL: 1e6, FPI: 10},
	}, 1000)
	want := Metrics{
		"postgres_ms": 2, "broker_ms": 1, "worker_ms": 3, "creator_ms": 4,
		"statements": 0.5, "buffers": 42, "dirtied": 0.1, "wal_bytes": 1000, "fpi": 0.01,
	}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The schedule of an open loop is the same for all, and offers the rate that it says.
func TestSchedule(t *testing.T) {
	t.Parallel()
	at := schedule(1000, 10*time.Second)
	if diff := cmp.Diff(at, schedule(1000, 10*time.Second)); diff != "" {
		t.Errorf("two schedules differ:\n%s", diff)
	}
	if n := float64(len(at)); math.Abs(n-10_000) > 300 {
		t.Errorf("%v jobs in 10 s at 1,000 a second", n)
	}
	for i := 1; i < len(at); i++ {
		if at[i] < at[i-1] || at[i] >= 10*time.Second {
			t.Fatalf("moment %d is %v, after %v", i, at[i], at[i-1])
		}
	}
}

func TestEnv_scaled(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		scale   float64
		n, want int
	}{{0, 100_000, 100_000}, {1, 100_000, 100_000}, {0.02, 100_000, 2000}, {0.001, 1000, 40}, {0.001, 16, 16}} {
		e := Env{Scale: tt.scale}
		if got := e.scaled(tt.n); got != tt.want {
			t.Errorf("%d at %v = %d; want %d", tt.n, tt.scale, got, tt.want)
		}
	}
}

// A tick is from a statement about the lease to the end of what followed it closely.
func TestStatementWatch_ticks(t *testing.T) {
	t.Parallel()
	zero := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(ms int) time.Time { return zero.Add(time.Duration(ms) * time.Millisecond) }
	say := func(sql string, from, to int) *statement { return &statement{sql, at(from), at(to)} }
	w := &statementWatch{seen: []*statement{
		say("UPDATE "+tickBegins, 500, 510), // before the time that counts
		say("observe", 800, 900),
		say("UPDATE "+tickBegins, 1000, 1002),
		say("look", 1003, 1020),
		say("observe", 1010, 1011), // beside it
		say("sweep", 1021, 1030),
		say("observe", 1500, 1600), // long after it
		say("UPDATE "+tickBegins, 2000, 2005),
		{sql: "cut off", begun: at(2006)},
		say("UPDATE "+tickBegins, 3000, 3001), // the last one may have been cut off
	}}
	if diff := cmp.Diff([]float64{30, 5}, w.ticks(at(900))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
