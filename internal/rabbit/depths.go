package rabbit

import (
	"context"
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Depths returns how many messages wait, ready to be delivered, in each of the
// queues, named as by QueueName. A queue that does not exist is absent from the
// map. On an error, which is as Publish's, the map holds what was learnt before.
//
// It blocks for a round trip per queue, each bounded by Config.ConfirmTimeout;
// ctx is looked at between them. It does not wait for Publish.
func (p *Publisher) Depths(ctx context.Context, queues []string) (map[string]int, error) {
	depths := make(map[string]int, len(queues))
	s, err := p.current(ctx)
	if err != nil {
		return depths, err
	}
	d := &depthChannel{link: s.link}
	defer d.close()
	for _, queue := range queues {
		if ctx.Err() != nil {
			return depths, fmt.Errorf("rabbit: queue depths: %w", context.Cause(ctx))
		}
		n, err := d.depth(queue)
		var refused *ChannelError
		switch {
		case err == nil:
			depths[queue] = n
		case errors.As(err, &refused) && refused.Code == amqp.NotFound:
		default:
			return depths, fmt.Errorf("rabbit: depth of queue %q: %w", queue, err)
		}
	}
	return depths, nil
}

// depthChannel is a channel that is opened when there is none: the broker closes
// it for each queue that does not exist.
type depthChannel struct {
	link *link
	ch   *amqp.Channel
}

// depth takes no context: ending one would sever the connection under Publish.
func (d *depthChannel) depth(queue string) (int, error) {
	var found amqp.Queue
	err := d.link.ask(context.Background(), func() (err error) {
		if d.ch == nil {
			if d.ch, err = d.link.conn.Channel(); err != nil {
				return err
			}
		}
		found, err = d.ch.QueueDeclarePassive(queue, true, false, false, false, declareArgs())
		return err
	})
	if err != nil {
		d.ch = nil // closed by the broker, or gone with the connection
	}
	return found.Messages, err
}

func (d *depthChannel) close() {
	if d.ch != nil {
		_ = d.link.ask(context.Background(), d.ch.Close)
	}
}
