package rabbit

import (
	"context"
	"errors"

	amqp "github.com/rabbitmq/amqp091-go"
)

// EventExchange is the broker's name of an event's exchange: "writ.event.<event>". It is the same for all installations
// that share a virtual host: events are what applications tell each other.
func EventExchange(event string) string { return "writ.event." + event }

// DeclareFanout makes sure of a durable fanout exchange, on channels of its own, and reports whether it was missing. Errors:
// *ChannelError (it exists in another form, or may not be declared), ErrDisconnected, ErrBlocked, ErrClosed, or what ended
// ctx.
func (p *Publisher) DeclareFanout(ctx context.Context, exchange string) (made bool, err error) {
	s, err := p.current(ctx)
	if err != nil {
		return false, err
	}
	ask := func(declare func(*amqp.Channel) error) error {
		return s.link.ask(ctx, func() error {
			ch, err := s.link.conn.Channel()
			if err != nil {
				return err
			}
			if err := declare(ch); err != nil {
				return err // which has closed the channel
			}
			return ch.Close()
		})
	}
	err = ask(func(ch *amqp.Channel) error {
		return ch.ExchangeDeclarePassive(exchange, amqp.ExchangeFanout, true, false, false, false, nil)
	})
	if refused := (*ChannelError)(nil); errors.As(err, &refused) && refused.Code == amqp.NotFound {
		made = true
	} else if err != nil {
		return false, err
	}
	return made, ask(func(ch *amqp.Channel) error { return declareFanout(ch, exchange) })
}

func declareFanout(ch *amqp.Channel, exchange string) error {
	return ch.ExchangeDeclare(exchange, amqp.ExchangeFanout, true, false, false, false, nil)
}
