package report

import (
	"math"
	"slices"
)

// Spread is a median with the smallest and the largest value.
type Spread struct {
	Median, Min, Max float64
	N                int
}

// SpreadOf summarises values; of none it is the zero Spread.
func SpreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	return Spread{Median: Median(values), Min: slices.Min(values), Max: slices.Max(values), N: len(values)}
}

// Median is the middle value, or the mean of the two middle ones. Of no values it is NaN.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	mid := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[mid]
	}
	return (sorted[mid-1] + sorted[mid]) / 2
}

// Key names a row of results.
type Key struct{ Workload, Contender, Variant string }

// Values are the metric's values of a row, by round.
func (f File) Values(k Key, metric string) map[int]float64 {
	out := map[int]float64{}
	for _, r := range f.Results {
		if v, ok := r.Metrics[metric]; ok && k == (Key{r.Workload, r.Contender, r.Variant}) {
			out[r.Round] = v
		}
	}
	return out
}

// Spread is the metric's spread over the rounds of a row.
func (f File) Spread(k Key, metric string) Spread {
	return SpreadOf(slices.Collect(mapValues(f.Values(k, metric))))
}

// Ratio pairs the rounds of two rows and returns the spread of a/b: both ran within the same minute.
func (f File) Ratio(a, b Key, metric string) Spread {
	return Ratios(f.Values(a, metric), f.Values(b, metric))
}

// Ratios is the spread of a/b over the rounds that both have. Rounds where b is 0 are left out.
func Ratios(a, b map[int]float64) Spread {
	var ratios []float64
	for round, v := range a {
		if w, ok := b[round]; ok && w != 0 {
			ratios = append(ratios, v/w)
		}
	}
	return SpreadOf(ratios)
}

// Best is the largest value of several rows in each round that all of them have.
func (f File) Best(keys []Key, metric string) map[int]float64 {
	best := map[int]float64{}
	for i, k := range keys {
		values := f.Values(k, metric)
		for round, v := range values {
			if i == 0 {
				best[round] = v
			} else if b, ok := best[round]; ok {
				best[round] = max(b, v)
			}
		}
		for round := range best {
			if _, ok := values[round]; !ok {
				delete(best, round)
			}
		}
	}
	return best
}

func mapValues(m map[int]float64) func(func(float64) bool) {
	return func(yield func(float64) bool) {
		for _, v := range m {
			if !yield(v) {
				return
			}
		}
	}
}
