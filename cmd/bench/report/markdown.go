package report

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// column of a workload's table.
type column struct {
	metric, head string
}

// cost columns come with every workload whose runs are metered.
var cost = []column{
	{"postgres_ms", "Postgres CPU, ms/job"},
	{"broker_ms", "broker CPU"},
	{"worker_ms", "worker CPU"},
	{"creator_ms", "creator CPU"},
	{"statements", "statements/job"},
	{"buffers", "buffers/job"},
	{"wal_bytes", "WAL bytes/job"},
	{"fpi", "page images/job"},
}

// tables says which metrics of a workload are shown first, and which one is compared with River's.
var tables = map[string][]column{
	"drain":    append([]column{{"drain_per_s", "drain, /s"}, {"create_per_s", "bulk creation, /s"}}, cost...),
	"single":   append([]column{{"per_s", "end to end, /s"}}, cost...),
	"bulk":     append([]column{{"create_per_s", "created, /s"}}, cost...),
	"latency":  {{"p50_ms", "p50, ms"}, {"p99_ms", "p99, ms"}, {"max_ms", "max, ms"}},
	"steady":   append([]column{{"p50_ms", "p50, ms"}, {"p99_ms", "p99, ms"}, {"max_ms", "max, ms"}, {"per_s", "offered, /s"}}, cost...),
	"slow":     {{"seconds", "makespan, s"}, {"postgres_ms", "Postgres CPU, ms/job"}, {"statements", "statements/job"}},
	"kinds":    append([]column{{"drain_per_s", "drain, /s"}}, cost...),
	"procs":    append([]column{{"drain_per_s", "drain, /s"}}, cost...),
	"limits":   append([]column{{"drain_per_s", "drain, /s"}}, cost...),
	"snapshot": append([]column{{"drain_per_s", "drain, /s"}}, cost...),
	"future":   append([]column{{"drain_per_s", "drain, /s"}}, cost...),
	"finished": append([]column{{"drain_per_s", "drain, /s"}}, cost...),
	"tick":     {{"tick_ms", "median tick, ms"}, {"tick_max_ms", "longest tick, ms"}, {"ticks", "ticks"}},
	"idle":     {{"queries_per_s", "statements/s"}, {"postgres_pct", "Postgres CPU, %"}, {"worker_pct", "process CPU, %"}},
	"memory":   {{"peak_mib", "peak resident, MiB"}, {"waiting", "hints waiting"}},
}

// Markdown is the whole report: what was measured, and last the table of targets.
func Markdown(f File) string {
	var b strings.Builder
	if f.Trial {
		b.WriteString("**A trial of the program at a smaller scale: these figures mean nothing.**\n\n")
	}
	fmt.Fprintf(&b, "Measured %s at commit %s on %d cores (%s, %s, Linux %s).\n\n", f.Date.Format("2006-01-02 15:04 UTC"), f.Commit,
		f.Machine.Cores, f.Machine.CPU, f.Machine.Memory, f.Machine.Kernel)
	fmt.Fprintf(&b, "Versions: %s.\n\nSettings of Postgres: %s.\n\n", pairs(f.Versions, " "), pairs(f.Settings, " = "))
	for _, line := range f.About {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	b.WriteString("\nMedians over the rounds; in brackets the smallest and largest. «×» compares with River in the same round.\n")
	for _, name := range f.workloads() {
		fmt.Fprintf(&b, "\n**%s**\n\n%s", f.note(name), f.table(name))
	}
	b.WriteString("\n" + Targets(f))
	return b.String()
}

func pairs(m map[string]string, sep string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+sep+m[k])
	}
	return strings.Join(out, ", ")
}

// workloads are the names of what was measured, in order.
func (f File) workloads() []string {
	var names []string
	for _, r := range f.Results {
		if !slices.Contains(names, r.Workload) {
			names = append(names, r.Workload)
		}
	}
	return names
}

// note is what is said about a workload, the newest if several are.
func (f File) note(name string) string {
	found := name
	for _, n := range f.Notes {
		if strings.HasPrefix(n, name+": ") {
			found = n
		}
	}
	return found
}

// rows of a workload, in order.
func (f File) rows(workload string) []Key {
	var keys []Key
	for _, r := range f.Results {
		if k := (Key{r.Workload, r.Contender, r.Variant}); r.Workload == workload && !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys
}

// table is a workload's rows.
func (f File) table(workload string) string {
	columns := tables[workload]
	var b strings.Builder
	b.WriteString("| |")
	for i, c := range columns {
		b.WriteString(" " + c.head + " |")
		if i == 0 {
			b.WriteString(" × River |")
		}
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(columns)+1) + "\n")
	for _, k := range f.rows(workload) {
		fmt.Fprintf(&b, "| %s |", strings.TrimSpace(k.Contender+" "+k.Variant))
		for i, c := range columns {
			s := f.Spread(k, c.metric)
			switch {
			case s.N == 0:
				b.WriteString(" – |")
			case i == 0:
				fmt.Fprintf(&b, " %s |", s.with(""))
			default:
				fmt.Fprintf(&b, " %s |", number(s.Median))
			}
			if i == 0 {
				fmt.Fprintf(&b, " %s |", f.Ratio(k, Key{workload, "river", k.Variant}, c.metric).times())
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// number has three significant digits, and separators from a thousand on.
func number(v float64) string {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "–"
	case math.Abs(v) >= 999.5:
		return thousands(int64(math.Round(v/round(v)) * round(v)))
	case math.Abs(v) >= 100:
		return fmt.Sprintf("%.0f", v)
	case math.Abs(v) >= 10:
		return fmt.Sprintf("%.1f", v)
	case math.Abs(v) >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// round is the power of ten that leaves three digits.
func round(v float64) float64 { return math.Pow(10, math.Floor(math.Log10(math.Abs(v)))-2) }

func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
