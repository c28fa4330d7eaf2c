package dispatch

import "github.com/prometheus/client_golang/prometheus"

type metrics struct{ published, returned, refused prometheus.Counter }

func newMetrics(r prometheus.Registerer) *metrics {
	published := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "writ_published_total", Help: "Outbox rows by what the broker said: confirmed, returned (no such queue) or refused.",
	}, []string{"result"})
	if r != nil {
		r.MustRegister(published)
	}
	return &metrics{published.WithLabelValues("confirmed"), published.WithLabelValues("returned"), published.WithLabelValues("refused")}
}
