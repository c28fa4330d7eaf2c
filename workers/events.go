package workers

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/writhq/writ/internal/rabbit"
	"github.com/writhq/writ/internal/store"
)

// subscribe starts the subscriber, if there are subscriptions. The channel is closed when it has ended, after ctx.
func (p *Pool) subscribe(ctx context.Context, installation uuid.UUID) (<-chan struct{}, error) {
	ended := make(chan struct{})
	if len(p.mux.subscriptions) == 0 {
		close(ended)
		return ended, nil
	}
	s, pool, err := newSubscriber(p, installation)
	if err != nil {
		return nil, err
	}
	p.events.Store(s.consumer)
	for _, l := range s.lines {
		l.open(ctx)
	}
	go func() {
		defer close(ended)
		defer pool.Close()
		s.run(ctx)
	}()
	return ended, nil
}

// declareSubscriptions writes them down for people.
func (p *Pool) declareSubscriptions(ctx context.Context, installation uuid.UUID) error {
	var all []store.Subscription
	for _, s := range p.mux.subscriptions {
		queue, err := rabbit.QueueName(installation, s.queue(p.application))
		if err != nil {
			return err
		}
		all = append(all, store.Subscription{Name: s.full(p.application), Event: s.event, Queue: queue})
	}
	return p.store.DeclareSubscriptions(ctx, all)
}

// errForeign is a database of another application.
var errForeign = errors.New("give each application a database of its own; or have an operator give this one back first: SELECT writ.own(NULL, who, why)")

// own takes the database for the application, if the config names it; else it makes sure that it is not another one's.
func (p *Pool) own(ctx context.Context) error {
	if p.cfg.Application != "" {
		return p.store.Own(ctx, p.application)
	}
	owner, err := p.store.Owner(ctx)
	if err == nil && owner != "" && owner != p.application {
		err = fmt.Errorf("this database belongs to application %s, and the kinds of this worker are tasks of %s: %w", owner, p.application, errForeign)
	}
	return err
}

// forGood reports whether the answer will be no again.
func forGood(err error) bool {
	pgErr, ok := store.Code(err)
	return errors.Is(err, errForeign) || ok && (pgErr.Code == store.CodeIllegal || pgErr.Code == store.CodeInvalid)
}

// eventMetrics count what became of events. Labels are bounded: the subscriptions of the code.
type eventMetrics struct{ results *prometheus.CounterVec }

func newEventMetrics(r prometheus.Registerer) *eventMetrics {
	m := &eventMetrics{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "writ_events_total", Help: "Events by what became of them: created (its intents were), repeated, failed (to be tried again), dead.",
	}, []string{"subscription", "result"})}
	if r != nil {
		r.MustRegister(m.results)
	}
	return m
}

func (m *eventMetrics) settled(subscription, result string, n int) {
	if n > 0 {
		m.results.WithLabelValues(subscription, result).Add(float64(n))
	}
}
