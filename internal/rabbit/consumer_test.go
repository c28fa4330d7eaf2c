package rabbit

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"
)

// running is a consumer whose Run is under way.
type running struct {
	*Consumer
	t      testing.TB
	cancel context.CancelFunc
	result chan error
}

// run starts a consumer and waits until it consumes.
func run(t testing.TB, cfg ConsumerConfig) *running {
	t.Helper()
	if cfg.URL == "" {
		cfg.URL = brokerURL(t)
	}
	cfg.Name, cfg.Log = t.Name(), testLog(t)
	c, err := NewConsumer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(deadline(t))
	r := &running{Consumer: c, t: t, cancel: cancel, result: make(chan error, 1)}
	go func() { r.result <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		_ = c.Close()
	})
	eventually(t, "connected", func() bool { return c.State().Connected })
	return r
}

// stop cancels Run and waits for it.
func (r *running) stop() {
	r.t.Helper()
	r.cancel()
	if err := <-r.result; err != nil {
		r.t.Errorf("Run: %v", err)
	}
}

func (r *running) next() Delivery {
	r.t.Helper()
	select {
	case d, ok := <-r.Deliveries():
		if !ok {
			r.t.Fatal("Deliveries is closed")
		}
		return d
	case <-deadline(r.t).Done():
		r.t.Fatal("no delivery")
	}
	return Delivery{}
}

func (r *running) ack(d Delivery) {
	r.t.Helper()
	if err := d.Ack(); err != nil {
		r.t.Errorf("ack: %v", err)
	}
}

func (r *running) expect(text string) Delivery {
	r.t.Helper()
	d := r.next()
	if string(d.Body) != text {
		r.t.Fatalf("got %q, want %q", d.Body, text)
	}
	return d
}

// left drains what the broker still holds for a queue, ready to be delivered.
func (a *admin) left(queue string) (texts []string) {
	a.t.Helper()
	a.do(func(ch *amqp.Channel) error {
		for {
			m, ok, err := ch.Get(queue, true)
			if err != nil || !ok {
				return err
			}
			texts = append(texts, string(m.Body))
		}
	})
	return texts
}

func numbers(n int) []string {
	texts := make([]string, n)
	for i := range texts {
		texts[i] = strconv.Itoa(i)
	}
	return texts
}

func TestRun_DeclaresDeliversAndAcks(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	queue := a.name("q")
	r := run(t, ConsumerConfig{Queues: []string{queue}})
	p := publisher(t, Config{})
	m, err := HintMessage(a.Installation, queue, someHints(1))
	if err != nil {
		t.Fatal(err)
	}
	foreign := m
	foreign.Headers = map[string]any{headerInstallation: "not a uuid"}
	if _, err := p.Publish(deadline(t), []Message{m, foreign}); err != nil {
		t.Fatal(err)
	}
	d := r.next()
	if d.Queue != queue || d.Installation != a.Installation || d.Redelivered || string(d.Body) != string(m.Body) {
		t.Errorf("got %+v", d)
	}
	other := r.next()
	if other.Installation != uuid.Nil {
		t.Errorf("got %+v", other)
	}
	for _, d := range []Delivery{d, d, other} { // a second ack of one must not close the channel
		r.ack(d)
	}
	a.put(queue, "more")
	r.ack(r.expect("more"))
	r.stop()
	_ = r.Close()
	if left := a.left(queue); len(left) != 0 {
		t.Errorf("left in the queue: %q", left)
	}
}

func TestDeliveries_NonBlockingReceiveFindsWhatWaits(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	queue := a.declare("q")
	want := numbers(50)
	a.put(queue, want...)
	r := run(t, ConsumerConfig{Queues: []string{queue}})
	eventually(t, "all 50 wait", func() bool { return len(r.Deliveries()) == 50 })
	var got []string
	for range want {
		select {
		case d := <-r.Deliveries():
			got = append(got, string(d.Body))
			r.ack(d)
		default:
			t.Fatalf("nothing waits after %d", len(got))
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestRun_PrefetchBoundsWhatIsHeld(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	one, two := a.declare("one"), a.declare("two")
	a.put(one, numbers(9)...)
	a.put(two, numbers(9)...)
	r := run(t, ConsumerConfig{Queues: []string{one, two}, Prefetch: 3})
	eventually(t, "three of each", func() bool { return len(r.Deliveries()) == 6 })
	r.stop()
	_ = r.Close()
	if n := len(a.left(one)); n != 9 {
		t.Errorf("%d left, want 9", n)
	}
}

func TestRun_SurvivesACutAndAStaleAck(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	queue := a.declare("q")
	x := newProxy(t)
	r := run(t, ConsumerConfig{Config: Config{URL: brokerURL(t, x.addr())}, Queues: []string{queue}})
	a.put(queue, "a")
	stale := r.expect("a")
	x.cut()
	fresh := r.expect("a")
	if !fresh.Redelivered {
		t.Error("not marked as redelivered")
	}
	// Both have delivery tag 1: were the tag sent on the new channel, it would ack
	// the fresh one.
	if err := stale.Ack(); !errors.Is(err, ErrStale) {
		t.Errorf("stale ack: got %v", err)
	}
	a.put(queue, "b")
	r.ack(r.expect("b"))
	r.stop()
	_ = r.Close()
	if left := a.left(queue); !slices.Equal(left, []string{"a"}) {
		t.Errorf("left in the queue: %q, want the unacked a", left)
	}
}

func TestRun_SurvivesACutWithAFullBuffer(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	queue := a.declare("q")
	x := newProxy(t)
	a.put(queue, numbers(20)...)
	r := run(t, ConsumerConfig{Config: Config{URL: brokerURL(t, x.addr())}, Queues: []string{queue}, Buffer: 1})
	eventually(t, "full", func() bool { return len(r.Deliveries()) == 1 })
	x.cut()
	eventually(t, "connected again", func() bool { return x.accepted.Load() == 2 && r.State().Connected })
	got := map[string]bool{}
	for len(got) < 20 {
		d := r.next()
		got[string(d.Body)] = true
		r.ack(d)
	}
	r.stop()
}

func TestRun_SurvivesDeletionOfItsQueue(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	queue, other := a.name("q"), a.name("other")
	x := newProxy(t)
	r := run(t, ConsumerConfig{Config: Config{URL: brokerURL(t, x.addr())}, Queues: []string{queue, other}})
	a.put(other, "kept")
	kept := r.expect("kept")
	for range 2 {
		a.delete(queue)
		eventually(t, "cancel noticed", func() bool { return r.State().Reason != "" })
		eventually(t, "consuming again", func() bool { return r.State() == State{Connected: true} })
		a.put(queue, "x")
		r.ack(r.expect("x"))
	}
	r.ack(kept) // on the channel that the cancel left alone
	if n := x.accepted.Load(); n != 1 {
		t.Errorf("%d connections, want the first one kept", n)
	}
	r.stop()
	_ = r.Close()
	if left := a.left(other); len(left) != 0 {
		t.Errorf("left in the queue: %q", left)
	}
}

func TestRun_SurvivesAClosedChannel(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	queue := a.declare("q")
	r := run(t, ConsumerConfig{Queues: []string{queue}})
	a.put(queue, "a")
	d := r.expect("a")
	d.receipt.tag = 99 // no such delivery: a protocol error
	r.ack(d)
	again := r.expect("a")
	r.ack(again)
	r.stop()
}

func TestRun_DrainsWhenCancelled(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	queue := a.declare("q")
	a.put(queue, "a", "b", "c")
	r := run(t, ConsumerConfig{Queues: []string{queue}})
	first, second := r.expect("a"), r.expect("b")
	eventually(t, "c waits", func() bool { return len(r.Deliveries()) == 1 })
	r.stop()
	a.put(queue, "d") // comes too late
	r.ack(first)
	third, ok := <-r.Deliveries()
	if !ok || string(third.Body) != "c" {
		t.Errorf("got %q, %v; want what waited", third.Body, ok)
	}
	r.ack(third)
	if d, ok := <-r.Deliveries(); ok {
		t.Errorf("got %q; want a closed channel", d.Body)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := second.Ack(); !errors.Is(err, ErrStale) {
		t.Errorf("ack after Close: got %v", err)
	}
	left := a.left(queue)
	slices.Sort(left)
	if !slices.Equal(left, []string{"b", "d"}) {
		t.Errorf("left in the queue: %q, want b and d", left)
	}
}

func TestRun_DrainsWithAFullBuffer(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	queue := a.declare("q")
	a.put(queue, numbers(20)...)
	r := run(t, ConsumerConfig{Queues: []string{queue}, Buffer: 1})
	eventually(t, "full", func() bool { return len(r.Deliveries()) == 1 })
	r.stop()
	_ = r.Close()
	if n := len(a.left(queue)); n != 20 {
		t.Errorf("%d left, want 20", n)
	}
}

func TestRun_Lifecycle(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	r := run(t, ConsumerConfig{Queues: []string{a.name("q")}})
	if err := r.Run(deadline(t)); err == nil {
		t.Error("a second Run: accepted")
	}
	_ = r.Close() // while it runs
	if err := <-r.result; !errors.Is(err, ErrClosed) {
		t.Errorf("Run ended by Close: got %v", err)
	}
	c, err := NewConsumer(ConsumerConfig{Config: Config{URL: brokerURL(t)}})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if err := c.Run(deadline(t)); !errors.Is(err, ErrClosed) {
		t.Errorf("Run after Close: got %v", err)
	}
}

func TestRun_EndsWhileTheBrokerIsDown(t *testing.T) {
	t.Parallel()
	x := newProxy(t)
	x.refuse()
	c, err := NewConsumer(ConsumerConfig{Config: Config{URL: brokerURL(t, x.addr())}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(deadline(t))
	result := make(chan error)
	go func() { result <- c.Run(ctx) }()
	eventually(t, "tried twice", func() bool { return x.accepted.Load() >= 2 })
	if s := c.State(); s.Connected || s.Reason == "" {
		t.Errorf("got %+v", s)
	}
	cancel()
	if err := <-result; err != nil {
		t.Errorf("got %v", err)
	}
	_ = c.Close()
}
