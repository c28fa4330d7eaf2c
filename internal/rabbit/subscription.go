package rabbit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// subscription is a consumer's life on one connection. Only the goroutine of
// Consumer.Run touches it, but for the pumps.
type subscription struct {
	c        *Consumer
	link     *link
	log      *slog.Logger
	ch       *amqp.Channel
	closed   chan *amqp.Error
	cancels  chan string
	stopping chan struct{} // closed when pumps must not wait for room any more
	pumps    sync.WaitGroup

	taken map[string]taken // by queue: as what it is consumed, or held
	qos   int              // the prefetch that the channel gives its next consumer
	count int              // of consumers so far, for their tags
	retry *time.Timer      // runs while a queue is faulty
}

// taken is how a queue was taken: declared, and consumed unless it is held.
type taken struct {
	tag      string // of its consumer; empty: held
	prefetch int
}

// cancelRoom is far more than the queues of one consumer: the library's reader
// must never find it full.
const cancelRoom = 1024

func newSubscription(ctx context.Context, c *Consumer, l *link, log *slog.Logger) (*subscription, error) {
	s := &subscription{
		c: c, link: l, log: log,
		stopping: make(chan struct{}),
		taken:    map[string]taken{},
		retry:    time.NewTimer(time.Hour),
	}
	s.retry.Stop()
	err := l.ask(ctx, func() (err error) {
		if s.ch, err = l.conn.Channel(); err != nil {
			return err
		}
		s.closed = s.ch.NotifyClose(make(chan *amqp.Error, 1))
		s.cancels = s.ch.NotifyCancel(make(chan string, cancelRoom))
		return nil
	})
	return s, err
}

// run consumes until ctx ends or the connection or channel is lost; the error
// says why.
func (s *subscription) run(ctx context.Context) error {
	defer s.retry.Stop()
	s.log.Info("broker connected")
	for ctx.Err() == nil {
		if err := s.apply(ctx); err != nil {
			return err
		}
		s.report()
		if err := s.rest(ctx); err != nil {
			return err
		}
	}
	return nil
}

// rest blocks until there may be queues to consume or to leave, or ctx ends. The
// error says that the channel is gone.
func (s *subscription) rest(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-s.closed:
			if e == nil {
				return ErrDisconnected
			}
			return lost(e)
		case tag := <-s.cancels:
			s.forget(tag)
			s.report()
		case <-s.c.news:
			return nil
		case <-s.retry.C:
			return nil
		}
	}
}

// apply makes the consumed queues those that are wanted and not known as faulty,
// each with its prefetch. An error means that the channel is gone.
func (s *subscription) apply(ctx context.Context) error {
	wanted := s.c.wanted()
	maps.DeleteFunc(s.c.faults, func(q string, _ *fault) bool { return !slices.Contains(wanted, q) })
	for queue, as := range s.taken {
		if slices.Contains(wanted, queue) && as.prefetch == s.c.prefetch(queue) {
			continue
		}
		if as.tag != "" {
			if err := s.cancel(as.tag); err != nil {
				return fmt.Errorf("rabbit: stop consuming queue %q: %w", queue, err)
			}
		}
		delete(s.taken, queue)
	}
	d := &declarer{link: s.link}
	defer d.close()
	for _, queue := range wanted {
		if _, ok := s.taken[queue]; ok || !s.c.faults.due(queue) {
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		if err := s.take(ctx, d, queue); err != nil {
			return fmt.Errorf("rabbit: consume queue %q: %w", queue, err)
		}
	}
	if wait, ok := s.c.faults.next(); ok {
		s.retry.Reset(wait)
	}
	return nil
}

// take declares one queue, and consumes it unless it is held, or notes why it cannot. An error means
// that the channel is gone.
func (s *subscription) take(ctx context.Context, d *declarer, queue string) error {
	if f := s.c.faults[queue]; f != nil && f.suspect {
		if err := try(ctx, s.c.cfg, queue); err != nil {
			s.fault(queue, err)
			return nil
		}
	}
	err := d.declare(queue, s.c.cfg.Bindings[queue])
	if refused := (*ChannelError)(nil); errors.As(err, &refused) {
		s.fault(queue, err) // such as for other arguments (406), or a lack of permission (403)
		return nil
	}
	if prefetch := s.c.prefetch(queue); err == nil && prefetch == Held {
		s.taken[queue] = taken{prefetch: Held}
	} else if err == nil {
		err = s.consume(queue, prefetch)
	}
	if err != nil {
		s.fault(queue, err)
		s.c.faults[queue].suspect = true
		return err
	}
	delete(s.c.faults, queue)
	return nil
}

func (s *subscription) fault(queue string, err error) {
	if s.c.faults.note(queue, err) == firstTime {
		s.log.Error("queue not consumed", slog.String("queue", queue), slog.Any("error", err))
	}
}

// forget notes that the broker has cancelled a consumer: its queue was deleted or
// has lost its node. The channel stays open, and would stay silent.
func (s *subscription) forget(tag string) {
	for queue, as := range s.taken {
		if as.tag == tag {
			delete(s.taken, queue)
			s.fault(queue, errors.New("rabbit: the broker cancelled its consumer"))
		}
	}
	if wait, ok := s.c.faults.next(); ok {
		s.retry.Reset(wait)
	}
}

// report sets the consumer's state.
func (s *subscription) report() {
	state := State{Connected: true}
	for _, queue := range slices.Sorted(maps.Keys(s.c.faults)) {
		state.Reason = fmt.Sprintf("queue %q: %v", queue, s.c.faults[queue].err)
		break
	}
	s.c.setState(state)
}

// cancel ends a consumer. It does not end with a context: that would sever the
// connection on which deliveries are still to be acked.
func (s *subscription) cancel(tag string) error {
	return s.link.ask(context.Background(), func() error { return s.ch.Cancel(tag, false) })
}

// consume starts a consumer and its pump. A tag is never used twice: the library
// notifies of a cancelled one before it forgets it, and so would end its
// successor.
func (s *subscription) consume(queue string, prefetch int) error {
	s.count++
	tag := "writ-" + strconv.Itoa(s.count)
	var in <-chan amqp.Delivery
	err := s.link.ask(context.Background(), func() (err error) {
		if s.qos != prefetch { // per consumer: a global limit is refused from RabbitMQ 4.3
			if err := s.ch.Qos(prefetch, 0, false); err != nil {
				return err
			}
			s.qos = prefetch
		}
		in, err = s.ch.Consume(queue, tag, false, false, false, false, nil)
		return err
	})
	if err != nil {
		return err
	}
	s.taken[queue] = taken{tag: tag, prefetch: prefetch}
	s.pumps.Go(func() { s.pump(queue, in) })
	return nil
}

// pump moves deliveries to where a receive that does not block finds them: the
// library hands them over one by one through an unbuffered channel. It ends when
// the consumer does.
func (s *subscription) pump(queue string, in <-chan amqp.Delivery) {
	for m := range in {
		select {
		case s.c.deliveries <- newDelivery(queue, s.ch, &m):
		case <-s.stopping: // not acked, so the broker delivers it again
		}
	}
}

// drain tells the broker to send nothing more, and waits for the pumps. What does
// not fit the buffer is left to be delivered again.
func (s *subscription) drain() {
	close(s.stopping)
	for _, as := range s.taken {
		if as.tag != "" && s.cancel(as.tag) != nil {
			// The connection is gone, or its channel is: either way it ends here, so
			// that the pumps do.
			s.link.close()
			break
		}
	}
	s.pumps.Wait()
}
