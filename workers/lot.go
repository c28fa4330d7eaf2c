package workers

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/writhq/writ/internal/backoff"
	"github.com/writhq/writ/internal/store"
)

// How hints wait in memory whose kind has a limit; not tunable.
const (
	// roomFor is how long, at a key's limit, those of its hints may have to wait that wait here; others are put back.
	roomFor = 2 * time.Second
	// patience is how long a hint waits here where so many messages have one that does that other keys' messages may not come.
	patience = time.Second
	// longestStay is how long a hint waits for a limit without going back to the outbox, in time before the broker's own bound
	// of 30 minutes.
	longestStay = 10 * time.Minute
	// leastStep spaces hints that are put back to wait for a place, where it is not known when one comes free.
	leastStep = 100 * time.Millisecond
)

// lot is where hints wait of a kind that has a limit per key: by key, the oldest intent first. What is more than there is room
// for goes back to the outbox, the youngest first, into a line of its key, and so does what is younger than all in that. The claimer owns it.
type lot struct {
	lines  map[string][]parked
	frames map[*frame]int // messages that are not acked because some of their hints wait here
	n      int
}

// parked is a hint with its key.
type parked struct {
	hint
	store.Keyed
	since time.Time
}

func (p parked) claim() claim { return claim{p.ID, p.Epoch} }

// before is the order within a key, and among the first of all keys.
func (p parked) before(q parked) int {
	return cmp.Or(p.RunAt.Compare(q.RunAt), slices.Compare(p.ID[:], q.ID[:]), cmp.Compare(p.Epoch, q.Epoch))
}

func newLot() *lot { return &lot{lines: map[string][]parked{}, frames: map[*frame]int{}} }

// add finds a hint its place. Where it is already there the one that came last stays, and the other is returned: its message may be
// of a connection that is gone, and then the new one is the only hint outside of this process.
func (l *lot) add(p parked) (before parked, doubled bool) {
	line := l.lines[p.Key]
	i, found := slices.BinarySearchFunc(line, p, parked.before)
	l.frames[p.frame]++
	if found {
		before, line[i] = line[i], p
		l.leave(before.frame)
		return before, true
	}
	l.lines[p.Key] = slices.Insert(line, i, p)
	l.n++
	return parked{}, false
}

func (l *lot) remove(p parked) {
	line := l.lines[p.Key]
	i, found := slices.BinarySearchFunc(line, p, parked.before)
	switch {
	case !found:
		return
	case i == 0: // as nearly always; a long line is not moved up for each that leaves it
		line[0] = parked{}
		l.lines[p.Key] = line[1:]
	default:
		l.lines[p.Key] = slices.Delete(line, i, i+1)
	}
	l.gone(p)
}

// gone notes that a hint has left its line.
func (l *lot) gone(p parked) {
	l.n--
	l.leave(p.frame)
	if len(l.lines[p.Key]) == 0 {
		delete(l.lines, p.Key)
	}
}

// leave notes that a hint of a message does not wait any more.
func (l *lot) leave(f *frame) {
	if l.frames[f]--; l.frames[f] == 0 {
		delete(l.frames, f)
	}
}

// surplus takes out what is to wait elsewhere: what is younger than all in its key's line, what of a key is more than room, what
// came with a message before old, and, where too many messages are held up, what has waited since before stale.
func (l *lot) surplus(room int, stale, old time.Time) map[string][]parked {
	out := map[string][]parked{}
	crowded := len(l.frames) > maxPrefetch/2
	leaves := func(p parked) bool { return p.frame.came.Before(old) || crowded && p.since.Before(stale) }
	for key, line := range l.lines {
		first := slices.IndexFunc(line, func(p parked) bool { return p.New || leaves(p) })
		if first < 0 || first > room {
			first = room
		}
		if first >= len(line) {
			continue
		}
		stay, young := slices.Clone(line[:first]), false
		for _, p := range line[first:] {
			young = young || p.New
			if young || len(stay) == room || leaves(p) {
				out[key] = append(out[key], p)
			} else {
				stay = append(stay, p)
			}
		}
		l.lines[key] = stay
		for _, p := range out[key] {
			l.gone(p)
		}
	}
	return out
}

// all takes all hints out, in their order.
func (l *lot) all() (out []hint) {
	if l.n == 0 {
		return nil
	}
	var every []parked
	for _, line := range l.lines {
		every = append(every, line...)
	}
	slices.SortFunc(every, parked.before)
	for _, p := range every {
		out = append(out, p.hint)
	}
	*l = *newLot()
	return out
}

// releaseKeyed is release for a valve whose kind has a limit per key: keys that may not go on do not hold up the others.
func (c *claimer) releaseKeyed(ctx context.Context, batch []hint, v *valve, most int) []hint {
	if v.state() != open || !c.file(ctx, v) { // what is shut is asked nothing for: what it got could not be used
		return batch
	}
	c.makeRoom(ctx, v)
	var ready []parked
	free := most - len(batch)
	for key, line := range v.lot.lines {
		may := v.share.openKey(key, len(line))
		ready = append(ready, line[:min(may, free)]...)
	}
	if n := min(len(ready), free); n > 0 {
		slices.SortFunc(ready, parked.before)
		got, through := v.take(n)
		for _, p := range ready[:got] {
			if !v.share.takeKey(p.claim(), p.Key) { // its time is over just now
				v.giveBack(1, through)
				continue
			}
			v.lot.remove(p)
			p.pass = through
			batch = c.enter(batch, v, p.hint)
		}
	}
	v.share.counts.waits(v.lot.n)
	return batch
}

// file reads the keys of hints that have come, and puts each in its key's line; false: the database does not answer, so they
// wait.
func (c *claimer) file(ctx context.Context, v *valve) bool {
	if len(v.waiting) == 0 {
		return true
	}
	ids := make([]uuid.UUID, len(v.waiting))
	for i, h := range v.waiting {
		ids[i] = h.ID
	}
	reading, cancel := context.WithTimeout(ctx, c.cfg.TTL)
	keys, err := c.store.LimitKeys(reading, v.kind.Name, ids, v.share.keyed())
	cancel()
	if err != nil {
		c.cfg.Log.Warn("worker: cannot read the keys of a limit yet", "kind", v.kind.Name, "hints", len(ids), "error", err)
		return false
	}
	now := time.Now()
	for _, h := range v.waiting {
		if before, doubled := v.lot.add(parked{h, keys[h.ID], now}); doubled { // a missing row has no key; the claim finds it missing
			c.settle(before.hint, "held")
		}
	}
	v.waiting = nil
	return true
}

// unfile has hints wait without regard to their keys.
func (v *valve) unfile() {
	if v.lot.n > 0 {
		v.waiting = append(v.lot.all(), v.waiting...)
	}
}

// makeRoom puts back what there is no room for.
func (c *claimer) makeRoom(ctx context.Context, v *valve) {
	each := v.share.each.Load()
	if each == nil {
		return
	}
	step := v.pace(*each)
	room, now := max(1, int(roomFor/step), 2*each.Running), time.Now()
	for key, line := range v.lot.surplus(room, now.Add(-patience), now.Add(-longestStay)) {
		c.lineUp(ctx, v, key, line, len(v.lot.lines[key]), step)
	}
}

// pace is about the time between two starts under a limit.
func (v *valve) pace(l store.Limit) time.Duration {
	if step := l.Step(); step > 0 {
		return step
	}
	return max(leastStep, v.kind.run.typically()/time.Duration(max(1, l.Running)))
}

// lineUp puts hints of a key back, each for the moment at which its turn may come; so many others of that key stay here. Those
// that have been in the line come again when half of these are through: they must not go to its end.
func (c *claimer) lineUp(ctx context.Context, v *valve, key string, line []parked, stay int, step time.Duration) {
	var again, first []hint
	var youngest store.Place
	for _, p := range line {
		if p.Lined {
			again = append(again, p.hint)
			continue
		}
		first = append(first, p.hint)
		youngest = store.Place{RunAt: p.RunAt, ID: p.ID}
	}
	pause := max(glance, time.Duration(stay)*step/2)
	c.putBackInOrder(ctx, again, time.Time{}, pause, step)
	c.putInLine(ctx, v, key, first, youngest, stay, step)
}

// putInLine puts hints back at the end of a key's line.
func (c *claimer) putInLine(ctx context.Context, v *valve, key string, hints []hint, youngest store.Place, stay int, step time.Duration) {
	if len(hints) == 0 {
		return
	}
	asking, cancel := context.WithTimeout(ctx, c.cfg.TTL)
	at, err := c.store.LineUp(asking, v.kind.Name, key, len(hints), stay, step, youngest)
	cancel()
	if err != nil {
		c.cfg.Log.Warn("worker: cannot line hints up, putting them back", "kind", v.kind.Name, "hints", len(hints), "error", err)
		c.putBackInOrder(ctx, hints, time.Time{}, backoff.Jitter(3*time.Second), 0)
		return
	}
	c.putBackInOrder(ctx, hints, at, 0, step)
}

// putBackInOrder puts hints back a step apart, from that moment on, by the database's clock, or from now on after a pause.
func (c *claimer) putBackInOrder(ctx context.Context, hints []hint, from time.Time, pause, step time.Duration) {
	n := make(map[claim]time.Duration, len(hints))
	for i, h := range hints {
		n[claim{h.ID, h.Epoch}] = time.Duration(i) * step
	}
	c.putBack(ctx, hints, "limited", func(h store.Hint) (time.Duration, time.Time) {
		after := n[claim{h.ID, h.Epoch}]
		if from.IsZero() {
			return pause + after, time.Time{}
		}
		return 0, from.Add(after)
	})
}

// relieveLimited is relieve for a kind with a limit. Its hints wait here in their order, and others of it in the broker; they
// go back only where they would fill the prefetch of a queue that other kinds share, or when they have waited for very long.
func (c *claimer) relieveLimited(ctx context.Context, v *valve, now time.Time) {
	if v.share.keyed() != "" {
		return // see makeRoom
	}
	v.unfile() // the limit per key is gone
	keep := len(v.waiting)
	if len(v.queue.valves) > 1 {
		keep = min(keep, max(1, c.prefetch(v.queue)/(2*len(v.queue.valves))))
	}
	if now.Sub(v.began) > longestStay {
		keep, v.began = 0, now
	}
	v.share.counts.waits(keep)
	if keep == len(v.waiting) {
		return
	}
	back := v.waiting[keep:]
	v.waiting = slices.Clone(v.waiting[:keep])
	c.putInLine(ctx, v, store.WholeKind, back, store.Place{RunAt: now}, keep, v.pace(v.share.wholeLimit()))
}

// withdraw takes hints of limited kinds out of a batch of which nothing was claimed yet: by the time the database answers, their
// tokens will be too old.
func (c *claimer) withdraw(batch []hint) []hint {
	back := map[*valve][]hint{}
	batch = slices.DeleteFunc(batch, func(h hint) bool {
		v := c.valves[h.Kind]
		if !v.share.limited.Load() {
			return false
		}
		h = c.whole(h)
		c.forget([]hint{h})
		back[v] = append(back[v], h)
		return true
	})
	for v, first := range back {
		waited := v.waiting
		v.waiting = nil
		for _, h := range first {
			c.detain(v, h)
		}
		v.waiting = append(v.waiting, waited...)
	}
	return batch
}
