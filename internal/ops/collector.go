package ops

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/writhq/writ/internal/store"
)

// collector reads the database's state at each scrape.
type collector struct {
	store                                                     *store.Store
	open, oldest, ambiguous, outboxRows, outboxOldest, scrape *prometheus.Desc
	unsettled                                                 *prometheus.Desc
}

// Collector returns the gauges that are read from the database at each scrape: writ_open, writ_oldest_age_seconds,
// writ_ambiguous, writ_outbox_rows, writ_outbox_oldest_age_seconds, writ_events_unsettled. One process of an installation that serves them is enough.
func Collector(pool *pgxpool.Pool) prometheus.Collector {
	return &collector{
		store:        store.New(pool),
		open:         prometheus.NewDesc("writ_open", "Open intents and errors.", []string{"kind", "state"}, nil),
		oldest:       prometheus.NewDesc("writ_oldest_age_seconds", "Age of the oldest: since due, flagged or failed.", []string{"kind", "state"}, nil),
		ambiguous:    prometheus.NewDesc("writ_ambiguous", "Attempts that nobody knows the outcome of.", nil, nil),
		outboxRows:   prometheus.NewDesc("writ_outbox_rows", "Due outbox rows, counted up to 100,000.", nil, nil),
		outboxOldest: prometheus.NewDesc("writ_outbox_oldest_age_seconds", "How long the oldest outbox row has been due.", nil, nil),
		unsettled:    prometheus.NewDesc("writ_events_unsettled", "Events that a subscription could not turn into intents: retrying, or dead.", []string{"subscription", "status"}, nil),
		scrape:       prometheus.NewDesc("writ_scrape_ok", "1 if the database answered this scrape.", nil, nil),
	}
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.open, c.oldest, c.ambiguous, c.outboxRows, c.outboxOldest, c.scrape, c.unsettled} {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counts, err := c.store.Counts(ctx)
	rows, age, outboxErr := c.store.OutboxAge(ctx)
	unsettled, inboxErr := c.store.InboxCounts(ctx)
	if err != nil || outboxErr != nil || inboxErr != nil {
		gauge(c.scrape, 0) // a number that is not known is not shown as zero
		return
	}
	gauge(c.scrape, 1)
	var ambiguous int64
	for _, n := range counts {
		gauge(c.open, float64(n.N), n.Kind, n.State)
		gauge(c.oldest, n.Oldest.Seconds(), n.Kind, n.State)
		if n.State == store.Ambiguous {
			ambiguous += n.N
		}
	}
	for _, n := range unsettled {
		gauge(c.unsettled, float64(n.N), n.Subscription, n.Status)
	}
	gauge(c.ambiguous, float64(ambiguous))
	gauge(c.outboxRows, float64(rows))
	gauge(c.outboxOldest, age.Seconds())
}
