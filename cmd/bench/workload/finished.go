package workload

import (
	"context"
	"fmt"

	"github.com/writhq/writ/cmd/bench/contender"
)

const (
	million    = 1_000_000
	empty      = "empty"
	oneFull    = "1 million finished"
	manyFull   = "10 million finished"
	fewRows    = million
	manyRows   = 10 * million
	tickIdle   = 100_000 // pending rows beside them
	tickRounds = 3
)

// FinishedRows drains in a table that holds ten million finished rows, and in an empty one.
func FinishedRows(c contender.Writ) Workload {
	return Workload{
		Name: "finished", Title: "100,000 no-op jobs, drained in a table with 10,000,000 finished rows, and in an empty one", Length: Long, Rounds: 5,
		Turns: []Turn{{Contender: c, Variant: empty}, {Contender: c, Variant: manyFull}},
		Run: func(ctx context.Context, e *Env, t Turn) (Sample, error) {
			plan := drainPlan{jobs: drainJobs, processes: 1}
			if t.Variant == empty {
				return drainOnce(ctx, e, c, plan)
			}
			f, err := e.withFinished(ctx, c, manyRows)
			if err != nil {
				return Sample{}, err
			}
			return f.drain(ctx, plan)
		},
	}
}

// withFinished is a database with so many finished rows. It is made once and kept: that takes minutes.
func (e *Env) withFinished(ctx context.Context, c contender.Writ, rows int) (*field, error) {
	if f := e.filled[rows]; f != nil {
		return f, nil
	}
	fmt.Fprintf(e.Progress, "filling a table with %d finished rows\n", rows)
	f, err := e.enter(ctx, c, contender.Options{})
	if err != nil {
		return nil, err
	}
	e.filled[rows] = f
	if err := c.Fill(ctx, f.target, contender.Finished, e.scaled(rows), contender.Args{N: 1}); err != nil {
		return nil, err
	}
	return f, f.settle(ctx)
}
