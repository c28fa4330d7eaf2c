package workers

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/writhq/writ/internal/store"
)

// metrics of one worker process. Labels are bounded: kind, state and outcome, never an id or a subject.
type metrics struct {
	hints       *prometheus.CounterVec
	transitions *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	late        prometheus.Counter
	stuck       prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		hints: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_hints_total", Help: "Hints by what they were worth: claimed, moot, held, put back, busy, elsewhere, missing, foreign, malformed, recovered.",
		}, []string{"result"}),
		transitions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_transitions_total", Help: "State changes written by this worker.",
		}, []string{"kind", "from", "to"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "writ_attempt_duration_seconds", Help: "How long handlers ran.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 10),
		}, []string{"kind", "outcome"}),
		late: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "writ_late_reports_total", Help: "Outcomes that came after a verdict.",
		}),
		stuck: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "writ_stuck_handlers", Help: "Handlers past their deadline that have not returned.",
		}),
	}
	if r != nil {
		r.MustRegister(m.hints, m.transitions, m.duration, m.late, m.stuck)
	}
	return m
}

func (m *metrics) claimed(kind string) {
	m.transitions.WithLabelValues(kind, "pending", "sending").Inc()
}

func (m *metrics) ran(kind, outcome string, took time.Duration) {
	m.duration.WithLabelValues(kind, outcome).Observe(took.Seconds())
}

func (m *metrics) finished(kind, event string) {
	to, ok := map[string]string{store.Succeeded: "sent", store.Retried: "pending", store.Failed: "error", store.Flagged: store.Ambiguous}[event]
	if !ok {
		return
	}
	m.transitions.WithLabelValues(kind, "sending", to).Inc()
}
