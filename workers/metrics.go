package workers

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/writhq/writ/fsm"
	"github.com/writhq/writ/internal/store"
)

// metrics of one worker process. Labels are bounded: kind, state and outcome, never an id or a subject.
type metrics struct {
	hints       *prometheus.CounterVec
	transitions *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	late        *prometheus.CounterVec
	probes      *prometheus.CounterVec
	probeTook   *prometheus.HistogramVec
	stuckProbes *prometheus.GaugeVec
	stuck       prometheus.Gauge
	dropped     prometheus.Counter
	breakers    *prometheus.GaugeVec
	paused      *prometheus.GaugeVec
	kinds       map[string]*kindMetrics
	events      *eventMetrics
	limits      *limitMetrics
}

func newMetrics(r prometheus.Registerer, kinds []string) *metrics {
	m := &metrics{
		hints: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_hints_total", Help: "Hints by what they were worth: claimed, moot, held, put back, busy, elsewhere, shut, missing, foreign, malformed, recovered, recovery-failed, probe.",
		}, []string{"result"}),
		transitions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_transitions_total", Help: "State changes written by this worker.",
		}, []string{"kind", "from", "to"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "writ_attempt_duration_seconds", Help: "How long handlers ran.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 10),
		}, []string{"kind", "outcome"}),
		late: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_late_reports_total", Help: "Outcomes and probes' answers that came after a verdict, by what they mean beside it: confirms, contradicts, neither.",
		}, []string{"meaning"}),
		probes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_probes_total", Help: "Probes asked, by what became of the answer: happened, retry, give-up; early, held, again, person, returned; moved, stale, confirms, contradicts.",
		}, []string{"kind", "result"}),
		probeTook: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "writ_probe_duration_seconds", Help: "How long probes took, at most their timeout.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 10),
		}, []string{"kind"}),
		stuckProbes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "writ_stuck_probes", Help: "Probes past their timeout that have not returned.",
		}, []string{"kind"}),
		stuck: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "writ_stuck_handlers", Help: "Handlers past their deadline that have not returned.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "writ_failures_dropped_total", Help: "Failures that Config.OnFailure was not told of, because it did not keep up.",
		}),
	}
	m.breakers = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "writ_breaker_state", Help: "Circuit breakers of kinds that have one, as this worker last heard: 0 closed, 1 half-open, 2 open.",
	}, []string{"kind"})
	m.paused = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "writ_paused", Help: "1 where a kind is paused, by itself, by its queue or with everything; absent where it never was.",
	}, []string{"kind"})
	if r != nil {
		r.MustRegister(m.breakers, m.paused, m.hints, m.transitions, m.duration, m.late, m.stuck, m.probes, m.probeTook, m.stuckProbes, m.dropped)
	}
	m.events = newEventMetrics(r)
	m.limits = newLimitMetrics(r)
	m.kinds = make(map[string]*kindMetrics, len(kinds))
	for _, kind := range kinds {
		m.kinds[kind] = m.of(kind)
	}
	return m
}

// settled counts hints by what they were worth.
func (m *metrics) settled(result string, n int) { m.hints.WithLabelValues(result).Add(float64(n)) }

// breaker notes how a kind's breaker stands.
func (m *metrics) breaker(kind, state string) {
	m.breakers.WithLabelValues(kind).Set(map[string]float64{store.BreakerHalfOpen: 1, store.BreakerOpen: 2}[state])
}

// pause notes whether a kind is paused.
func (m *metrics) pause(kind string, paused bool) {
	value := 0.0
	if paused {
		value = 1
	}
	m.paused.WithLabelValues(kind).Set(value)
}

// probed counts an asking of a kind's probe by what became of its answer.
func (m *metrics) probed(kind, result string) {
	m.probes.WithLabelValues(kind, result).Inc()
	switch result {
	case string(fsm.Happened):
		m.transitions.WithLabelValues(kind, store.Ambiguous, string(fsm.Sent)).Inc()
	case string(fsm.Retry):
		m.transitions.WithLabelValues(kind, store.Ambiguous, string(fsm.Pending)).Inc()
	case string(fsm.GiveUp):
		m.transitions.WithLabelValues(kind, store.Ambiguous, string(fsm.Error)).Inc()
	case store.Confirms, store.Contradicts:
		m.late.WithLabelValues(result).Inc()
	}
}

// kindMetrics are the series of one kind. Each begins to exist with its first event: hundreds of kinds would otherwise
// export thousands of zeros.
type kindMetrics struct {
	claimed func() prometheus.Counter
	entered map[string]func() prometheus.Counter  // by event
	took    map[string]func() prometheus.Observer // by event
}

// states are where the events of an outcome lead, in the words of the metrics.
var states = map[string]string{
	store.Succeeded: "sent", store.Retried: "pending", store.Failed: "error", store.Flagged: store.Ambiguous,
}

func (m *metrics) of(kind string) *kindMetrics {
	k := &kindMetrics{
		claimed: sync.OnceValue(func() prometheus.Counter { return m.transitions.WithLabelValues(kind, "pending", "sending") }),
		entered: map[string]func() prometheus.Counter{},
		took:    map[string]func() prometheus.Observer{},
	}
	for event, state := range states {
		k.entered[event] = sync.OnceValue(func() prometheus.Counter { return m.transitions.WithLabelValues(kind, "sending", state) })
		k.took[event] = sync.OnceValue(func() prometheus.Observer { return m.duration.WithLabelValues(kind, event) })
	}
	return k
}

func (k *kindMetrics) ran(event string, took time.Duration) {
	k.took[event]().Observe(took.Seconds())
}

// finished counts a written outcome; none if a verdict came first.
func (k *kindMetrics) finished(event string) {
	if entered, ok := k.entered[event]; ok {
		entered().Inc()
	}
}
