package main

import (
	"github.com/writhq/writ/cmd/bench/contender"
	"github.com/writhq/writ/cmd/bench/workload"
)

// catalogue is everything that can be measured, in the order in which it is. Peers are installed in dir.
func catalogue(dir string) []workload.Workload {
	writ := contender.Writ{Label: "writ", Most: 2000} // as many slots as River has workers
	shipped := contender.Writ{Label: "writ-100", Most: 100}
	river := contender.River{}
	graphile500 := contender.Graphile{Dir: dir, Queue: 500}
	graphile5000 := contender.Graphile{Dir: dir, Queue: 5000}
	floor := contender.Floor{}
	return []workload.Workload{
		workload.Drain(turns(writ, river, shipped, graphile500, graphile5000, floor)),
		workload.Single([]contender.Contender{writ, river}, []contender.Contender{graphile500, floor}),
		workload.Latency(turns(shipped, river)),
		workload.Steady(river, turns(shipped, river)),
		workload.Bulk(turns(writ, river, graphile500, floor)),
		workload.Slow(turns(writ, river)),
		workload.Kinds(turns(writ, river)),
		workload.Snapshot(writ, river),
		workload.Limits(writ),
		workload.Idle(turns(shipped, river)),
		workload.Processes(writ, river),
		workload.Future(writ),
		workload.FinishedRows(writ),
		workload.Tick(writ),
		workload.Memory(shipped),
	}
}

func turns(contenders ...contender.Contender) []workload.Turn {
	var all []workload.Turn
	for _, c := range contenders {
		all = append(all, workload.Turn{Contender: c})
	}
	return all
}
