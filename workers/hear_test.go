package workers

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/writhq/writ/internal/store"
)

// TestBreaker_restored: the database that a breaker hears of has gone back in time, as after a restore. What it says counts.
func TestBreaker_restored(t *testing.T) {
	t.Parallel()
	b := &breaker{
		kind: "test.order.charge", stir: func() {}, soon: func() {}, state: store.Breaker{State: store.BreakerClosed},
		metrics: &metrics{breakers: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "breakers"}, []string{"kind"})},
	}
	b.hear(store.Breaker{State: store.BreakerOpen, Generation: 7}, time.Time{}, 0)
	if c := b.closure(); c != lasting {
		t.Fatalf("opened: %v", c)
	}
	b.hear(store.Breaker{State: store.BreakerClosed, Generation: 4}, time.Time{}, 0)
	if c := b.closure(); c != open {
		t.Errorf("closed in a database of before: %v; want open", c)
	}
}
