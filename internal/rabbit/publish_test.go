package rabbit

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"
)

// publisher returns one that is connected.
func publisher(t testing.TB, cfg Config) *Publisher {
	t.Helper()
	if cfg.URL == "" {
		cfg.URL = brokerURL(t)
	}
	cfg.Name, cfg.Log = t.Name(), testLog(t)
	p, err := NewPublisher(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	if err := p.Wait(deadline(t)); err != nil {
		t.Fatal(err)
	}
	return p
}

func to(queue string) Message { return Message{Key: queue, Mandatory: true, Body: []byte("x")} }

func wantFates(t testing.TB, got []Fate, want ...Fate) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("fates (-want +got):\n%s", d)
	}
}

func TestPublish_EachFate(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	queue, missing := a.declare("here"), a.name("nowhere")
	p := publisher(t, Config{})

	unrouted := to(missing)
	unrouted.Mandatory = false
	fates, err := p.Publish(deadline(t), []Message{to(queue), to(missing), unrouted, to(queue), to(missing)})
	if err != nil {
		t.Fatal(err)
	}
	wantFates(t, fates, Confirmed, Returned, Confirmed, Confirmed, Returned)

	fates, err = p.Publish(deadline(t), []Message{to(missing), to(queue)}) // tags go on from the first call
	if err != nil {
		t.Fatal(err)
	}
	wantFates(t, fates, Returned, Confirmed)

	if fates, err = p.Publish(deadline(t), nil); len(fates) != 0 || err != nil {
		t.Errorf("nothing: got %v, %v", fates, err)
	}
}

func TestPublish_MoreThanAWindow(t *testing.T) {
	t.Parallel()
	missing := newAdmin(t).name("nowhere")
	p := publisher(t, Config{})
	messages, want := make([]Message, 2*window+100), make([]Fate, 2*window+100)
	for i := range messages {
		messages[i], want[i] = to(missing), Returned
		if i%3 == 0 {
			messages[i].Mandatory, want[i] = false, Confirmed
		}
	}
	fates, err := p.Publish(deadline(t), messages)
	if err != nil {
		t.Fatal(err)
	}
	wantFates(t, fates, want...)
}

func TestPublish_Concurrently(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	queue, missing := a.declare("here"), a.name("nowhere")
	p := publisher(t, Config{})
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			for range 5 {
				fates, err := p.Publish(deadline(t), []Message{to(queue), to(missing)})
				if err != nil || fates[0] != Confirmed || fates[1] != Returned {
					t.Errorf("got %v, %v", fates, err)
				}
			}
		})
	}
	work.Wait()
}

func TestPublish_Properties(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	queue := a.declare("here")
	p := publisher(t, Config{})
	hints := someHints(3)
	hint, err := HintMessage(a.Installation, queue, hints)
	if err != nil {
		t.Fatal(err)
	}
	event := Message{Key: queue, MessageID: "m1", ContentType: "application/json", Body: []byte("{}"), Headers: map[string]any{
		"s": "x", "n": 1.5, "t": true, "nil": nil, "list": []any{"a", map[string]any{"b": "c"}},
	}}
	if _, err := p.Publish(deadline(t), []Message{hint, event}); err != nil {
		t.Fatal(err)
	}
	a.do(func(ch *amqp.Channel) error {
		m, ok, err := ch.Get(queue, true)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		got, err := DecodeFrame(m.Body)
		if d := cmp.Diff(hints, got); d != "" || err != nil {
			t.Error(d, err)
		}
		if m.DeliveryMode != amqp.Persistent || m.AppId != "writ" || m.ContentType != "text/plain" || m.Headers["writ-installation"] != a.Installation.String() {
			t.Errorf("hint: got %+v", m)
		}
		if m, ok, err = ch.Get(queue, true); err != nil || !ok {
			t.Fatal(ok, err)
		}
		delete(m.Headers, "x-delivery-count") // the quorum queue's
		want := amqp.Table{"s": "x", "n": 1.5, "t": true, "nil": nil, "list": []any{"a", amqp.Table{"b": "c"}}}
		if d := cmp.Diff(want, m.Headers); d != "" {
			t.Errorf("headers (-want +got):\n%s", d)
		}
		if m.DeliveryMode != amqp.Persistent || m.MessageId != "m1" || m.CorrelationId != "" {
			t.Errorf("event: got %+v", m)
		}
		return nil
	})
}

func TestPublish_NothingIfOneIsInvalid(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	queue := a.declare("here")
	p := publisher(t, Config{})
	long := strings.Repeat("k", 256)
	for _, bad := range []Message{
		{Key: long},
		{Exchange: long},
		{MessageID: long},
		{ContentType: long},
		{Headers: map[string]any{long: ""}},
		{Headers: map[string]any{"a": struct{}{}}},
		{Headers: map[string]any{"a": []any{map[string]any{"b": struct{}{}}}}},
	} {
		fates, err := p.Publish(deadline(t), []Message{to(queue), bad})
		var invalid *InvalidError
		if !errors.As(err, &invalid) || invalid.Index != 1 {
			t.Errorf("got %v", err)
		}
		wantFates(t, fates, Unknown, Unknown)
	}
	if depths, err := p.Depths(deadline(t), []string{queue}); err != nil || depths[queue] != 0 {
		t.Errorf("got %v, %v", depths, err)
	}
}

func TestPublish_ClosesChannelWhenExchangeIsMissing(t *testing.T) {
	t.Parallel()
	queue := newAdmin(t).declare("here")
	x := newProxy(t)
	p := publisher(t, Config{URL: brokerURL(t, x.addr())})
	for range 3 {
		fates, err := p.Publish(deadline(t), []Message{{Exchange: "writ.no.such.exchange", Key: queue}, to(queue)})
		var refused *ChannelError
		if !errors.As(err, &refused) || refused.Code != amqp.NotFound {
			t.Fatalf("got %v", err)
		}
		wantFates(t, fates, Unknown, Unknown)

		fates, err = p.Publish(deadline(t), []Message{to(queue)})
		if err != nil {
			t.Fatal(err)
		}
		wantFates(t, fates, Confirmed)
	}
	if n := x.accepted.Load(); n != 1 {
		t.Errorf("%d connections, want the first one kept", n)
	}
}

func TestPublish_UnknownWhenRefused(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	full := a.declare("full", amqp.Table{"x-max-length": 1, "x-overflow": "reject-publish"})
	queue := a.declare("here")
	p := publisher(t, Config{})
	fates, err := p.Publish(deadline(t), []Message{to(full), to(full), to(full), to(queue)})
	if !errors.Is(err, ErrNotConfirmed) {
		t.Errorf("got %v", err)
	}
	wantFates(t, fates, Confirmed, Unknown, Unknown, Confirmed)
	if fates, err = p.Publish(deadline(t), []Message{to(queue)}); err != nil || fates[0] != Confirmed {
		t.Errorf("afterwards: got %v, %v", fates, err)
	}
}

// stalled returns a publisher that has published once, and whose next confirms are
// held back.
func stalled(t *testing.T, cfg Config) (p *Publisher, x *proxy, queue string) {
	t.Helper()
	queue = newAdmin(t).declare("here")
	x = newProxy(t)
	cfg.URL = brokerURL(t, x.addr())
	p = publisher(t, cfg)
	if _, err := p.Publish(deadline(t), []Message{to(queue)}); err != nil {
		t.Fatal(err)
	}
	x.toClient.Lock()
	return p, x, queue
}

// worksAgain publishes once the publisher has connected again.
func worksAgain(t *testing.T, p *Publisher, queue string) {
	t.Helper()
	if err := p.Wait(deadline(t)); err != nil {
		t.Fatal(err)
	}
	fates, err := p.Publish(deadline(t), []Message{to(queue)})
	if err != nil {
		t.Fatal(err)
	}
	wantFates(t, fates, Confirmed)
}

func TestPublish_UnknownWhenCutWhileWaiting(t *testing.T) {
	t.Parallel()
	p, x, queue := stalled(t, Config{})
	go func() {
		<-x.toClient.held // the confirm: the broker has the message
		x.cut()
		x.toClient.Unlock()
	}()
	fates, err := p.Publish(deadline(t), []Message{to(queue)})
	if !errors.Is(err, ErrDisconnected) {
		t.Errorf("got %v", err)
	}
	wantFates(t, fates, Unknown)
	worksAgain(t, p, queue)
}

func TestPublish_UnknownWhenConfirmIsLate(t *testing.T) {
	t.Parallel()
	p, x, queue := stalled(t, Config{ConfirmTimeout: 300 * time.Millisecond})
	fates, err := p.Publish(deadline(t), []Message{to(queue)})
	if !errors.Is(err, ErrNotConfirmed) {
		t.Errorf("got %v", err)
	}
	wantFates(t, fates, Unknown)
	x.toClient.Unlock()
	worksAgain(t, p, queue)
}

func TestPublish_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	p, x, queue := stalled(t, Config{ConfirmTimeout: time.Hour})
	ctx, cancel := context.WithCancel(deadline(t))
	go func() {
		<-x.toClient.held
		cancel()
	}()
	fates, err := p.Publish(ctx, []Message{to(queue)})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	wantFates(t, fates, Unknown)
	x.toClient.Unlock()
	worksAgain(t, p, queue)

	if _, err := p.Publish(ctx, []Message{to(queue)}); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: got %v", err)
	}
}

// big is more than the sockets on the way hold.
func big(queue string) []Message {
	messages := make([]Message, 40)
	for i := range messages {
		messages[i] = Message{Key: queue, Body: make([]byte, 1<<20)}
	}
	return messages
}

func TestPublish_WriteTimeout(t *testing.T) {
	t.Parallel()
	missing := newAdmin(t).name("nowhere")
	x := newProxy(t)
	p := publisher(t, Config{URL: brokerURL(t, x.addr()), WriteTimeout: 300 * time.Millisecond})
	worksAgain := func() {
		t.Helper()
		if err := p.Wait(deadline(t)); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Publish(deadline(t), []Message{{Key: missing}}); err != nil {
			t.Fatal(err)
		}
	}
	worksAgain()
	x.toBroker.Lock()
	_, err := p.Publish(deadline(t), big(missing))
	if !errors.Is(err, ErrDisconnected) {
		t.Errorf("got %v", err)
	}
	x.toBroker.Unlock()
	worksAgain()
}

func TestPublish_BlockedWriteEndsWithItsContext(t *testing.T) {
	t.Parallel()
	missing := newAdmin(t).name("nowhere")
	x := newProxy(t)
	p := publisher(t, Config{URL: brokerURL(t, x.addr()), WriteTimeout: time.Hour})
	if _, err := p.Publish(deadline(t), []Message{{Key: missing}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(deadline(t))
	x.toBroker.Lock()
	go func() {
		<-x.toBroker.held
		cancel()
	}()
	if _, err := p.Publish(ctx, big(missing)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	x.toBroker.Unlock()
}
