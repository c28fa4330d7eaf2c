package intenttest_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/intent/intenttest"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

// TestDeliver: an event is handed to each subscription once, and what it returns is created and carried out.
func TestDeliver(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	type paid struct {
		Order int `json:"order_id"`
	}
	event, run := intent.Event[paid]{Name: "order.paid"}, 0
	mux := workers.NewMux()
	workers.Handle(mux, charge, workers.Handler[orderArgs]{Do: func(context.Context, *workers.Job[orderArgs]) error { run++; return nil }})
	subscribe := func(name string, do func(paid) ([]intent.New, error)) {
		workers.Subscribe(mux, event, workers.Subscription[paid]{Name: name, Do: func(_ context.Context, e workers.Event[paid]) ([]intent.New, error) {
			if e.Source != "elsewhere" || e.Subject != "order:7" || e.Time.IsZero() {
				t.Errorf("the event is %+v", e)
			}
			return do(e.Data)
		}})
	}
	broken := errors.New("not yet")
	subscribe("charge", func(p paid) ([]intent.New, error) {
		return []intent.New{charge.New(orderArgs{OrderID: p.Order}, intent.Opts{})}, nil
	})
	subscribe("nothing", func(paid) ([]intent.New, error) { return nil, nil })
	subscribe("broken", func(paid) ([]intent.New, error) { return nil, broken })
	kit := intenttest.New(t, db.Pool, mux)
	opts := intenttest.EventOpts{ID: "e1", Subject: "order:7", TID: intent.NewID()}
	first := intenttest.Deliver(kit, event, paid{7}, opts)
	if len(first) != 3 || len(first[0].Created) != 1 || len(first[1].Created) != 0 || first[1].Repeated || !errors.Is(first[2].Err, broken) || !strings.HasSuffix(first[0].Subscription, "/order.paid/charge") {
		t.Fatalf("first: %+v", first)
	}
	if id := intenttest.RequireCreated(t, db, charge, orderArgs{OrderID: 7}, intent.Opts{TID: opts.TID}); id != first[0].Created[0] {
		t.Errorf("created %s, told of %s", id, first[0].Created[0])
	}
	again := intenttest.Deliver(kit, event, paid{7}, opts)
	if !again[0].Repeated || !again[1].Repeated || len(again[0].Created) != 0 || len(intenttest.AllCreated(t, db, charge)) != 1 {
		t.Errorf("again: %+v", again)
	}
	if kept, err := intent.ListUnsettled(t.Context(), db, intent.UnsettledFilter{}); err != nil || len(kept) != 1 || kept[0].Failures != 1 || kept[0].LastError != "not yet" {
		t.Errorf("kept: %+v, %v", kept, err)
	}
	if opts.ID = "e2"; intenttest.Deliver(kit, event, paid{8}, opts)[0].Repeated {
		t.Error("another event is taken for the first")
	}
	kit.Drain()
	if run != 2 {
		t.Errorf("%d were run; want 2", run)
	}
	if said := fails(t, func(tb intenttest.TB) {
		intenttest.Deliver(intenttest.New(tb, db.Pool, mux), intent.Event[paid]{Name: "order.lost"}, paid{}, intenttest.EventOpts{})
	}); !strings.Contains(said, "no subscription to order.lost") {
		t.Errorf("of an event that nobody subscribes to: %s", said)
	}
}
