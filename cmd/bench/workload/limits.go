package workload

import (
	"context"
	"fmt"

	"github.com/writhq/writ/cmd/bench/contender"
)

// The variants of Limits: limits that are not reached.
var unreached = []struct{ name, set string }{
	{"100,000 starts a second", "starts => 100000"},
	{"10,000 at once in the cluster", "running => 10000"},
	{"100,000 starts a second per key, all of one", "starts => 100000, key => 'args.key'"},
}

// Limits drains jobs of a kind with a limit that is not reached, and of one without.
func Limits(c contender.Contender) Workload {
	w := Workload{
		Name: "limits", Title: "100,000 no-op jobs of a kind with a limit over all processes that is not reached, drained by one process, and without one", Rounds: 3,
		Turns: []Turn{{Contender: c, Variant: none}},
		Run: func(ctx context.Context, e *Env, t Turn) (Sample, error) {
			plan := drainPlan{jobs: drainJobs, processes: 1}
			if t.Variant != none {
				plan.before = func(ctx context.Context, f *field) error {
					sql := "SELECT writ.set_limit(name, 'bench', 'a limit that is not reached', " + unreached[t.Number].set + ") FROM writ.kinds"
					if _, err := f.target.Pool.Exec(ctx, sql); err != nil {
						return fmt.Errorf("set a limit: %w", err)
					}
					return nil
				}
			}
			return drainOnce(ctx, e, t.Contender, plan)
		},
	}
	for i, u := range unreached {
		w.Turns = append(w.Turns, Turn{Contender: c, Variant: u.name, Number: i})
	}
	return w
}
