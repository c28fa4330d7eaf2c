package workers

import (
	"context"
	"errors"
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
	consumer     *rabbit.Consumer
	deliveries   <-chan rabbit.Delivery
	waiting      []hint // taken from the broker or the bell, not looked at yet
	spent        *spent
	strangers    strangers

	intakes map[string]*intake // by the broker's name of the queue
	usual   int                // the consumer's prefetch
	limits  map[string]int     // what the consumer was told of queues with another one
	held    []*valve           // hints wait at these, and only these
	tended  time.Time          // when the valves were last looked after

	more   bool // hints may wait at valves for nothing but a slot
	ranked bool // there are kinds of more than one priority
	turn   int  // whose it is, of turns
}

func newClaimer(p *Pool, installation uuid.UUID, consumer *rabbit.Consumer, intakes map[string]*intake) *claimer {
	return &claimer{
		Pool: p, installation: installation, consumer: consumer, deliveries: consumer.Deliveries(), spent: newSpent(), strangers: strangers{},
		intakes: intakes, usual: min(p.cfg.Slots, maxPrefetch), ranked: p.mux.ranked(),
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
		select {
		case <-c.stirred: // not seen by a gather that finds hints
			c.tended = time.Time{}
		default:
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
	case <-c.stirred:
		c.tend(ctx)
	case <-poll.C:
	case <-full.C:
		full.Reset(hold)
		for c.receive() {
		}
		for _, v := range c.held {
			v.unfile()
			c.waiting = append(c.waiting, v.waiting...)
			v.waiting = nil
		}
		c.held = nil
		c.waiting = slices.DeleteFunc(c.waiting, func(h hint) bool { return h.frame == nil })
		c.putBack(ctx, c.waiting, "busy", func(store.Hint) (time.Duration, time.Time) { return backoff.Jitter(3 * time.Second), time.Time{} })
		c.waiting = nil
	}
	return true
}

// gather blocks until there is a hint, or hints that wait at a valve are to be looked at, then takes what else is there, up to
// what can be run; false: ctx or the deliveries ended.
func (c *claimer) gather(ctx context.Context, free int) bool {
	for woken := c.more; len(c.waiting) == 0 && !woken; {
		var look <-chan time.Time
		if len(c.held) > 0 {
			look = time.After(glance)
		}
		select {
		case <-ctx.Done():
			return false
		case <-look:
			woken = true
		case <-c.stirred:
			c.tended, woken = time.Time{}, true
		case d, open := <-c.deliveries:
			if !open {
				return false
			}
			c.unpack(d)
		case h := <-c.near:
			c.waiting = append(c.waiting, hint{Hint: h})
		}
	}
	for (c.ranked || len(c.waiting) < free) && c.receive() {
	}
	if c.ranked {
		c.waiting, c.turn = inTurn(c.waiting, free, c.turn, c.priority)
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

// admit takes up to free hints that their valves let through, and sorts out those that are not to be claimed here.
func (c *claimer) admit(ctx context.Context, free int) []hint {
	batch := make([]hint, 0, min(free, len(c.waiting)+len(c.held)))
	if len(c.held) > 0 {
		batch = c.release(ctx, batch, free)
	}
	var newer []hint
	n, limited := 0, false
	for ; n < len(c.waiting) && len(batch) < free; n++ {
		h := c.waiting[n]
		switch v := c.valves[h.Kind]; {
		case v != nil && h.known():
			batch = c.let(batch, v, h)
			limited = limited || v.share.limited.Load()
		case h.frame != nil:
			newer = append(newer, h)
		}
	}
	if left := len(c.waiting) - n; left <= n { // the room is used again, unless that means moving more than was taken
		c.waiting = slices.Delete(c.waiting, 0, n)
	} else {
		c.waiting = c.waiting[n:]
	}
	if limited { // its hints ask together
		batch = c.release(ctx, batch, free)
	}
	c.leave(ctx, newer)
	c.more = len(batch) == free && len(c.held) > 0
	if c.tended.IsZero() || len(c.held) > 0 && time.Since(c.tended) >= glance {
		c.tend(ctx)
	}
	return batch
}

// enter takes a hint that was let through into the batch, unless there is nothing to be claimed.
func (c *claimer) enter(batch []hint, v *valve, h hint) []hint {
	switch {
	case h.Op == opProbe:
		c.probe(h)
	case h.frame != nil && c.spent.take(claim{h.ID, h.Epoch}):
		c.settle(h, "moot")
	case h.Op == "recover":
		c.recover(h)
	default:
		entered, kept := c.registry.enter(claim{h.ID, h.Epoch}, h.frame)
		switch {
		case entered:
			return append(batch, h)
		case !kept:
			c.settle(h, "held")
		}
	}
	v.without(claim{h.ID, h.Epoch}, h.pass)
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
		if batch = c.withdraw(batch); len(batch) == 0 {
			return
		}
		groups = c.groups(batch)
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
	got := make(map[claim]string, len(claimed)) // not by id alone: an old hint of the same intent may be among them
	for _, row := range claimed {
		got[claim{row.ID, row.Epoch - 1}] = row.Kind
	}
	var passes map[claim]pass
	for _, h := range batch {
		if h.pass == 0 {
			continue
		}
		if passes == nil {
			passes = make(map[claim]pass, len(batch))
		}
		passes[claim{h.ID, h.Epoch}] = h.pass
	}
	for _, row := range claimed {
		c.start(row, sent, passes[claim{row.ID, row.Epoch - 1}])
	}
	c.metrics.settled("claimed", len(claimed))
	var rest []hint
	for _, h := range batch {
		at := claim{h.ID, h.Epoch}
		direct := h.frame == nil
		h = c.whole(h)
		kind, claimed := got[at]
		if claimed && kind != h.Kind { // a hint written by hand
			c.valves[h.Kind].without(at, h.pass)
		}
		switch {
		case !claimed:
			rest = append(rest, h)
		case direct && h.frame == nil:
			c.spent.add(at)
		default:
			c.ack(h)
		}
	}
	if len(rest) == 0 {
		return
	}
	c.forget(rest)
	c.weigh(ctx, rest)
}

// resolve finds out what became of a claim whose answer was lost, or that failed with its batch: it is sent again alone,
// waiting for locks, until the database has answered.
func (c *claimer) resolve(ctx context.Context, h hint, sent time.Time, cause error) {
	row, ok := c.resolveOne(ctx, h, cause)
	switch {
	case !ok:
		c.forsake([]hint{h})
	case row != nil:
		c.start(*row, sent, h.pass)
		c.settle(c.whole(h), "claimed")
	default:
		h = c.whole(h)
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
		at := claim{h.ID, h.Epoch}
		c.registry.leave(at)
		c.valves[h.Kind].without(at, h.pass)
	}
	c.slots.returned(len(hints))
	c.slots.said(len(hints))
}

// forsake leaves claims unresolved at the end of the process. They stay in the registry, so that the worker's row stays
// too and the reconciler looks at what they may have claimed.
func (c *claimer) forsake(hints []hint) {
	for _, h := range hints {
		c.valves[h.Kind].done(claim{h.ID, h.Epoch})
	}
	c.slots.returned(len(hints))
	c.slots.said(len(hints))
}
