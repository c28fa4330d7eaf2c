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
// It asks on a connection of its own: a queue without a leader does not answer, and
// giving up on it must not cost what is being published. It blocks for connecting and
// a round trip per queue, each bounded by Config.ConfirmTimeout.
func (p *Publisher) Depths(ctx context.Context, queues []string) (map[string]int, error) {
	depths := make(map[string]int, len(queues))
	if _, err := p.current(ctx); err != nil {
		return depths, err
	}
	cfg := p.cfg
	cfg.Name += " (depths)"
	l, err := dial(ctx, cfg)
	if err != nil {
		return depths, err
	}
	defer l.close()
	d := &depthChannel{link: l}
	for _, queue := range queues {
		if ctx.Err() != nil {
			return depths, fmt.Errorf("rabbit: queue depths: %w", context.Cause(ctx))
		}
		n, err := d.depth(ctx, queue)
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

func (d *depthChannel) depth(ctx context.Context, queue string) (int, error) {
	var found amqp.Queue
	err := d.link.ask(ctx, func() (err error) {
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
