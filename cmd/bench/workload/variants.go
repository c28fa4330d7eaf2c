package workload

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/cmd/bench/contender"
)

// Kinds drains jobs of many kinds: a queue each, where the contender has queues.
func Kinds(turns []Turn) Workload {
	return Workload{
		Name: "kinds", Title: "50,000 no-op jobs spread over 500 kinds, drained by one process", Rounds: 2, Turns: turns,
		Run: func(ctx context.Context, e *Env, t Turn) (Sample, error) {
			return drainOnce(ctx, e, t.Contender, drainPlan{jobs: 50_000, processes: 1, kinds: 500})
		},
	}
}

// Slow drains jobs that take long, where what counts is that no slot stands idle.
func Slow(turns []Turn) Workload {
	return Workload{
		Name: "slow", Title: "1,000 jobs of 200 ms, 4 processes of 10 slots; the ideal is 5 s", Rounds: 3, Turns: turns,
		Run: func(ctx context.Context, e *Env, t Turn) (Sample, error) {
			return drainOnce(ctx, e, t.Contender, drainPlan{jobs: 1000, processes: 4, slots: 10, wait: 200})
		},
	}
}

// Processes drains with several processes at once, each of them relay, worker and reconciler.
func Processes(contenders ...contender.Contender) Workload {
	w := Workload{
		Name: "procs", Title: "100,000 no-op jobs, drained by 1, 2 and 4 processes (of Writ each also a relay)", Length: Long, Rounds: 3,
		Run: func(ctx context.Context, e *Env, t Turn) (Sample, error) {
			return drainOnce(ctx, e, t.Contender, drainPlan{jobs: drainJobs, processes: t.Number})
		},
	}
	for _, c := range contenders {
		for _, n := range []int{1, 2, 4} {
			w.Turns = append(w.Turns, Turn{c, fmt.Sprintf("× %d", n), n})
		}
	}
	return w
}

// The variants of workloads that compare a contender with itself.
const (
	none         = "none"
	snapshotHeld = "snapshot held"
	futureDated  = "1 million future-dated"
)

// Snapshot drains while a transaction elsewhere keeps every dead row from being removed,
// and without that; the peers only with it.
func Snapshot(c contender.Contender, peers ...contender.Contender) Workload {
	w := Workload{
		Name: "snapshot", Title: "200,000 no-op jobs, drained with a REPEATABLE READ snapshot held open all the while, and without", Rounds: 3,
		Run: func(ctx context.Context, e *Env, t Turn) (Sample, error) {
			plan := drainPlan{jobs: 200_000, processes: 1}
			if t.Variant == snapshotHeld {
				plan.beside = holdSnapshot
			}
			return drainOnce(ctx, e, t.Contender, plan)
		},
	}
	w.Turns = []Turn{{Contender: c, Variant: none}, {Contender: c, Variant: snapshotHeld}}
	for _, peer := range peers {
		w.Turns = append(w.Turns, Turn{Contender: peer, Variant: snapshotHeld})
	}
	return w
}

// holdSnapshot opens a transaction that sees the database as it is now, until undo.
func holdSnapshot(ctx context.Context, f *field) (undo func(), err error) {
	conn, err := pgx.Connect(ctx, f.target.DatabaseURL)
	if err != nil {
		return nil, err
	}
	for _, sql := range []string{"BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM pg_class"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			conn.Close(ctx)
			return nil, fmt.Errorf("hold a snapshot: %w", err)
		}
	}
	return func() { conn.Close(context.WithoutCancel(ctx)) }, nil
}

// Future drains what is due beside a million jobs that are not, and without them.
func Future(c contender.Writ) Workload {
	return Workload{
		Name: "future", Title: "100,000 due no-op jobs, drained beside 1,000,000 that are due tomorrow, and without them", Length: Long, Rounds: 7,
		Turns: []Turn{{Contender: c, Variant: none}, {Contender: c, Variant: futureDated}},
		Run: func(ctx context.Context, e *Env, t Turn) (Sample, error) {
			plan := drainPlan{jobs: drainJobs, processes: 1}
			if t.Variant == futureDated {
				plan.before = func(ctx context.Context, f *field) error {
					return c.Fill(ctx, f.target, contender.Future, e.scaled(million), contender.Args{})
				}
			}
			return drainOnce(ctx, e, c, plan)
		},
	}
}
