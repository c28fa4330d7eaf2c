package rabbit

import (
	"context"

	amqp "github.com/rabbitmq/amqp091-go"
)

// EventExchange is the broker's name of an event's exchange: "writ.event.<event>". It is the same for all installations
// that share a virtual host: events are what applications tell each other.
func EventExchange(event string) string { return "writ.event." + event }

// DeclareFanout makes sure of a durable fanout exchange, on a channel of its own. Errors: *ChannelError (it exists in
// another form, or may not be declared), ErrDisconnected, ErrBlocked, ErrClosed, or what ended ctx.
func (p *Publisher) DeclareFanout(ctx context.Context, exchange string) error {
	s, err := p.current(ctx)
	if err != nil {
		return err
	}
	return s.link.ask(ctx, func() error {
		ch, err := s.link.conn.Channel()
		if err != nil {
			return err
		}
		if err := declareFanout(ch, exchange); err != nil {
			return err // which has closed the channel
		}
		return ch.Close()
	})
}

func declareFanout(ch *amqp.Channel, exchange string) error {
	return ch.ExchangeDeclare(exchange, amqp.ExchangeFanout, true, false, false, false, nil)
}
