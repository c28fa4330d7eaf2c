package workers

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/internal/store"
)

// recover runs the recovery function of an intent that a verdict ended in error: by a person, or by the reconciler, who
// do not have the kind's code. It runs in one transaction with the note that it was run; a lost hint is sent again.
func (c *claimer) recover(h hint) {
	kind := c.mux.kinds[h.Kind]
	if kind.onError == nil {
		c.settle(h, "moot")
		return
	}
	c.slots.take(1)
	c.running.Go(func() {
		defer c.settle(h, "recovered")
		defer c.slots.said(1)
		defer c.slots.returned(1)
		ctx, cancel := context.WithTimeout(c.handlers, kind.Timeout)
		defer cancel()
		_, err := c.store.Recover(ctx, c.id, h.Hint, func(ctx context.Context, tx pgx.Tx, row store.Claimed, last string) error {
			a := &attempt{Claimed: row, kind: kind, worker: c.id, started: time.Now(), logger: c.cfg.Log}
			return onErrorHook(a, errors.New(last))(ctx, tx)
		})
		if err != nil {
			c.cfg.Log.Error("worker: the recovery function failed, it is run again later", "id", h.ID, "kind", h.Kind, "error", err)
		}
	})
}

// counter counts down to zero once. Safe for concurrent use.
type counter struct{ n atomic.Int32 }

func (c *counter) set(n int) { c.n.Store(int32(n)) }

// down reports whether this was the last.
func (c *counter) down() bool { return c.n.Add(-1) == 0 }
