package rabbit

import (
	"fmt"
	"sync/atomic"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"
)

// Delivery is a message that waits to be acked. Copies are the same delivery.
type Delivery struct {
	Queue string // the broker's name
	// Installation is who sent the hints; zero if the message does not say, or not
	// in the form of a UUID.
	Installation uuid.UUID
	Redelivered  bool // it was delivered before, here or elsewhere, and not acked
	Body         []byte
	// Headers, ContentType and MessageID are as the publisher, who need not be a Writ, set them. Not to be changed.
	Headers     map[string]any
	ContentType string
	MessageID   string

	receipt *receipt
}

// receipt is what acks a delivery. A delivery tag counts within a channel, so it
// is bound to its own: on another it would ack another message.
type receipt struct {
	channel *amqp.Channel
	tag     uint64
	acked   atomic.Bool // or given back
}

// Ack tells the broker that the message is done with. Every call but the first
// does nothing: acking twice is a protocol error that costs the whole channel.
// The error is ErrStale, and harmless. It blocks only for the write, at most
// Config.WriteTimeout, and is safe for concurrent use.
func (d Delivery) Ack() error {
	if d.receipt == nil || d.receipt.acked.Swap(true) {
		return nil
	}
	if err := d.receipt.channel.Ack(d.receipt.tag, false); err != nil {
		return fmt.Errorf("%w: %w", ErrStale, err)
	}
	return nil
}

// Stale reports whether the channel of the delivery is gone, so that the broker delivers it again.
func (d Delivery) Stale() bool { return d.receipt != nil && d.receipt.channel.IsClosed() }

// GiveBack has the broker deliver the message again, to whoever consumes its queue. It is as Ack in all else, and does
// nothing after it.
func (d Delivery) GiveBack() error {
	if d.receipt == nil || d.receipt.acked.Swap(true) {
		return nil
	}
	if err := d.receipt.channel.Nack(d.receipt.tag, false, true); err != nil {
		return fmt.Errorf("%w: %w", ErrStale, err)
	}
	return nil
}

func newDelivery(queue string, ch *amqp.Channel, m *amqp.Delivery) Delivery {
	d := Delivery{
		Queue:       queue,
		Redelivered: m.Redelivered,
		Body:        m.Body,
		Headers:     m.Headers,
		ContentType: m.ContentType,
		MessageID:   m.MessageId,
		receipt:     &receipt{channel: ch, tag: m.DeliveryTag},
	}
	if s, ok := m.Headers[headerInstallation].(string); ok && len(s) == uuidBytes {
		d.Installation, _ = uuid.Parse(s)
	}
	return d
}
