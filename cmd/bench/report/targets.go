package report

import (
	"fmt"
	"strings"
)

// Target is a row of the table of targets.
type Target struct {
	What string
	Goal string
	// Judge reads the results; ok is false if they do not hold what it needs.
	Judge func(f File) (measured string, reached, ok bool)
	// Command measures it.
	Command string
}

// Verdict is a target held against results.
type Verdict struct {
	Target
	Measured string
	Reached  bool
	Known    bool
}

// Keys of the rows that targets compare.
var (
	writDrain    = Key{"drain", "writ", ""}
	shippedDrain = Key{"drain", "writ-100", ""}
	riverDrain   = Key{"drain", "river", ""}
	graphiles    = []Key{{"drain", "graphile-500", ""}, {"drain", "graphile-5000", ""}}
)

// targets are those of the project's performance goals, in their order. All ratios are of paired rounds.
var targets = []Target{
	{"drain of 100,000, against River", "≥ 3.0×", aside(atLeast(3.0, rowRatio(writDrain, riverDrain, "drain_per_s")), "at the default 100 slots", rowRatio(shippedDrain, riverDrain, "drain_per_s")), "bench"},
	{"drain, against graphile-worker at its best local queue", "≥ 1.5×", atLeast(1.5, bestRatio(writDrain, graphiles, "drain_per_s")), "bench"},
	{"Postgres CPU per intent, create to sent, against River", "≤ 0.4×", aside(atMost(0.4, rowRatio(writDrain, riverDrain, "postgres_ms")), "at the default 100 slots", rowRatio(shippedDrain, riverDrain, "postgres_ms")), "bench"},
	{
		"one insert per transaction, 16 clients, end to end, against River", "≥ 2.0×",
		atLeast(2.0, rowRatio(Key{"single", "writ", "16 clients"}, Key{"single", "river", "16 clients"}, "per_s")), "bench",
	},
	{
		"idle latency, create to handler start, against River", "p50 ≤ 0.8×, p99 ≤ 0.9×",
		both(latencyAtMost("latency", 50, 0.8), latencyAtMost("latency", 99, 0.9)), "bench",
	},
	{
		"latency at equal steady load (half of River's peak), against River", "p50 and p99 ≤ 1.0×",
		both(latencyAtMost("steady", 50, 1.0), latencyAtMost("steady", 99, 1.0)), "bench",
	},
	{
		"throughput with 10 million finished rows in the table, against an empty one", "≥ 0.95×",
		atLeast(0.95, rowRatio(Key{"finished", "writ", "10 million finished"}, Key{"finished", "writ", "empty"}, "drain_per_s")), "bench-long",
	},
	{
		"throughput with a snapshot held open all the while, against none", "≥ 0.8×",
		atLeast(0.8, rowRatio(Key{"snapshot", "writ", "snapshot held"}, Key{"snapshot", "writ", "none"}, "drain_per_s")), "bench",
	},
	{
		"throughput of a kind with a limit that is not reached, against none", "≥ 0.7×",
		both(both(unreached("100,000 starts a second"),
			called("so many at once", unreached("10,000 at once in the cluster"))),
			called("per key", unreached("100,000 starts a second per key, all of one"))), "bench",
	},
	{
		"a reconciler tick with 10 million finished and 100,000 pending rows", "≤ 50 ms, and no more with 10× the finished rows (≤ 1.1× of the tick with 1 million)",
		both(valueAtMost(50, Key{"tick", "writ", "10 million finished"}, "tick_ms", "ms"),
			atMost(1.1, rowRatio(Key{"tick", "writ", "10 million finished"}, Key{"tick", "writ", "1 million finished"}, "tick_ms"))), "bench-long",
	},
	{"4 workers × 10 slots, 1,000 intents of 200 ms", "makespan ≤ 1.1× of the ideal 5 s", valueAtMost(5.5, Key{"slow", "writ", ""}, "seconds", "s"), "bench"},
	{"idle: queries per second of a worker + relay + reconciler", "≤ 15", valueAtMost(15, Key{"idle", "writ-100", ""}, "queries_per_s", "/s"), "bench"},
	{"memory of a worker with 1,000,000 hints waiting in the broker", "≤ 64 MiB", valueAtMost(64, Key{"memory", "writ-100", ""}, "peak_mib", "MiB"), "bench-long"},
	{
		"1,000,000 future-dated intents in the outbox: drain of due ones beside them", "≥ 0.95×",
		atLeast(0.95, rowRatio(Key{"future", "writ", "1 million future-dated"}, Key{"future", "writ", "none"}, "drain_per_s")), "bench-long",
	},
}

// unreached judges a limit that is not reached against none.
func unreached(limit string) judge {
	return atLeast(0.7, rowRatio(Key{"limits", "writ", limit}, Key{"limits", "writ", "none"}, "drain_per_s"))
}

// Judge holds all targets against results.
func Judge(f File) []Verdict {
	verdicts := make([]Verdict, len(targets))
	for i, t := range targets {
		v := Verdict{Target: t}
		if !f.Trial {
			v.Measured, v.Reached, v.Known = t.Judge(f)
		}
		if !v.Known {
			v.Measured, v.Reached = "–", false
		}
		verdicts[i] = v
	}
	return verdicts
}

// Targets is the table of targets in Markdown.
func Targets(f File) string {
	var b strings.Builder
	b.WriteString("| what | target | measured: median (min–max of rounds) | |\n|---|---|---|---|\n")
	for _, v := range Judge(f) {
		verdict := "**not reached**"
		switch {
		case !v.Known:
			verdict = "not measured in this run (make " + v.Command + ")"
		case v.Reached:
			verdict = "reached"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", v.What, v.Goal, v.Measured, verdict)
	}
	return b.String()
}

type judge = func(File) (string, bool, bool)

type ratio = func(File) Spread

func rowRatio(a, b Key, metric string) ratio {
	return func(f File) Spread { return f.Ratio(a, b, metric) }
}

func bestRatio(a Key, others []Key, metric string) ratio {
	return func(f File) Spread { return Ratios(f.Values(a, metric), f.Best(others, metric)) }
}

func atLeast(goal float64, of ratio) judge {
	return func(f File) (string, bool, bool) {
		s := of(f)
		return s.times(), s.Median >= goal, s.N > 0
	}
}

func atMost(goal float64, of ratio) judge {
	return func(f File) (string, bool, bool) {
		s := of(f)
		return s.times(), s.Median <= goal, s.N > 0
	}
}

// both holds two measurements against one target.
func both(a, b judge) judge {
	return func(f File) (string, bool, bool) {
		first, reached, ok := a(f)
		second, alsoReached, alsoOK := b(f)
		return first + "; " + second, reached && alsoReached, ok && alsoOK
	}
}

// aside adds a ratio that is told and not judged.
func aside(a judge, what string, of ratio) judge {
	return func(f File) (string, bool, bool) {
		measured, reached, ok := a(f)
		if s := of(f); s.N > 0 {
			measured += "; " + what + " " + s.times()
		}
		return measured, reached, ok
	}
}

// called puts a word before what was measured.
func called(what string, a judge) judge {
	return func(f File) (string, bool, bool) {
		measured, reached, ok := a(f)
		return what + " " + measured, reached, ok
	}
}

func valueAtMost(goal float64, k Key, metric, unit string) judge {
	return func(f File) (string, bool, bool) {
		s := f.Spread(k, metric)
		return s.with(unit), s.Median <= goal, s.N > 0
	}
}

// latencyAtMost compares a percentile of all samples of Writ with River's; the spread is that of the paired rounds.
func latencyAtMost(workload string, percentile, goal float64) judge {
	return func(f File) (string, bool, bool) {
		a, b := Key{workload, "writ-100", ""}, Key{workload, "river", ""}
		ours, theirs := f.Latency(a), f.Latency(b)
		if ours == nil || theirs == nil {
			return "", false, false
		}
		of, than := ours.at(percentile), theirs.at(percentile)
		pairs := Ratios(f.percentiles(a, percentile), f.percentiles(b, percentile))
		measured := fmt.Sprintf("p%.0f %.2f× (%.2f–%.2f), %.1f ms beside %.1f ms of %d and %d samples", percentile, of/than, pairs.Min, pairs.Max,
			of, than, ours.count(), theirs.count())
		return measured, of/than <= goal, true
	}
}

// with is a value and its spread, with a unit.
func (s Spread) with(unit string) string {
	if s.N < 2 {
		return strings.TrimSpace(number(s.Median) + " " + unit)
	}
	return fmt.Sprintf("%s (%s–%s)", strings.TrimSpace(number(s.Median)+" "+unit), number(s.Min), number(s.Max))
}

func (s Spread) times() string {
	if s.N == 0 {
		return ""
	}
	if s.N == 1 {
		return fmt.Sprintf("%.2f×", s.Median)
	}
	return fmt.Sprintf("%.2f× (%.2f–%.2f)", s.Median, s.Min, s.Max)
}
