package dispatch

import (
	"context"
	"time"

	"github.com/writhq/writ/internal/backoff"
)

// doze waits until there may be work. The relay with the seat tries to fall asleep: it takes the sleeping lock, which
// fails while a creation is in flight that will not ring, and looks once more before it trusts the bell.
func (s *session) doze(ctx context.Context) error {
	if !s.seat {
		backoff.Sleep(ctx, s.cfg.Poll) // the loop sees if ctx ended
		return s.sit(ctx)
	}
	if s.outbox.Asleep() {
		return s.sleep(ctx)
	}
	for nap := time.Millisecond; ; nap = min(2*nap, restless) {
		asleep, err := s.outbox.Sleep(ctx)
		if err != nil {
			return err
		}
		if due, err := s.outbox.Peek(ctx); err != nil || due || s.restless() {
			return err
		}
		if asleep {
			return s.sleep(ctx)
		}
		if !backoff.Sleep(ctx, nap) {
			return nil
		}
	}
}

// sit takes the seat at the door if it is free. Whoever has it also measures the queues, so it is taken under load too.
func (s *session) sit(ctx context.Context) (err error) {
	if s.seat {
		return nil
	}
	if s.seat, err = s.outbox.Seat(ctx); err != nil || !s.seat {
		return err
	}
	s.bell, err = s.hang(ctx)
	return err
}

// sleep holds the sleeping lock until the bell rings or something is due.
func (s *session) sleep(ctx context.Context) error {
	for {
		rung, err := s.bell.wait(ctx, s.cfg.Poll)
		if err != nil || rung || ctx.Err() != nil {
			return err // it wakes up with the next look, or does not
		}
		if due, err := s.outbox.Peek(ctx); err != nil || due {
			return err
		}
		if s.restless() {
			return s.outbox.Wake(ctx)
		}
	}
}
