package rabbit

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/writhq/writ/internal/devstack"
)

// TestPrivateBroker breaks a broker of its own: an alarm or a restart of the
// shared one would disturb whoever else tests with it.
func TestPrivateBroker(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	stack, err := devstack.Up(ctx, devstack.Options{Dir: t.TempDir(), Mode: devstack.ModePrivate})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // before TempDir's, after the subtests'
		if err := stack.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	alarm := func(t *testing.T, fraction float64) {
		t.Helper()
		if err := stack.SetBrokerMemoryWatermark(ctx, fraction); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("Alarm", func(t *testing.T) { testAlarm(t, stack.AMQPURL, alarm) })
	t.Run("AlarmBeforeConnecting", func(t *testing.T) { testAlarmBeforeConnecting(t, stack.AMQPURL, alarm) })
	t.Run("Restart", func(t *testing.T) {
		testRestart(t, stack.AMQPURL, func() {
			if err := errors.Join(stack.StopBroker(ctx), stack.StartBroker(ctx)); err != nil {
				t.Fatal(err)
			}
		})
	})
	t.Run("QueueWithoutLeader", func(t *testing.T) {
		testQueueWithoutLeader(t, stack.AMQPURL, func() {
			if err := errors.Join(stack.KillBroker(ctx), stack.StartBroker(ctx)); err != nil {
				t.Fatal(err)
			}
		})
	})
}

func testAlarm(t *testing.T, uri string, alarm func(*testing.T, float64)) {
	a := newAdminAt(t, uri)
	queue := a.declare("q")
	p := publisher(t, Config{URL: uri})
	r := run(t, ConsumerConfig{Config: Config{URL: uri}, Queues: []string{queue}})
	if _, err := p.Publish(deadline(t), []Message{to(queue)}); err != nil {
		t.Fatal(err)
	}
	d := r.next()

	alarm(t, 0)
	// The broker tells a connection only once that publishes.
	if _, err := p.Publish(deadline(t), []Message{to(queue)}); !errors.Is(err, ErrBlocked) {
		t.Errorf("got %v", err)
	}
	if s := p.State(); !s.Connected || !s.Blocked || s.Reason == "" {
		t.Errorf("got %+v", s)
	}
	for range 2 {
		fates, err := p.Publish(deadline(t), []Message{to(queue)})
		if !errors.Is(err, ErrBlocked) {
			t.Errorf("Publish: got %v", err)
		}
		wantFates(t, fates, Unknown)
	}
	if _, err := p.Depths(deadline(t), []string{queue}); !errors.Is(err, ErrBlocked) {
		t.Errorf("Depths: got %v", err)
	}
	r.ack(d) // on a connection that never publishes

	alarm(t, -1)
	worksAgain(t, p, queue)
	r.ack(r.next()) // perhaps the Unknown one
}

// testAlarmBeforeConnecting has the publisher learn of the alarm only by
// publishing.
func testAlarmBeforeConnecting(t *testing.T, uri string, alarm func(*testing.T, float64)) {
	a := newAdminAt(t, uri)
	queue := a.declare("q")
	alarm(t, 0)
	defer alarm(t, -1)
	p := publisher(t, Config{URL: uri, ConfirmTimeout: time.Minute})
	began := time.Now()
	fates, err := p.Publish(deadline(t), []Message{to(queue), to(queue)})
	if !errors.Is(err, ErrBlocked) {
		t.Errorf("got %v", err)
	}
	wantFates(t, fates, Unknown, Unknown)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("told after %v only", took)
	}
	if _, err := p.Publish(deadline(t), []Message{to(queue)}); !errors.Is(err, ErrBlocked) {
		t.Errorf("got %v", err)
	}
	alarm(t, -1)
	worksAgain(t, p, queue)
}

func testRestart(t *testing.T, uri string, restart func()) {
	queue, err := QueueName([16]byte{1}, "restart") // goes with the stack
	if err != nil {
		t.Fatal(err)
	}
	p := publisher(t, Config{URL: uri})
	r := run(t, ConsumerConfig{Config: Config{URL: uri}, Queues: []string{queue}})
	if fates, err := p.Publish(deadline(t), []Message{to(queue)}); err != nil || fates[0] != Confirmed {
		t.Fatal(fates, err)
	}
	stale := r.next()
	restart()
	if err := stale.Ack(); err != nil && !errors.Is(err, ErrStale) {
		t.Errorf("stale ack: got %v", err)
	}
	r.ack(r.next()) // confirmed means on disk
	if err := p.Wait(deadline(t)); err != nil {
		t.Fatal(err)
	}
	worksAgain(t, p, queue)
	r.ack(r.next())
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	if secret, ok := u.User.Password(); ok && strings.Contains(p.State().Reason, secret) {
		t.Error("the password is shown")
	}
}

// testQueueWithoutLeader kills the broker right after a queue was declared. That
// RabbitMQ 3.10 never finds a leader for it again, lets requests to it wait for a
// minute, and then closes their connections. Where it does, the test is easy.
func testQueueWithoutLeader(t *testing.T, uri string, kill func()) {
	stuck, _ := QueueName([16]byte{2}, "stuck")
	good, _ := QueueName([16]byte{2}, "good")
	a := &admin{t: t}
	var err error
	if a.conn, err = amqp.Dial(uri); err != nil {
		t.Fatal(err)
	}
	a.do(func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(stuck, true, false, false, false, declareArgs())
		return err
	})
	kill()
	cfg := Config{URL: uri, ConfirmTimeout: time.Second}
	r := run(t, ConsumerConfig{Config: cfg, Queues: []string{stuck, good}})
	p := publisher(t, cfg)
	got := 0
	eventually(t, "the good queue is consumed", func() bool {
		_, _ = p.Publish(deadline(t), []Message{to(good)}) // returned until it is declared
		select {
		case d := <-r.Deliveries():
			r.ack(d)
			got++
		default:
		}
		return got >= 20
	})
	t.Logf("state: %+v", r.State())
	// Its channel waits with it, so each queue has to be published to in a call of
	// its own to find the bad one. The next call is not affected.
	if fates, err := p.Publish(deadline(t), []Message{to(good), to(stuck)}); err != nil {
		t.Logf("publish: got %v, %v", fates, err)
		if !errors.Is(err, ErrNotConfirmed) {
			t.Errorf("publish: got %v", err)
		}
	}
	worksAgain(t, p, good)
	r.stop()
}
