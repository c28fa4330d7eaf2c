package rabbit

import (
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

var (
	// ErrBlocked means that the broker has raised an alarm (memory, disk) and takes
	// no messages. Nothing can be published until it says otherwise: pause.
	ErrBlocked = errors.New("rabbit: the broker is blocked by an alarm")
	// ErrDisconnected means that there is no connection, or that it was lost or
	// given up while waiting. It is dialled again in the background. An
	// *amqp091.Error in the chain holds the code with which the broker closed it.
	ErrDisconnected = errors.New("rabbit: not connected")
	// ErrNotConfirmed means that the broker refused (nacked) a message, or did not
	// confirm it within Config.ConfirmTimeout.
	ErrNotConfirmed = errors.New("rabbit: not confirmed by the broker")
	// ErrClosed is returned by a Publisher or Consumer after Close.
	ErrClosed = errors.New("rabbit: closed")
	// ErrStale is returned by Delivery.Ack when the channel of the delivery is gone:
	// the broker delivers it again. There is nothing to do about it.
	ErrStale = errors.New("rabbit: the delivery's channel is gone")
)

// ChannelError says that the broker closed the channel because it did not accept
// what was asked on it. The connection lives on.
type ChannelError struct {
	Code   int    // of AMQP: 404 no such exchange or queue, 403 access refused, 406 precondition failed, …
	Reason string // the broker's words
}

func (e *ChannelError) Error() string {
	return fmt.Sprintf("rabbit: the broker closed the channel: %s (%d)", e.Reason, e.Code)
}

// InvalidError says that a message cannot be put into AMQP, so that nothing was
// published of its batch.
type InvalidError struct {
	Index int // of the message in the batch
	Err   error
}

func (e *InvalidError) Error() string {
	return fmt.Sprintf("rabbit: message %d cannot be published: %v", e.Index, e.Err)
}

func (e *InvalidError) Unwrap() error { return e.Err }

// lost translates why a channel or connection ended. Only the codes that the
// broker itself sent, and that AMQP lets it send for a channel alone, are a
// ChannelError; all else means that the connection is gone.
func lost(err error) error {
	var e *amqp.Error
	switch {
	case errors.As(err, &e) && e.Server && e.Recover:
		return &ChannelError{Code: e.Code, Reason: e.Reason}
	case err == nil:
		return ErrDisconnected
	default:
		return fmt.Errorf("%w: %w", ErrDisconnected, err)
	}
}
