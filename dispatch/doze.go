package dispatch

import (
	"context"
	"time"

	"github.com/writhq/writ/internal/backoff"
)

// doze waits until there may be work. The relay with the seat tries to fall asleep: it takes the sleeping lock, which
// fails while a creation is in flight that will not ring, and looks once more before it trusts the bell. Nobody glances
// meanwhile: who creates rings with the hint.
func (s *session) doze(ctx context.Context) error {
	s.glance.close()
	s.glance = nil
	if s.bell == nil {
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

// sit takes the seat at the door if it is free, and hangs the bell. Whoever has the seat also measures the queues, so it is
// taken under load too. Without a bell, as behind a pgbouncer in transaction mode, polling alone is correct.
func (s *session) sit(ctx context.Context) (err error) {
	if !s.seat {
		if s.seat, err = s.outbox.Seat(ctx); err != nil || !s.seat {
			return err
		}
	}
	if s.bell != nil || time.Since(s.hung) < refresh {
		return nil
	}
	s.hung = time.Now()
	if s.bell, err = s.hang(ctx); err != nil && ctx.Err() == nil {
		s.cfg.Log.Warn("relay: cannot listen, so it polls only; it tries again", "error", err)
	}
	return nil
}

// sleep holds the sleeping lock until the bell rings or something is due.
func (s *session) sleep(ctx context.Context) error {
	for {
		rung, err := s.bell.wait(ctx, s.cfg.Poll)
		if err != nil || ctx.Err() != nil {
			return err
		}
		switch rung {
		case urgently:
			s.low = distantPast // it may have committed far behind what was seen
			return nil
		case calmly:
			return nil
		}
		if due, err := s.outbox.Peek(ctx); err != nil || due {
			return err
		}
		if s.restless() {
			return s.outbox.Wake(ctx)
		}
	}
}
