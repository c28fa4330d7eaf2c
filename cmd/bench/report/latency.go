package report

import (
	"fmt"
	"slices"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Bucket is a value of a histogram and how often it was seen.
type Bucket struct {
	Micros int64 `json:"us"`
	N      int64 `json:"n"`
}

// The range of recorded latencies: a microsecond to ten minutes, at three digits.
const (
	lowest  = 1
	highest = 600_000_000
	digits  = 3
)

// Histogram is an HDR histogram of microseconds.
type Histogram struct{ h *hdrhistogram.Histogram }

// NewHistogram records latencies in microseconds. One that is beyond ten minutes is an error: something hangs.
func NewHistogram(micros []int64) (*Histogram, error) {
	h := hdrhistogram.New(lowest, highest, digits)
	for _, v := range micros {
		if err := h.RecordValue(max(lowest, v)); err != nil {
			return nil, fmt.Errorf("record %d µs: %w", v, err)
		}
	}
	return &Histogram{h}, nil
}

// Buckets is the histogram as it is kept in a file.
func (h *Histogram) Buckets() []Bucket {
	var out []Bucket
	for _, bar := range h.h.Distribution() {
		if bar.Count > 0 {
			out = append(out, Bucket{bar.To, bar.Count})
		}
	}
	return out
}

// at is a percentile in milliseconds.
func (h *Histogram) at(percentile float64) float64 {
	return float64(h.h.ValueAtPercentile(percentile)) / 1000
}

// Percentile is At for callers outside.
func (h *Histogram) Percentile(p float64) float64 { return h.at(p) }

func (h *Histogram) count() int64 { return h.h.TotalCount() }

// Latency is the histogram of all rounds of a row, nil if there is none.
func (f File) Latency(k Key) *Histogram {
	sum := hdrhistogram.New(lowest, highest, digits)
	for _, r := range f.Results {
		if k != (Key{r.Workload, r.Contender, r.Variant}) {
			continue
		}
		for _, b := range r.Latency {
			_ = sum.RecordValues(b.Micros, b.N) // in range: it was recorded before
		}
	}
	if sum.TotalCount() == 0 {
		return nil
	}
	return &Histogram{sum}
}

// percentiles are those of each round.
func (f File) percentiles(k Key, percentile float64) map[int]float64 {
	out := map[int]float64{}
	for _, round := range f.rounds(k) {
		one := File{}
		for _, r := range f.Results {
			if r.Round == round {
				one.Results = append(one.Results, r)
			}
		}
		if h := one.Latency(k); h != nil {
			out[round] = h.at(percentile)
		}
	}
	return out
}

func (f File) rounds(k Key) []int {
	var rounds []int
	for _, r := range f.Results {
		if k == (Key{r.Workload, r.Contender, r.Variant}) && !slices.Contains(rounds, r.Round) {
			rounds = append(rounds, r.Round)
		}
	}
	return rounds
}
