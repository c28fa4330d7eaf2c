package workers

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/writhq/writ/internal/backoff"
	"github.com/writhq/writ/internal/rabbit"
	"github.com/writhq/writ/internal/store"
)

// hint is one line of a frame; the frame is acked when the last of its hints is settled. One without a frame came by the
// bell, and comes again by the broker.
type hint struct {
	store.Hint
	frame *frame
	pass  pass // with which its kind's breaker let it through
}

// known reports whether this release knows the operation: a newer one may have more.
func (h hint) known() bool { return h.Op == "run" || h.Op == "recover" || h.Op == opProbe }

// frame counts the hints of a delivery that are still unsettled. Several goroutines may settle its hints.
type frame struct {
	delivery rabbit.Delivery
	left     counter
	came     time.Time
}

// unpack reads a frame. One that cannot be read, or is from another installation, is acked and counted: the rows bring
// new hints if there are any.
func (c *claimer) unpack(d rabbit.Delivery) {
	hints, err := rabbit.DecodeFrame(d.Body)
	foreign := d.Installation != c.installation
	if err != nil || foreign {
		result := "malformed"
		if foreign {
			result = "foreign"
		}
		c.cfg.Log.Warn("worker: dropped a message", "why", result, "queue", d.Queue, "installation", d.Installation, "error", err)
		c.metrics.settled(result, 1)
		_ = d.Ack()
		return
	}
	f := &frame{delivery: d, came: time.Now()}
	f.left.set(len(hints))
	for _, h := range hints {
		h := hint{Hint: store.Hint{ID: h.ID, Epoch: h.Epoch, Kind: h.Kind, Op: h.Op}, frame: f}
		if v := c.valves[h.Kind]; h.Op == opProbe && (v == nil || v.state() != lasting) {
			c.probe(h) // needs no slot, so it does not wait for one
			continue
		}
		c.waiting = append(c.waiting, h)
	}
}

// settle notes that a hint was claimed, found moot, or put back.
func (c *claimer) settle(h hint, result string) {
	c.metrics.settled(result, 1)
	c.ack(h)
}

// ack acks a hint's frame if it is the last one of it.
func (c *claimer) ack(h hint) {
	if h.frame != nil && h.frame.left.down() {
		// A stale ack is harmless: the broker delivers the frame again, and its hints are moot then.
		_ = h.frame.delivery.Ack()
	}
}

// whole is a hint with the frame that came for it while it was being claimed, if it came directly.
func (c *claimer) whole(h hint) hint {
	if h.frame == nil {
		h.frame = c.registry.copied(claim{h.ID, h.Epoch})
	}
	return h
}

// weigh settles hints that were not claimed by what their rows say now. Those that came directly come again.
func (c *claimer) weigh(ctx context.Context, hints []hint) {
	hints = slices.DeleteFunc(hints, func(h hint) bool { return h.frame == nil })
	if len(hints) == 0 {
		return
	}
	ids := make([]uuid.UUID, len(hints))
	for i, h := range hints {
		ids[i] = h.ID
	}
	reading, cancel := context.WithTimeout(ctx, c.cfg.TTL)
	standings, err := c.store.Standings(reading, ids)
	cancel()
	if err != nil {
		// Nothing is known of them, so they come again.
		c.cfg.Log.Warn("worker: cannot look after hints, putting them back", "hints", len(hints), "error", err)
		c.putBack(ctx, hints, "put back", func(store.Hint) (time.Duration, time.Time) { return backoff.Jitter(time.Second), time.Time{} })
		return
	}
	var back []hint
	for _, h := range hints {
		s, found := standings[h.ID]
		switch {
		case !found:
			// Pruned, or lost with the database's past: an operator must know of the latter.
			c.cfg.Log.Error("worker: a hint names an intent that does not exist", "id", h.ID, "kind", h.Kind, "epoch", h.Epoch)
			c.settle(h, "missing")
		case s.Kind != h.Kind:
			c.cfg.Log.Error("worker: a hint names another kind than its intent has", "id", h.ID, "hint", h.Kind, "kind", s.Kind)
			c.settle(h, "moot") // the reconciler writes a right one
		case s.State == "pending" && s.Epoch == h.Epoch && s.WaitingOn == 0:
			back = append(back, h) // not due yet, or somebody had its row locked
		default:
			c.settle(h, "moot")
		}
	}
	c.putBack(ctx, back, "put back", func(h store.Hint) (time.Duration, time.Time) {
		s := standings[h.ID]
		if s.Due {
			return 50*time.Millisecond + rand.N(200*time.Millisecond), time.Time{}
		}
		return 0, s.RunAt
	})
}

// putBack writes hints back to the outbox, each with a delay and a time before which it is of no use, and settles them.
// Where the database is away they are left unacked: the broker delivers them again when the channel ends, and the
// reconciler does not need them.
func (c *claimer) putBack(ctx context.Context, hints []hint, result string, when func(store.Hint) (time.Duration, time.Time)) {
	if len(hints) == 0 {
		return
	}
	backs := make([]store.Back, len(hints))
	for i, h := range hints {
		delay, runAt := when(h.Hint)
		backs[i] = store.Back{Hint: h.Hint, Delay: delay, RunAt: runAt}
	}
	c.writeBack(ctx, hints, backs, result)
}

// writeBack is putBack with what is to be written.
func (c *claimer) writeBack(ctx context.Context, hints []hint, backs []store.Back, result string) {
	pause := backoff.New(50*time.Millisecond, 2*time.Second)
	for {
		writing, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.TTL)
		err := c.store.PutBack(writing, backs)
		cancel()
		if err == nil {
			break
		}
		if !store.Down(err) {
			c.cfg.Log.Error("worker: hints that cannot be put back are dropped; the reconciler writes new ones", "hints", len(hints), "error", err)
			result = "dropped"
			break
		}
		c.cfg.Log.Warn("worker: cannot put hints back yet, trying again", "hints", len(hints), "error", err)
		if !pause.Wait(ctx) {
			return
		}
	}
	for _, h := range hints {
		c.settle(h, result)
	}
}
