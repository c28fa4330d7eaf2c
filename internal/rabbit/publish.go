package rabbit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// window is how many messages may wait for their confirms at once. It is also
// the room for returned ones: were it smaller, the library would stall its
// reader, confirms included, and in the end drop returns.
const window = 1024

// blockedGrace is how long to wait for confirms once the broker has said that it
// is blocked: it answers what it has read, and reads no more. It says so only
// after reading a message, so a Publish is often how we learn of an alarm.
const blockedGrace = 250 * time.Millisecond

// channel is a channel in confirm mode.
type channel struct {
	*amqp.Channel
	closed    chan *amqp.Error
	returns   chan amqp.Return
	published uint64 // delivery tag of the last message
}

// Publish publishes the messages in order and waits for the broker's answer to
// each. It returns a fate for each message, always; if any is Unknown the error
// says why:
//
//   - *InvalidError: a message cannot be put into AMQP. Nothing was published.
//   - *ChannelError: the broker closed the channel, such as for a missing
//     exchange (404). It does not say for which message; the next call uses a new
//     channel.
//   - ErrBlocked: the broker has raised an alarm. Nothing is published meanwhile.
//   - ErrDisconnected: there is no connection, or it was lost.
//   - ErrNotConfirmed: a message was refused, or not confirmed in time.
//   - ErrClosed, or what ended ctx.
//
// It blocks while other calls publish, and then for the writes (each bounded by
// Config.WriteTimeout) and for the confirms of every 1,024 messages (bounded by
// Config.ConfirmTimeout). If ctx ends before all is confirmed, the connection is
// given up and made anew.
func (p *Publisher) Publish(ctx context.Context, messages []Message) ([]Fate, error) {
	fates := make([]Fate, len(messages))
	publishings, err := prepare(messages)
	if err != nil {
		return fates, err
	}
	select {
	case <-p.turn:
		defer func() { p.turn <- struct{}{} }()
	case <-ctx.Done():
		return fates, fmt.Errorf("rabbit: publish: %w", context.Cause(ctx))
	}
	for start := 0; start < len(messages); start += window {
		end := min(start+window, len(messages))
		if err := p.publishWindow(ctx, messages[start:end], publishings[start:end], fates[start:end]); err != nil {
			return fates, err
		}
	}
	return fates, nil
}

// publishWindow publishes at most window messages. The caller holds the turn.
func (p *Publisher) publishWindow(ctx context.Context, messages []Message, publishings []amqp.Publishing, fates []Fate) error {
	s, err := p.current(ctx)
	if err != nil {
		return err
	}
	ch, err := s.open(ctx)
	if err != nil {
		if errors.Is(err, ErrDisconnected) {
			p.drop(s, err)
		}
		return err
	}
	// Neither a blocked write nor the library looks at the context.
	unwatch := context.AfterFunc(ctx, s.link.sever)
	defer unwatch()

	first := ch.published + 1
	confirms, err := p.send(ctx, ch, messages, publishings)
	late := p.wait(ctx, confirms)
	for i, c := range confirms {
		if c.Acked() {
			fates[i] = Confirmed
		}
	}
	ch.takeReturned(first, fates)
	if !slices.Contains(fates, Unknown) {
		return nil
	}
	return p.blame(ctx, s, ch, errors.Join(err, late))
}

// send publishes until all is sent or the first fault.
func (p *Publisher) send(ctx context.Context, ch *channel, messages []Message, publishings []amqp.Publishing) ([]*amqp.DeferredConfirmation, error) {
	confirms := make([]*amqp.DeferredConfirmation, 0, len(messages))
	for i := range messages {
		if p.isBlocked() {
			return confirms, ErrBlocked
		}
		if ctx.Err() != nil {
			return confirms, context.Cause(ctx)
		}
		m, publishing := &messages[i], publishings[i]
		if m.Mandatory {
			// A return names no delivery tag, so the message itself has to.
			publishing.CorrelationId = strconv.FormatUint(ch.published+1, 10)
		}
		c, err := ch.PublishWithDeferredConfirm(m.Exchange, m.Key, m.Mandatory, false, publishing)
		if err != nil {
			return confirms, err
		}
		ch.published++
		confirms = append(confirms, c)
	}
	return confirms, nil
}

// errLate says that wait gave up.
var errLate = errors.New("rabbit: gave up waiting")

// wait blocks until every message has its answer, or the channel is closed,
// which answers all; or, with errLate, until the timeout or the end of ctx.
func (p *Publisher) wait(ctx context.Context, confirms []*amqp.DeferredConfirmation) error {
	changed, blocked := p.glance()
	patience := p.cfg.ConfirmTimeout
	if blocked { // by one of the messages just sent
		patience = min(patience, blockedGrace)
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	for i := 0; i < len(confirms); {
		select {
		case <-confirms[i].Done():
			i++
		case <-changed:
			was := blocked
			if changed, blocked = p.glance(); blocked && !was {
				late.Reset(min(patience, blockedGrace))
			}
		case <-late.C:
			return errLate
		case <-ctx.Done():
			return errLate
		}
	}
	return nil
}

// takeReturned sets the fate of what was returned, acked or not: the return is
// read off the wire before its ack, so it is already here.
func (ch *channel) takeReturned(first uint64, fates []Fate) {
	for {
		select {
		case r, ok := <-ch.returns:
			if !ok {
				return
			}
			tag, err := strconv.ParseUint(r.CorrelationId, 10, 64)
			if i := tag - first; err == nil && i < uint64(len(fates)) {
				fates[i] = Returned
			}
		default:
			return
		}
	}
}

// blame finds out why messages are Unknown, and gives up what can no longer be
// trusted: the channel if the broker closed it, the connection if there is no
// telling what is still on its way.
func (p *Publisher) blame(ctx context.Context, s *session, ch *channel, err error) error {
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("rabbit: publish: %w", context.Cause(ctx))
		p.drop(s, fmt.Errorf("%w: a publish was cancelled", ErrDisconnected))
		return err
	case ch.IsClosed():
		err = ch.reason(p.cfg.ConfirmTimeout)
		s.channel = nil
		if errors.Is(err, ErrDisconnected) {
			p.drop(s, err)
		}
		return err
	case errors.Is(err, errLate) && p.isBlocked():
		// The broker still has to read what we wrote. A new connection would learn
		// of the alarm only after publishing again, so keep this one.
		s.retired, s.channel = ch.Channel, nil
		return ErrBlocked
	case errors.Is(err, errLate):
		err = fmt.Errorf("%w within %v", ErrNotConfirmed, p.cfg.ConfirmTimeout)
		p.drop(s, fmt.Errorf("%w: %w", ErrDisconnected, err))
		return err
	case errors.Is(err, ErrBlocked):
		return err
	case err != nil:
		// A failed write. The library does not end the connection for it.
		err = lost(err)
		if p.isBlocked() {
			err = fmt.Errorf("%w: %w", ErrBlocked, err)
		}
		p.drop(s, err)
		return err
	default:
		return fmt.Errorf("%w: refused", ErrNotConfirmed) // each has its answer: the channel is clean
	}
}

// reason is why the channel was closed. The library marks it closed a moment
// before it tells.
func (ch *channel) reason(timeout time.Duration) error {
	late := time.NewTimer(timeout)
	defer late.Stop()
	select {
	case e := <-ch.closed:
		if e != nil {
			return lost(e)
		}
	case <-late.C:
	}
	return ErrDisconnected
}

// open returns the session's channel, after opening it if need be.
func (s *session) open(ctx context.Context) (*channel, error) {
	if s.channel != nil && !s.channel.IsClosed() {
		return s.channel, nil
	}
	s.channel = nil
	err := s.link.ask(ctx, func() error {
		if s.retired != nil {
			// Its late confirms are of no use, but it counts against channel_max.
			_ = s.retired.Close()
			s.retired = nil
		}
		c, err := s.link.conn.Channel()
		if err != nil {
			return err
		}
		s.channel = &channel{
			Channel: c,
			closed:  c.NotifyClose(make(chan *amqp.Error, 1)),
			returns: c.NotifyReturn(make(chan amqp.Return, window)),
		}
		return c.Confirm(false)
	})
	if err != nil {
		s.channel = nil
	}
	return s.channel, err
}
