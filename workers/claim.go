package workers

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/writhq/writ/internal/backoff"
	"github.com/writhq/writ/internal/rabbit"
	"github.com/writhq/writ/internal/store"
)

// claimer turns deliveries into running handlers. One goroutine owns it: while it waits for a claim's answer the next
// deliveries gather in the channel, and go into the next claim together (group commit, no linger timer).
type claimer struct {
	*Pool
	installation uuid.UUID
	deliveries   <-chan rabbit.Delivery
	waiting      []hint // taken from the broker or the bell, not claimed yet
	spent        *spent
}

// hint is one line of a frame; the frame is acked when the last of its hints is settled. One without a frame came by the
// bell, and comes again by the broker.
type hint struct {
	store.Hint
	frame *frame
}

// frame counts the hints of a delivery that are still unsettled. Several goroutines may settle its hints.
type frame struct {
	delivery rabbit.Delivery
	left     counter
}

func newClaimer(p *Pool, installation uuid.UUID, deliveries <-chan rabbit.Delivery) *claimer {
	return &claimer{Pool: p, installation: installation, deliveries: deliveries, spent: newSpent()}
}

// settle notes that a hint was claimed, found moot, or put back.
func (c *claimer) settle(h hint, result string) {
	c.metrics.settled(result, 1)
	c.release(h)
}

// release acks a hint's frame if it is the last one of it.
func (c *claimer) release(h hint) {
	if h.frame != nil && h.frame.left.down() {
		// A stale ack is harmless: the broker delivers the frame again, and its hints are moot then.
		_ = h.frame.delivery.Ack()
	}
}

// run claims until ctx ends or the deliveries do.
func (c *claimer) run(ctx context.Context) {
	full := time.NewTimer(hold)
	defer full.Stop()
	for ctx.Err() == nil {
		free := c.slots.free()
		if free == 0 || !c.pulse.alive() {
			if !c.awaitSlot(ctx, full) {
				return
			}
			continue
		}
		full.Reset(hold)
		if !c.gather(ctx, free) {
			return
		}
		if batch := c.admit(ctx, free); len(batch) > 0 {
			c.claim(ctx, batch)
		}
	}
}

// awaitSlot waits until a slot is free. Messages that waited too long meanwhile go back to the outbox, for other workers
// or for later; false: ctx ended.
func (c *claimer) awaitSlot(ctx context.Context, full *time.Timer) bool {
	poll := time.NewTimer(c.cfg.Heartbeat / 4)
	defer poll.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-c.slots.loosened:
	case <-poll.C:
	case <-full.C:
		full.Reset(hold)
		for c.receive() {
		}
		c.waiting = slices.DeleteFunc(c.waiting, func(h hint) bool { return h.frame == nil })
		c.putBack(ctx, c.waiting, "busy", func(store.Hint) (time.Duration, time.Time) { return backoff.Jitter(3 * time.Second), time.Time{} })
		c.waiting = nil
	}
	return true
}

// gather blocks until there is a hint, then takes what else is there, up to what can be run; false: ctx or the deliveries
// ended.
func (c *claimer) gather(ctx context.Context, free int) bool {
	for len(c.waiting) == 0 {
		select {
		case <-ctx.Done():
			return false
		case d, open := <-c.deliveries:
			if !open {
				return false
			}
			c.unpack(d)
		case h := <-c.near:
			c.waiting = append(c.waiting, hint{Hint: h})
		}
	}
	for len(c.waiting) < free && c.receive() {
	}
	return true
}

// receive takes one delivery, or hint from the bell, if there is one.
func (c *claimer) receive() bool {
	select {
	case h := <-c.near:
		c.waiting = append(c.waiting, hint{Hint: h})
		return true
	case d, open := <-c.deliveries:
		if open {
			c.unpack(d)
		}
		return open
	default:
		return false
	}
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
	f := &frame{delivery: d}
	f.left.set(len(hints))
	for _, h := range hints {
		h := hint{store.Hint{ID: h.ID, Epoch: h.Epoch, Kind: h.Kind, Op: h.Op}, f}
		if h.Op == opProbe {
			c.probe(h) // needs no slot, so it does not wait for one
			continue
		}
		c.waiting = append(c.waiting, h)
	}
}

// admit takes up to free hints off the waiting ones and sorts out those that are not to be claimed here.
func (c *claimer) admit(ctx context.Context, free int) []hint {
	n := min(free, len(c.waiting))
	taken := c.waiting[:n]
	c.waiting = c.waiting[n:]
	if len(c.waiting) == 0 {
		c.waiting = nil
	}
	batch := make([]hint, 0, n)
	var elsewhere []hint
	paused := *c.paused.Load()
	for _, h := range taken {
		switch {
		case h.Op != "run" && h.Op != "recover":
			c.settle(h, "moot")
		case c.mux.kinds[h.Kind] == nil || paused[h.Kind]:
			if h.frame != nil {
				elsewhere = append(elsewhere, h)
			}
		case h.frame != nil && c.spent.take(claim{h.ID, h.Epoch}):
			c.settle(h, "moot")
		case h.Op == "recover":
			c.recover(h)
		case !c.registry.enter(claim{h.ID, h.Epoch}):
			c.settle(h, "held")
		default:
			batch = append(batch, h)
		}
	}
	c.putBack(ctx, elsewhere, "elsewhere", func(store.Hint) (time.Duration, time.Time) { return backoff.Jitter(10 * time.Second), time.Time{} })
	return batch
}

// claim claims a batch and starts its handlers. While the database is away it waits and tries again; if the answer was
// lost, each claim is resolved by itself, beside the next batches.
func (c *claimer) claim(ctx context.Context, batch []hint) {
	c.slots.take(len(batch))
	groups := c.groups(batch)
	pause := backoff.New(50*time.Millisecond, 2*time.Second)
	for {
		sent := time.Now()
		claimCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.TTL)
		claimed, err := c.store.Claim(claimCtx, c.id, groups)
		cancel()
		switch {
		case err == nil:
			c.begin(ctx, batch, claimed, sent)
			return
		case store.Unknown(err) || !store.Down(err):
			c.cfg.Log.Warn("worker: claim not answered or refused, resolving it row by row", "hints", len(batch), "error", err)
			for _, h := range batch {
				c.running.Go(func() { c.resolve(ctx, h, sent, err) })
			}
			return
		}
		c.cfg.Log.Warn("worker: cannot claim yet, trying again", "hints", len(batch), "error", err)
		if !pause.Wait(ctx) {
			c.forget(batch) // nothing was sent; the broker delivers them again
			return
		}
	}
}

// groups sorts a batch into statements: one for each epoch and timeout. Most batches are one.
func (c *claimer) groups(batch []hint) []store.Group {
	type key struct {
		epoch   int32
		timeout time.Duration
	}
	index := map[key]int{}
	var groups []store.Group
	for _, h := range batch {
		k := key{h.Epoch, c.mux.kinds[h.Kind].Timeout}
		i, ok := index[k]
		if !ok {
			i = len(groups)
			index[k] = i
			groups = append(groups, store.Group{Epoch: k.epoch, Timeout: k.timeout})
		}
		groups[i].IDs = append(groups[i].IDs, h.ID)
		if !slices.Contains(groups[i].Kinds, h.Kind) {
			groups[i].Kinds = append(groups[i].Kinds, h.Kind)
		}
	}
	for _, g := range groups {
		store.Sort(g.IDs)
	}
	return groups
}

// begin starts what was claimed and finds out what the other hints are worth.
func (c *claimer) begin(ctx context.Context, batch []hint, claimed []store.Claimed, sent time.Time) {
	got := make(map[claim]bool, len(claimed)) // not by id alone: an old hint of the same intent may be among them
	for _, row := range claimed {
		got[claim{row.ID, row.Epoch - 1}] = true
		c.start(row, sent)
	}
	c.metrics.settled("claimed", len(claimed))
	var rest []hint
	for _, h := range batch {
		if at := (claim{h.ID, h.Epoch}); got[at] {
			if h.frame == nil {
				c.spent.add(at)
			}
			c.release(h)
		} else {
			rest = append(rest, h)
		}
	}
	if len(rest) == 0 {
		return
	}
	c.forget(rest)
	c.weigh(ctx, rest)
}

// weigh settles hints that were not claimed by what their rows say now.
func (c *claimer) weigh(ctx context.Context, hints []hint) {
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

// resolve finds out what became of a claim whose answer was lost, or that failed with its batch: it is sent again alone,
// waiting for locks, until the database has answered.
func (c *claimer) resolve(ctx context.Context, h hint, sent time.Time, cause error) {
	row, ok := c.resolveOne(ctx, h, cause)
	switch {
	case !ok:
		c.forsake([]hint{h})
	case row != nil:
		c.start(*row, sent)
		c.settle(h, "claimed")
	default:
		c.forget([]hint{h})
		c.weigh(c.settling, []hint{h})
	}
}

// resolveOne asks until it is decided; cause is the error of the first claim. Once the worker shuts down (ctx) it does not
// wait for what only time can decide.
func (c *claimer) resolveOne(ctx context.Context, h hint, cause error) (row *store.Claimed, ok bool) {
	lost := store.Unknown(cause) // an earlier claim may still be applied
	pause := backoff.New(50*time.Millisecond, 5*time.Second)
	for {
		asking, cancel := context.WithTimeout(c.settling, c.cfg.TTL)
		row, err := c.store.ClaimAgain(asking, c.id, h.Hint, c.mux.kinds[h.Kind].Timeout)
		cancel()
		undecided := errors.Is(err, store.ErrUndecided)
		if err == nil || undecided && !lost {
			return row, true
		}
		lost = lost || store.Unknown(err)
		c.cfg.Log.Warn("worker: a claim is not resolved yet, asking again", "id", h.ID, "kind", h.Kind, "epoch", h.Epoch, "error", err)
		waiting := c.settling
		if undecided {
			waiting = ctx
		}
		if !pause.Wait(waiting) {
			return nil, false
		}
	}
}

// forget gives up claims that are certainly not ours.
func (c *claimer) forget(hints []hint) {
	for _, h := range hints {
		c.registry.leave(claim{h.ID, h.Epoch})
	}
	c.slots.returned(len(hints))
	c.slots.said(len(hints))
}

// forsake leaves claims unresolved at the end of the process. They stay in the registry, so that the worker's row stays
// too and the reconciler looks at what they may have claimed.
func (c *claimer) forsake(hints []hint) {
	c.slots.returned(len(hints))
	c.slots.said(len(hints))
}
