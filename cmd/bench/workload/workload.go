package workload

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/writhq/writ/cmd/bench/contender"
	"github.com/writhq/writ/cmd/bench/measure"
	"github.com/writhq/writ/cmd/bench/report"
)

// Length says which command runs a workload.
type Length int

// The lengths.
const (
	Short Length = iota // make bench
	Long                // make bench-long
)

// Workload is something that contenders are run through in turns.
type Workload struct {
	Name   string
	Title  string // what is done and measured, in a line
	Length Length
	Rounds int // unless the user says otherwise
	Turns  []Turn
	// Run measures one turn.
	Run func(ctx context.Context, e *Env, t Turn) (Sample, error)
}

// Turn is a contender in a variant of the workload.
type Turn struct {
	Contender contender.Contender
	Variant   string
	Number    int // what the variant counts: clients, processes
}

// Sample is what one turn measured.
type Sample struct {
	Metrics
	Latency *report.Histogram // nil where latencies are not the point
}

// Metrics by name.
type Metrics map[string]float64

// Run runs a workload: round by round, in each the turns in order, so that what drifts meets all of them alike.
func Run(ctx context.Context, e *Env, w Workload, rounds int) (results []report.Result, err error) {
	for round := 1; round <= rounds; round++ {
		for _, turn := range w.Turns {
			began := time.Now()
			sample, err := w.Run(ctx, e, turn)
			if err != nil {
				return results, fmt.Errorf("%s, %s %s: %w", w.Name, turn.Contender.Name(), turn.Variant, err)
			}
			r := report.Result{Workload: w.Name, Contender: turn.Contender.Name(), Variant: turn.Variant, Round: round, Metrics: sample.Metrics}
			if sample.Latency != nil {
				r.Latency = sample.Latency.Buckets()
			}
			results = append(results, r)
			fmt.Fprintf(e.Progress, "%s %d/%d  %s %s %s (%.0f s)\n", w.Name, round, rounds, turn.Contender.Name(), turn.Variant,
				sample.Metrics, time.Since(began).Seconds())
		}
	}
	return results, nil
}

// String lists the metrics by name.
func (m Metrics) String() string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	var out strings.Builder
	for _, name := range names {
		fmt.Fprintf(&out, " %s=%.5g", name, m[name])
	}
	return out.String()
}

// add puts the cost of n jobs among the metrics, each per job but CPU in ms.
func (m Metrics) add(c measure.Cost, n int) {
	per := func(v float64) float64 { return v / float64(n) }
	ms := func(d time.Duration) float64 { return per(float64(d) / float64(time.Millisecond)) }
	m["postgres_ms"], m["broker_ms"], m["worker_ms"], m["creator_ms"] = ms(c.Postgres), ms(c.Broker), ms(c.Workers), ms(c.Creator)
	m["statements"], m["buffers"], m["dirtied"] = per(c.Counters.Statements), per(c.Counters.Buffers), per(c.Counters.Dirtied)
	m["wal_bytes"], m["fpi"] = per(c.Counters.WAL), per(c.Counters.FPI)
}
