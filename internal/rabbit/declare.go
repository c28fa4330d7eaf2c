package rabbit

import (
	"context"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/writhq/writ/internal/backoff"
)

// Connections are dialled again after minBackoff doubling to maxBackoff.
const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 5 * time.Second
)

// BindEvery is the longest time after which a consumer makes sure again of the exchanges that its queues are bound to: the
// broker does not tell who deletes one, or a binding.
const BindEvery = 6 * time.Second

// maxFaultBackoff is the longest pause between attempts on a faulty queue.
const maxFaultBackoff = time.Minute

// faults are the queues that are wanted and not consumed. They outlive a
// connection, because a single bad queue can cost one: RabbitMQ lets a request to
// a quorum queue without a leader wait for a minute and then closes the whole
// connection (541).
type faults map[string]*fault

type fault struct {
	err     error
	wait    *backoff.Backoff
	due     time.Time // of the next attempt
	suspect bool      // it may have cost the connection: the next attempt gets one of its own
}

// news says whether a fault was known.
type news int

const (
	firstTime news = iota
	knownFault
)

func (f faults) note(queue string, err error) (n news) {
	if f[queue] == nil {
		f[queue] = &fault{wait: backoff.New(minBackoff, maxFaultBackoff)}
	} else {
		n = knownFault
	}
	f[queue].err = err
	f[queue].due = time.Now().Add(f[queue].wait.Next())
	return n
}

// due reports whether the queue may be tried now.
func (f faults) due(queue string) bool { return f[queue] == nil || !time.Now().Before(f[queue].due) }

// next is how long it is until the next attempt, if there is a fault.
func (f faults) next() (wait time.Duration, ok bool) {
	for _, one := range f {
		if d := max(0, time.Until(one.due)); !ok || d < wait {
			wait, ok = d, true
		}
	}
	return wait, ok
}

// try declares and consumes a queue on a connection of its own, to see whether it
// can be done. What is delivered meanwhile is delivered again.
func try(ctx context.Context, cfg ConsumerConfig, queue string) error {
	l, err := dial(ctx, cfg.Config)
	if err != nil {
		return err
	}
	defer l.close()
	d := &declarer{link: l}
	if err := d.declare(queue, cfg.Bindings[queue]); err != nil {
		return err
	}
	return l.ask(ctx, func() error {
		if err := d.ch.Qos(1, 0, false); err != nil {
			return err
		}
		_, err := d.ch.Consume(queue, "writ-try", false, false, false, false, nil)
		return err
	})
}

// declarer declares queues on a channel of its own, because the broker closes the
// channel when it refuses. Its requests do not end with a context, for the reason
// given at subscription.cancel.
type declarer struct {
	link *link
	ch   *amqp.Channel
}

// declare makes sure of a queue, and of the fanout exchange that it is bound to, if there is one.
func (d *declarer) declare(queue, exchange string) error {
	err := d.link.ask(context.Background(), func() (err error) {
		if d.ch == nil {
			if d.ch, err = d.link.conn.Channel(); err != nil {
				return err
			}
		}
		args := declareArgs()
		if exchange != "" {
			args = eventArgs()
		}
		if _, err = d.ch.QueueDeclare(queue, true, false, false, false, args); err != nil || exchange == "" {
			return err
		}
		return bind(d.ch, queue, exchange)
	})
	if err != nil {
		d.ch = nil
	}
	return err
}

// bindAgain makes sure of a queue's exchange and binding, where the queue is there.
func (d *declarer) bindAgain(queue, exchange string) error {
	err := d.link.ask(context.Background(), func() (err error) {
		if d.ch == nil {
			if d.ch, err = d.link.conn.Channel(); err != nil {
				return err
			}
		}
		return bind(d.ch, queue, exchange)
	})
	if err != nil {
		d.ch = nil
	}
	return err
}

func bind(ch *amqp.Channel, queue, exchange string) error {
	if err := declareFanout(ch, exchange); err != nil {
		return err
	}
	return ch.QueueBind(queue, "", exchange, false, nil)
}

func (d *declarer) close() {
	if d.ch != nil {
		_ = d.link.ask(context.Background(), d.ch.Close)
	}
}
