package report

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := Median(tt.values); got != tt.want {
			t.Errorf("Median(%v) = %v; want %v", tt.values, got, tt.want)
		}
	}
	if got := Median(nil); !math.IsNaN(got) {
		t.Errorf("Median of nothing = %v; want NaN", got)
	}
}

// Ratios are of the same round: what drifts from round to round must not show.
func TestRatios(t *testing.T) {
	t.Parallel()
	ours := map[int]float64{1: 30, 2: 300, 3: 8, 4: 1, 6: 5}
	theirs := map[int]float64{1: 10, 2: 100, 3: 2, 5: 7, 6: 0}
	want := Spread{Median: 3, Min: 3, Max: 4, N: 3}
	if diff := cmp.Diff(want, Ratios(ours, theirs)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := Ratios(nil, theirs); got != (Spread{}) {
		t.Errorf("ratios of nothing = %+v", got)
	}
}

func TestFile_Best(t *testing.T) {
	t.Parallel()
	var f File
	add := func(contender string, round int, v float64) {
		f.Results = append(f.Results, Result{Workload: "drain", Contender: contender, Round: round, Metrics: map[string]float64{"drain_per_s": v}})
	}
	add("a", 1, 10)
	add("b", 1, 20)
	add("a", 2, 30)
	add("b", 2, 20)
	add("a", 3, 99) // b has no third round
	got := f.Best([]Key{{"drain", "a", ""}, {"drain", "b", ""}}, "drain_per_s")
	if diff := cmp.Diff(map[int]float64{1: 20, 2: 30}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestNumber(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{
		0: "0.000", 0.0426: "0.043", 1.238: "1.24", 12.34: "12.3", 432.1: "432", 999.7: "1,000", 1234: "1,230", 15651: "15,700",
		1234567: "1,230,000", -2345: "-2,350", math.NaN(): "–", math.Inf(1): "–",
	} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %q; want %q", v, got, want)
		}
	}
}

func TestHistogram(t *testing.T) {
	t.Parallel()
	var micros []int64
	for i := int64(1); i <= 1000; i++ {
		micros = append(micros, i*1000)
	}
	h, err := NewHistogram(micros)
	if err != nil {
		t.Fatal(err)
	}
	// Kept in a file and read again, in two rounds, it must say the same.
	f := File{Results: []Result{
		{Workload: "latency", Contender: "writ", Round: 1, Latency: h.Buckets()},
		{Workload: "latency", Contender: "writ", Round: 2, Latency: h.Buckets()},
		{Workload: "latency", Contender: "river", Round: 1, Latency: []Bucket{{1, 1}}},
	}}
	sum := f.Latency(Key{"latency", "writ", ""})
	for _, p := range []float64{50, 99} {
		want := p * 10
		for name, got := range map[string]float64{"recorded": h.at(p), "read": sum.at(p)} {
			if math.Abs(got-want) > want/100 {
				t.Errorf("%s p%v = %v ms; want %v", name, p, got, want)
			}
		}
	}
	if sum.count() != 2000 {
		t.Errorf("%d samples in two rounds; want 2,000", sum.count())
	}
	if _, err := NewHistogram([]int64{highest * 2}); err == nil {
		t.Error("a latency of twenty minutes was recorded; want an error")
	}
	if got := f.Latency(Key{"latency", "nobody", ""}); got != nil {
		t.Errorf("latency of nobody = %+v", got)
	}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	one := func(workload string, v float64) Result {
		return Result{Workload: workload, Contender: "writ", Round: 1, Metrics: map[string]float64{"v": v}}
	}
	older := File{Commit: "old", About: []string{"a", "b"}, Results: []Result{one("drain", 1), one("idle", 2)}}
	newer := File{Commit: "new", About: []string{"b", "c"}, Results: []Result{one("drain", 3)}}
	want := File{Commit: "new", About: []string{"a", "b", "c"}, Results: []Result{one("idle", 2), one("drain", 3)}}
	if diff := cmp.Diff(want, merge(older, newer)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
