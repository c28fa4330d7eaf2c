package dispatch_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

type order struct {
	ID   int    `json:"order_id"`
	Note string `json:"note"`
}

// stranger is a subscriber that knows of Writ only what docs/events.md says of the wire.
func (b *bench) stranger(event string) (exchange string, next func() amqp.Delivery) {
	b.t.Helper()
	exchange = "writ.event." + event
	must := func(err error) {
		b.t.Helper()
		if err != nil {
			b.t.Fatal(err)
		}
	}
	must(b.ch.ExchangeDeclare(exchange, "fanout", true, false, false, false, nil))
	q, err := b.ch.QueueDeclare("", false, true, true, false, nil)
	must(err)
	must(b.ch.QueueBind(q.Name, "", exchange, false, nil))
	in, err := b.ch.Consume(q.Name, "", true, true, false, false, nil)
	must(err)
	b.t.Cleanup(func() { _ = b.ch.ExchangeDelete(exchange, false, false) })
	return exchange, func() amqp.Delivery {
		b.t.Helper()
		select {
		case d := <-in:
			return d
		case <-time.After(10 * time.Second):
			b.t.Fatal("no event came")
		}
		return amqp.Delivery{}
	}
}

func someEvent(verb string) intent.Event[order] {
	return intent.Event[order]{Name: "o" + strings.ReplaceAll(uuid.NewString(), "-", "") + "." + verb}
}

func (b *bench) tell(e intent.Event[order], data order, opts intent.EventOpts) intent.ID {
	b.t.Helper()
	var id intent.ID
	err := pgx.BeginFunc(context.Background(), b.db, func(tx pgx.Tx) (err error) {
		id, err = e.Publish(context.Background(), tx, data, opts)
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return id
}

// TestEvent_wire is the wire format of docs/events.md, read by raw AMQP.
func TestEvent_wire(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Run(t, "SELECT writ.own('api')")
	e := someEvent("placed")
	_, next := b.stranger(e.Name)
	b.relay(b.db.URL, testkit.AMQPURL(t))
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	tid, parent := intent.NewID(), intent.NewID()
	id := b.tell(e, order{7, "schöne Grüße"}, intent.EventOpts{Subject: "order:7", TID: tid, Parent: parent, Trace: trace})
	d := next()
	at, _ := d.Headers["cloudEvents_time"].(string)
	if moment, err := time.Parse(time.RFC3339Nano, at); err != nil || !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$`).MatchString(at) || d.Timestamp.Unix() != moment.Unix() {
		t.Errorf("time is %q and timestamp %v, %v", at, d.Timestamp, err)
	}
	delete(d.Headers, "cloudEvents_time")
	want := amqp.Table{
		"cloudEvents_specversion": "1.0", "cloudEvents_id": id.String(), "cloudEvents_source": "api", "cloudEvents_type": e.Name,
		"cloudEvents_subject": "order:7", "cloudEvents_tid": tid.String(), "cloudEvents_parentid": parent.String(),
		"cloudEvents_traceparent": trace, "traceparent": trace,
	}
	if diff := cmp.Diff(want, d.Headers); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	type properties struct {
		ContentType, MessageID, Type, AppID, Key string
		Mode                                     uint8
	}
	if diff := cmp.Diff(properties{"application/json", id.String(), e.Name, "api", e.Name, amqp.Persistent},
		properties{d.ContentType, d.MessageId, d.Type, d.AppId, d.RoutingKey, d.DeliveryMode}); diff != "" {
		t.Errorf("properties (-want +got):\n%s", diff)
	}
	var data order
	if err := json.Unmarshal(d.Body, &data); err != nil || data != (order{7, "schöne Grüße"}) {
		t.Errorf("body %s is %v, %v", d.Body, data, err)
	}
	// By SQL, and with nothing but what must be.
	plain := testkit.Value[string](t, b.db, "SELECT writ.publish($1)::text", e.Name)
	d = next()
	delete(d.Headers, "cloudEvents_time")
	want = amqp.Table{
		"cloudEvents_specversion": "1.0", "cloudEvents_id": plain, "cloudEvents_source": "api", "cloudEvents_type": e.Name, "cloudEvents_tid": plain,
	}
	if diff := cmp.Diff(want, d.Headers); diff != "" || string(d.Body) != "{}" {
		t.Errorf("body %s, headers (-want +got):\n%s", d.Body, diff)
	}
}

// TestEvent_exchange: without a subscriber an event goes to nobody, and that is no error; an exchange that somebody deleted is
// made again; one of another form holds up its own events only.
func TestEvent_exchange(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare()
	e, bad := someEvent("placed"), someEvent("spoilt")
	if err := b.ch.ExchangeDeclare("writ.event."+bad.Name, "direct", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.ch.ExchangeDelete("writ.event."+bad.Name, false, false) })
	b.relay(b.db.URL, testkit.AMQPURL(t))
	b.tell(e, order{}, intent.EventOpts{})
	b.awaitEmptyOutbox()
	b.tell(bad, order{}, intent.EventOpts{})
	b.create(5)
	b.awaitMessages(5, 10*time.Second)
	testkit.Until(t, 10*time.Second, "the bad one is kept, with the reason", func() (bool, string) {
		why := testkit.Value[string](t, b.db, "SELECT coalesce(max(last_error), '') FROM writ.outbox")
		return strings.Contains(why, "406") && b.outbox() == 1, why
	})
	exchange, _ := b.stranger(e.Name)
	if err := b.ch.ExchangeDelete(exchange, false, false); err != nil {
		t.Fatal(err)
	}
	id := b.tell(e, order{}, intent.EventOpts{})
	testkit.Until(t, 10*time.Second, "it was refused", func() (bool, string) {
		n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.outbox WHERE headers ->> 'cloudEvents_id' = $1 AND failures > 0", id.String())
		return n == 1, fmt.Sprint(n)
	})
	testkit.Until(t, 10*time.Second, "it is published, to a new exchange", func() (bool, string) { return b.outbox() == 1, fmt.Sprint(b.outbox()) })
	if err := b.ch.ExchangeDeclarePassive(exchange, "fanout", true, false, false, false, nil); err != nil {
		t.Errorf("the exchange: %v", err)
	}
}

// TestEvent_lost: an event does not go to nobody where a subscriber was, or is to be: where its exchange is deleted, or its
// binding, and where a subscription of the same database is not there yet.
func TestEvent_lost(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(b *bench, exchange, queue string) error{
		"exchange": func(b *bench, exchange, _ string) error { return b.ch.ExchangeDelete(exchange, false, false) },
		"binding":  func(b *bench, exchange, queue string) error { return b.ch.QueueUnbind(queue, "", exchange, nil) },
		"declared": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			e := someEvent("placed")
			exchange := "writ.event." + e.Name
			bind := func() {
				t.Helper()
				if err := errors.Join(b.ch.ExchangeDeclare(exchange, "fanout", true, false, false, false, nil), b.ch.QueueBind(e.Name, "", exchange, false, nil)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := b.ch.QueueDeclare(e.Name, false, false, true, false, nil); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = b.ch.ExchangeDelete(exchange, false, false) })
			in, err := b.ch.Consume(e.Name, "", true, true, false, false, nil)
			if err != nil {
				t.Fatal(err)
			}
			want := "held back until"
			if lose == nil {
				b.db.Run(t, "INSERT INTO writ.subscriptions (name, event, queue) VALUES ('shop/' || $1::text || '/count', $1, 'somewhere')", e.Name)
				want = "/count: start its worker"
			}
			b.relay(b.db.URL, testkit.AMQPURL(t))
			if lose != nil {
				bind()
				b.tell(e, order{ID: 1}, intent.EventOpts{})
				<-in
				if err := lose(b, exchange, e.Name); err != nil {
					t.Fatal(err)
				}
			}
			id := b.tell(e, order{ID: 2}, intent.EventOpts{})
			testkit.Until(t, 20*time.Second, "it is held back", func() (bool, string) {
				why := testkit.Value[string](t, b.db, "SELECT coalesce(max(last_error), '') FROM writ.outbox")
				return strings.Contains(why, want), why
			})
			bind()
			select {
			case d := <-in:
				if d.MessageId != id.String() {
					t.Errorf("%s came", d.MessageId)
				}
			case <-time.After(60 * time.Second):
				t.Fatal("it did not come")
			}
			b.awaitEmptyOutbox()
		})
	}
}

// TestEvent_malformed: a row of the outbox that is neither a hint nor a whole event is kept, with the reason, and holds up nothing.
func TestEvent_malformed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare()
	for _, row := range []string{
		"(due_at) VALUES (now())",
		"(due_at, exchange) VALUES (now(), 'x')",
		"(due_at, exchange, payload, op, kind, intent_id, epoch) VALUES (now(), 'x', '{}', 'run', 'a.b.c', gen_random_uuid(), 0)",
	} {
		b.db.Run(t, "INSERT INTO writ.outbox "+row)
	}
	b.relay(b.db.URL, testkit.AMQPURL(t))
	b.create(3)
	b.awaitMessages(3, 10*time.Second)
	testkit.Until(t, 10*time.Second, "all three are refused", func() (bool, string) {
		n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.outbox WHERE failures > 0 AND last_error LIKE '%neither a hint nor an event%'")
		return n == 3, fmt.Sprint(n)
	})
}

// TestEvent_brokerAway: events wait for the broker as hints do, and each comes.
func TestEvent_brokerAway(t *testing.T) {
	t.Parallel()
	b := setup(t)
	e := someEvent("placed")
	_, next := b.stranger(e.Name)
	proxy, url := testkit.ProxyTo(t, testkit.AMQPURL(t))
	proxy.Refuse()
	b.relay(b.db.URL, url)
	want := map[string]bool{}
	for n := range 50 {
		want[b.tell(e, order{ID: n}, intent.EventOpts{}).String()] = true
	}
	proxy.Accept()
	for len(want) > 0 {
		delete(want, next().MessageId) // a repeat is legal
	}
	b.awaitEmptyOutbox()
}
