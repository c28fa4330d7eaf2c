package workers

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/internal/store"
)

// recover runs the kind's share in a verdict, of a person, the probe or the reconciler, who do not have its code: OnError
// where that ended the intent in error, OnHappened where it says that it was done. It runs in one transaction with the note
// that it was run; a lost hint is sent again, and so is that of one that failed.
func (c *claimer) recover(h hint) {
	kind := c.mux.kinds[h.Kind]
	if len(kind.shares()) == 0 {
		c.settle(h, "moot")
		return
	}
	c.slots.take(1)
	c.running.Go(func() {
		result := "recovery-failed"
		defer func() { c.settle(h, result) }()
		defer c.slots.said(1)
		defer c.slots.returned(1)
		ctx, cancel := context.WithTimeout(c.handlers, kind.Timeout)
		defer cancel()
		owed, err := c.store.Recover(ctx, c.id, h.Hint, kind.shares(), func(ctx context.Context, tx pgx.Tx, o store.Owed) error {
			return shareOf(&attempt{Claimed: o.Claimed, kind: kind, worker: c.id, started: time.Now(), logger: c.cfg.Log}, o)(ctx, tx)
		})
		switch {
		case err != nil:
			c.cfg.Log.Error("worker: the recovery function failed, it is run again later", "id", h.ID, "kind", h.Kind, "error", err)
		case owed:
			result = "recovered"
		default:
			result = "moot"
		}
	})
}

// shares are the states that the kind has a function for, if a verdict ends an intent in them.
func (r *registration) shares() (states []string) {
	if r.onError != nil {
		states = append(states, store.StateError)
	}
	if r.onHappened != nil {
		states = append(states, store.StateSent)
	}
	return states
}

// shareOf is the kind's share in a verdict on what is owed: one of its shares.
func shareOf(a *attempt, o store.Owed) func(context.Context, pgx.Tx) error {
	if o.State == store.StateError {
		return onErrorHook(a, errors.New(o.Error))
	}
	return a.guarded(func(ctx context.Context, tx pgx.Tx) error { return a.kind.onHappened(ctx, tx, a) })
}

// counter counts down to zero once. Safe for concurrent use.
type counter struct{ n atomic.Int32 }

func (c *counter) set(n int) { c.n.Store(int32(n)) }

// down reports whether this was the last.
func (c *counter) down() bool { return c.n.Add(-1) == 0 }
