package reconciler

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	acts   *prometheus.CounterVec
	leader prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		acts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_reconciled_total", Help: "What the reconciler did: requeued, flagged, retried, probed, pruned, forgotten (settled events).",
		}, []string{"act"}),
		leader: prometheus.NewGauge(prometheus.GaugeOpts{Name: "writ_leader", Help: "1 if this reconciler leads."}),
	}
	if r != nil {
		r.MustRegister(m.acts, m.leader)
	}
	return m
}

func (m *metrics) add(r Report) {
	m.acts.WithLabelValues("requeued").Add(float64(r.Requeued))
	m.acts.WithLabelValues("flagged").Add(float64(r.Flagged))
	m.acts.WithLabelValues("retried").Add(float64(r.Retried))
	m.acts.WithLabelValues("probed").Add(float64(r.Probed))
	m.acts.WithLabelValues("pruned").Add(float64(r.Pruned))
	m.acts.WithLabelValues("forgotten").Add(float64(r.Forgotten))
}

func (m *metrics) lead(yes bool) {
	if yes {
		m.leader.Set(1)
	} else {
		m.leader.Set(0)
	}
}
