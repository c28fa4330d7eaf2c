package workers

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/backoff"
	"github.com/writhq/writ/internal/store"
)

// write settles what the places hand over, batched while the previous batch is in flight, until they end.
func (l *line) write() {
	defer l.giveBack()
	for {
		var v verdict
		var open bool
		select {
		case v, open = <-l.verdicts:
		case <-l.s.settling.Done(): // a place may never end
		}
		if !open {
			return
		}
		batch := []verdict{v}
		for more := true; more && len(batch) < inboxBatch; {
			select {
			case v, open := <-l.verdicts:
				if more = open; open {
					batch = append(batch, v)
				}
			default:
				more = false
			}
		}
		l.settle(batch)
	}
}

// giveBack has others take what this process does not come to any more, at once: what it has from the inbox is due. What it
// has from the broker goes back when the connection is closed.
func (l *line) giveBack() {
	l.mu.Lock()
	left := l.again
	l.again = nil
	l.mu.Unlock()
	var due []store.Arrival
	for _, a := range left {
		source, id := a.letter.identity()
		due = append(due, store.Arrival{Subscription: l.full(l.s.application), Source: source, EventID: id, Failures: a.failures})
	}
	if len(due) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(l.s.settling, l.s.cfg.TTL)
	defer cancel()
	if err := l.s.store.GiveBackArrivals(ctx, due); err != nil { // then they are due later
		l.s.cfg.Log.Warn("worker: events that failed before could not be given back", "subscription", l.full(l.s.application), "events", len(due), "error", err)
	}
}

// settle writes a batch, and acks what is written: the intents of those that succeeded, together if possible, and those
// that failed each by itself. While the database is away, or closed, it tries again; what is unwritten in the end is
// delivered again.
func (l *line) settle(batch []verdict) {
	var fresh, again, failed []verdict
	for _, v := range batch {
		switch {
		case v.back:
			l.mu.Lock()
			if v.delivery == nil {
				l.again = append(l.again, v.arrival) // it ends with those that were not begun
			}
			l.mu.Unlock()
		case v.err != nil:
			failed = append(failed, v)
		case v.delivery == nil:
			again = append(again, v) // apart: what was at fault before must not hold up those that were not
		default:
			fresh = append(fresh, v)
		}
	}
	failed = append(failed, l.take(fresh)...)
	failed = append(failed, l.take(again)...)
	for _, v := range failed {
		if l.s.settling.Err() == nil && l.fail(v) == nil {
			l.ack(v)
		} else {
			l.leave(v)
		}
	}
}

// take creates the intents of a batch. Where that fails one of them may be at fault, and each by itself tells which: it
// returns those, with the reasons.
func (l *line) take(batch []verdict) (failed []verdict) {
	if len(batch) == 0 {
		return nil
	}
	if l.persist("settle", func(ctx context.Context) error { return l.create(ctx, batch) }) == nil {
		l.ack(batch...)
		return nil
	}
	for _, v := range batch {
		if v.err = l.persist("settle", func(ctx context.Context) error { return l.create(ctx, []verdict{v}) }); v.err == nil {
			l.ack(v)
		} else {
			failed = append(failed, v)
		}
	}
	return failed
}

// ack is the end of what is written.
func (l *line) ack(written ...verdict) {
	for _, v := range written {
		if v.delivery == nil {
			l.retried()
		} else {
			_ = v.delivery.Ack() // stale: it is delivered again, and found taken
		}
	}
}

// leave is the end of what could not be written: the broker delivers it again, or the inbox has it due again.
func (l *line) leave(v verdict) {
	if v.delivery == nil {
		l.retried()
	} else {
		// Not at once, or it would come and go for ever at full speed. At the end of the process it goes back by itself.
		time.AfterFunc(backoff.Jitter(giveBackAfter), func() { _ = v.delivery.GiveBack() })
	}
}

// giveBackAfter is the longest pause before an event that could not be kept goes back to the broker.
const giveBackAfter = 5 * time.Second

func (l *line) retried() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.retries--; l.retries <= (inboxAhead-1)*l.share() {
		select {
		case l.s.room <- struct{}{}:
		default:
		}
	}
}

// persist repeats a unit of work while the database is away, or closed to it. What the server itself broke off, or did not
// answer in time while it answers others, is not repeated: it may come back like that for ever, and others wait behind it.
func (l *line) persist(what string, unit func(context.Context) error) error {
	pause := backoff.New(50*time.Millisecond, 5*time.Second)
	for try := 1; ; try++ {
		ctx, cancel := context.WithTimeout(l.s.settling, l.s.cfg.TTL)
		err := unit(ctx)
		late := ctx.Err() != nil
		cancel()
		away := false
		switch {
		case err == nil:
			return nil
		case late:
			away = !l.answers()
		case errors.Is(err, store.ErrClosed):
			away = true
		case store.Locked(err), store.Cancelled(err):
		default:
			away = store.Transient(err) || lost(err) && try < lostTries
		}
		if !away {
			return err
		}
		l.s.cfg.Log.Warn("worker: events cannot be written yet, trying again", "doing", what, "subscription", l.full(l.s.application), "error", err)
		if !pause.Wait(l.s.settling) {
			return err
		}
	}
}

// answers reports whether the database answers at all.
func (l *line) answers() bool {
	ctx, cancel := context.WithTimeout(l.s.settling, l.s.cfg.TTL)
	defer cancel()
	_, err := l.s.store.Settings(ctx)
	return err == nil
}

// lostTries bounds the tries after errors that nobody can place; the event is then kept as a failed one.
const lostTries = 10

// lost reports whether err may be that of a connection that broke: neither the server's own word, nor that of the checks
// at a creation.
func lost(err error) bool {
	if _, said := store.Code(err); said {
		return false
	}
	for _, refusal := range []error{intent.ErrInvalid, intent.ErrConflict, intent.ErrIllegal, intent.ErrNotFound} {
		if errors.Is(err, refusal) {
			return false
		}
	}
	return true
}

// create creates the intents of those that are new.
func (l *line) create(ctx context.Context, batch []verdict) error {
	if len(batch) == 0 {
		return nil
	}
	arrivals := make([]store.Arrival, len(batch))
	for i, v := range batch {
		arrivals[i] = v.Arrival
	}
	fresh := 0
	err := l.s.store.Settle(ctx, arrivals, func(ctx context.Context, tx pgx.Tx, which []int) error {
		fresh = len(which)
		for _, i := range which {
			batch[i].fresh = true
			if len(batch[i].news) == 0 {
				continue
			}
			created, err := intent.CreateAll(l.cause(ctx, batch[i].event), tx, batch[i].news)
			if err != nil {
				return err
			}
			batch[i].created = nil
			for _, c := range created {
				batch[i].created = append(batch[i].created, c.ID)
			}
		}
		return nil
	})
	if err == nil {
		l.s.metrics.events.settled(l.full(l.s.application), "created", fresh)
		l.s.metrics.events.settled(l.full(l.s.application), "repeated", len(batch)-fresh)
	}
	return err
}

// fail keeps an event that failed.
func (l *line) fail(v verdict) error {
	name, result := l.full(l.s.application), "failed"
	var again *time.Duration
	if tries := int(v.failures) + 1; tries < l.attempts {
		again = new(max(delay(l.backoff, int32(tries)), time.Duration(rand.Int64N(int64(50*time.Millisecond)))))
	} else {
		result = "dead"
	}
	err := l.persist("keep", func(ctx context.Context) error { return l.s.store.Fail(ctx, v.Arrival, v.err.Error(), again) })
	if err != nil {
		l.s.cfg.Log.Error("worker: a failed event could not be kept, it is delivered again", "subscription", name, "event", v.EventID, "source", v.Source, "error", err)
		return err
	}
	l.s.metrics.events.settled(name, result, 1)
	l.s.cfg.Log.Warn("worker: an event failed", "subscription", name, "event", v.EventID, "source", v.Source, "tid", v.event.TID, "result", result, "failures", v.failures+1, "error", v.err)
	return nil
}
