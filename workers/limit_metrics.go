package workers

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// limitMetrics count what became of tokens and places. Labels are bounded: kind and result.
type limitMetrics struct {
	tokens *prometheus.CounterVec
	held   *prometheus.GaugeVec
	waits  *prometheus.GaugeVec
}

func newLimitMetrics(r prometheus.Registerer) *limitMetrics {
	m := &limitMetrics{
		tokens: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_limit_tokens_total", Help: "Tokens of limits by what became of them: leased; spent, or lost because they were not spent in time.",
		}, []string{"kind", "result"}),
		held: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "writ_limit_places", Help: "Places that this worker holds, of kinds of which only so many may run at once in the cluster.",
		}, []string{"kind"}),
		waits: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "writ_limit_waiting", Help: "Hints that wait in this worker for a token or a place.",
		}, []string{"kind"}),
	}
	if r != nil {
		r.MustRegister(m.tokens, m.held, m.waits)
	}
	return m
}

// limitCounts are the series of one kind, which begin to exist when it has a limit.
type limitCounts struct {
	count   func() map[string]prometheus.Counter
	held    func() prometheus.Gauge
	waiting func() prometheus.Gauge
}

func (m *metrics) limit(kind string) limitCounts {
	return limitCounts{
		count: sync.OnceValue(func() map[string]prometheus.Counter {
			out := map[string]prometheus.Counter{}
			for _, result := range []string{"leased", "spent", "lost"} {
				out[result] = m.limits.tokens.WithLabelValues(kind, result)
			}
			return out
		}),
		held:    sync.OnceValue(func() prometheus.Gauge { return m.limits.held.WithLabelValues(kind) }),
		waiting: sync.OnceValue(func() prometheus.Gauge { return m.limits.waits.WithLabelValues(kind) }),
	}
}

func (c limitCounts) add(result string, n int) {
	if n > 0 {
		c.count()[result].Add(float64(n))
	}
}

func (c limitCounts) leased(n int) { c.add("leased", n) }
func (c limitCounts) spent(n int)  { c.add("spent", n) }
func (c limitCounts) lost(n int)   { c.add("lost", n) }
func (c limitCounts) places(n int) { c.held().Set(float64(n)) }
func (c limitCounts) waits(n int)  { c.waiting().Set(float64(n)) }
