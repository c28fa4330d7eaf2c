package devstack

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
)

func TestControlBrokerWhenRunning(t *testing.T) {
	t.Parallel()
	k, _ := setup(t)
	ctx := testContext(t)
	publish(t, k, "kept")

	// The graceful stop comes first: see KillBroker about queues that are new.
	for _, c := range []struct {
		name string
		stop func(context.Context) error
	}{{"StopBroker", k.StopBroker}, {"KillBroker", k.KillBroker}} {
		if err := c.stop(ctx); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if err := c.stop(ctx); err != nil {
			t.Errorf("%s on a stopped broker: %v", c.name, err)
		}
		if err := pingBroker(ctx, k.AMQPURL); err == nil {
			t.Fatalf("the broker answers after %s", c.name)
		}
		if err := k.StartBroker(ctx); err != nil {
			t.Fatalf("StartBroker after %s: %v", c.name, err)
		}
		if n := depth(t, k, "kept"); n != 1 {
			t.Errorf("after %s the queue holds %d messages, want 1", c.name, n)
		}
	}

	if err := k.SetBrokerMemoryWatermark(ctx, 0); err != nil {
		t.Fatalf("raise the alarm: %v", err)
	}
	if blocked := publishBlocked(t, k); !blocked {
		t.Error("the broker does not block publishers at watermark 0")
	}
	if err := k.SetBrokerMemoryWatermark(ctx, -1); err != nil {
		t.Fatalf("clear the alarm: %v", err)
	}
	publish(t, k, "after")
}

func TestControlPostgresWhenRunning(t *testing.T) {
	t.Parallel()
	k, o := setup(t)
	ctx := testContext(t)
	for _, mode := range []StopMode{StopSmart, StopFast, StopImmediate} {
		if err := k.StopPostgres(ctx, mode); err != nil {
			t.Fatalf("StopPostgres %s: %v", mode, err)
		}
		if err := pingPostgres(ctx, k.DatabaseURL); err == nil {
			t.Fatalf("Postgres answers after %s", mode)
		}
		if err := k.FreezePostgres(); !errors.Is(err, ErrNotRunning) {
			t.Errorf("FreezePostgres when stopped: %v, want ErrNotRunning", err)
		}
		if err := k.StartPostgres(ctx); err != nil {
			t.Fatalf("StartPostgres after %s: %v", mode, err)
		}
	}
	if err := k.StopPostgres(ctx, "sideways"); err == nil {
		t.Error("StopPostgres took an unknown mode")
	}

	requireFreeze(t, k)

	// A frozen stack can be taken down, and controls then say so.
	if err := k.FreezePostgres(); err != nil {
		t.Fatalf("FreezePostgres: %v", err)
	}
	st := recorded(t, o.Dir)
	if err := k.Down(ctx); err != nil {
		t.Fatalf("Down: %v", err)
	}
	requireGone(t, st)
	if err := k.StartPostgres(ctx); !errors.Is(err, ErrNotRunning) {
		t.Errorf("StartPostgres after Down: %v, want ErrNotRunning", err)
	}
}

// requireFreeze checks what a freeze does to open and to new connections.
func requireFreeze(t *testing.T, k *Stack) {
	t.Helper()
	ctx := testContext(t)
	conn, err := pgx.Connect(ctx, k.DatabaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if err := k.FreezePostgres(); err != nil {
		t.Fatalf("FreezePostgres: %v", err)
	}
	answered := make(chan error, 1)
	go func() { answered <- conn.Ping(ctx) }()
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if err := pingPostgres(short, k.DatabaseURL); err == nil {
		t.Error("a frozen Postgres takes a new connection")
	}
	select {
	case err := <-answered:
		t.Errorf("a frozen Postgres answered on an open connection (%v)", err)
	default:
	}
	if err := k.ThawPostgres(); err != nil {
		t.Fatalf("ThawPostgres: %v", err)
	}
	if err := <-answered; err != nil {
		t.Errorf("the open connection did not survive the freeze: %v", err)
	}
}

// onChannel runs f on a fresh channel.
func onChannel(t *testing.T, k *Stack, f func(*amqp.Connection, *amqp.Channel)) {
	t.Helper()
	conn, err := amqp.Dial(k.AMQPURL)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	defer func() { _ = conn.CloseDeadline(time.Now().Add(time.Second)) }()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatalf("open a channel: %v", err)
	}
	f(conn, ch)
}

// publish declares a quorum queue and puts a persistent message into it, confirmed.
func publish(t *testing.T, k *Stack, queue string) {
	t.Helper()
	onChannel(t, k, func(_ *amqp.Connection, ch *amqp.Channel) {
		_, err := ch.QueueDeclare(queue, true, false, false, false, amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum})
		if err == nil {
			err = ch.Confirm(false)
		}
		if err != nil {
			t.Fatalf("declare: %v", err)
		}
		d, err := ch.PublishWithDeferredConfirm("", queue, true, false, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte("x")})
		if err != nil {
			t.Fatalf("publish: %v", err)
		}
		if ok, err := d.WaitContext(testContext(t)); err != nil || !ok {
			t.Fatalf("confirm = %v, %v", ok, err)
		}
	})
}

func depth(t *testing.T, k *Stack, queue string) (n int) {
	t.Helper()
	onChannel(t, k, func(_ *amqp.Connection, ch *amqp.Channel) {
		// A quorum queue counts its messages only once it has a leader again.
		eventually(t, "the queue to have its message", func() bool {
			q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
			if err != nil {
				t.Fatalf("look at the queue: %v", err)
			}
			n = q.Messages
			return n > 0
		})
	})
	return n
}

func publishBlocked(t *testing.T, k *Stack) (blocked bool) {
	t.Helper()
	onChannel(t, k, func(conn *amqp.Connection, ch *amqp.Channel) {
		notes := conn.NotifyBlocked(make(chan amqp.Blocking, 4))
		if err := ch.Publish("", "kept", false, false, amqp.Publishing{Body: []byte("x")}); err != nil {
			t.Fatalf("publish: %v", err)
		}
		select {
		case n := <-notes:
			blocked = n.Active
		case <-time.After(20 * time.Second):
		}
	})
	return blocked
}
