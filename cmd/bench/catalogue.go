package main

import (
	"github.com/writhq/writ/cmd/bench/contender"
	"github.com/writhq/writ/cmd/bench/workload"
)

// catalogue is everything that can be measured.
func catalogue(dir string) []workload.Workload {
	writ := contender.Writ{Label: "writ", Most: 2000}
	writ100 := contender.Writ{Label: "writ-100", Most: 100}
	river := contender.River{}
	graphile500 := contender.Graphile{Dir: dir, Queue: 500}
	graphile5000 := contender.Graphile{Dir: dir, Queue: 5000}
	floor := contender.Floor{}
	return []workload.Workload{
		workload.Drain(turns(writ, river, writ100, graphile500, graphile5000, floor)),
	}
}

func turns(contenders ...contender.Contender) []workload.Turn {
	var all []workload.Turn
	for _, c := range contenders {
		all = append(all, workload.Turn{Contender: c})
	}
	return all
}
