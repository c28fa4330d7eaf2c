package matrix

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/proof/wire"
	"github.com/writhq/writ/internal/rabbit"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

// told is the matrix's event. Its exchange is one for the whole broker, so each world has a name of its own.
func told(name string) intent.Event[task] { return intent.Event[task]{Name: name} }

// subscribe has a worker create an intent for each event.
func subscribe(mux *workers.Mux, event string) {
	workers.Subscribe(mux, told(event), workers.Subscription[task]{
		Name: "note", Do: func(_ context.Context, e workers.Event[task]) ([]intent.New, error) {
			return []intent.New{manual.New(e.Data, intent.Opts{})}, nil
		},
	})
}

// openEvents chooses the world's event, and leaves nothing of it on the broker.
func (w *world) openEvents() {
	w.t.Helper()
	w.straight.Event = "e" + strings.ReplaceAll(uuid.NewString(), "-", "") + ".happened"
	w.faulty.Event = w.straight.Event
	w.t.Cleanup(func() {
		_, _ = w.ch.QueueDelete(w.eventQueue(), false, false, false)
		_ = w.ch.ExchangeDelete(rabbit.EventExchange(w.straight.Event), false, false)
	})
}

func (w *world) eventQueue() string {
	return strings.TrimSuffix(w.queue, queue) + "event:matrix:" + w.straight.Event + ":note"
}

// tell publishes the event, out of the fault's way; again with the same id, it is the same one.
func (w *world) tell(id intent.ID) {
	w.t.Helper()
	err := pgx.BeginFunc(context.Background(), w.db, func(tx pgx.Tx) error {
		_, err := told(w.straight.Event).Publish(context.Background(), tx, task{[]string{done}}, intent.EventOpts{ID: id})
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// followsOnce waits for the intent of an event, has the event repeated, and holds that there is still just the one, carried
// out once.
func (w *world) followsOnce(event intent.ID) {
	w.t.Helper()
	var id intent.ID
	testkit.Until(w.t, soon, "the event has its intent", func() (bool, string) {
		err := w.db.QueryRow(context.Background(), "SELECT id FROM writ.intents WHERE tid = $1", event).Scan(&id)
		return err == nil, fmt.Sprint(err)
	})
	w.tell(event)
	testkit.Until(w.t, soon, "the repeat was published, and taken", func() (bool, string) {
		q, err := w.ch.QueueDeclarePassive(w.eventQueue(), true, false, false, false, nil)
		if err != nil {
			w.t.Fatal(err)
		}
		outbox := testkit.Value[int](w.t, w.db, "SELECT count(*) FROM writ.outbox")
		return q.Messages+outbox == 0, fmt.Sprintf("queue %d, outbox %d", q.Messages, outbox)
	})
	w.restsAt(id, sentOnce)
	for what, sql := range map[string]string{
		"intents": "SELECT count(*) FROM writ.intents", "settled events": "SELECT count(*) FROM writ.inbox WHERE settled_at IS NOT NULL AND failures = 0",
	} {
		if n := testkit.Value[int](w.t, w.db, sql); n != 1 {
			w.t.Errorf("%d %s of one event; want 1", n, what)
		}
	}
}

// telling: the transaction that deletes the published event breaks; it is published again, or its row is gone.
func telling(m moment) scenario {
	return func(_ *testing.T, w *world) {
		w.openEvents()
		w.start(worker, w.straight)
		w.start(subscriber, w.straight)
		fired := w.strike(relay, m, relayed)
		event := intent.NewID()
		w.tell(event)
		w.met(fired)
		w.again(relay, m)
		w.followsOnce(event)
	}
}

// announcing: the relay's talk with the broker breaks at an event.
func announcing(at wire.Matcher, do wire.Action, kills bool) scenario {
	return func(_ *testing.T, w *world) {
		w.openEvents()
		w.start(worker, w.straight)
		w.start(subscriber, w.straight)
		fired := w.strikeAt(relay, w.mq, wire.Rule{At: at, Do: do}, kills)
		event := intent.NewID()
		w.tell(event)
		w.met(fired)
		if kills {
			w.start(relay, w.straight)
		}
		w.followsOnce(event)
	}
}

// taking: the transaction that settles an event, inbox and intent, breaks.
func taking(m moment) scenario {
	return func(_ *testing.T, w *world) {
		w.openEvents()
		w.start(relay, w.straight)
		w.start(worker, w.straight)
		fired := w.strike(subscriber, m, settles)
		event := intent.NewID()
		w.tell(event)
		w.met(fired)
		w.again(subscriber, m)
		w.followsOnce(event)
	}
}

// hearing: the subscriber's talk with the broker breaks at a message: the event comes again.
func hearing(at wire.Matcher) scenario {
	return func(_ *testing.T, w *world) {
		w.openEvents()
		w.start(relay, w.straight)
		w.start(worker, w.straight)
		fired := w.strikeAt(subscriber, w.mq, wire.Rule{At: at, Do: wire.Cut}, false)
		event := intent.NewID()
		w.tell(event)
		w.met(fired)
		w.followsOnce(event)
	}
}
