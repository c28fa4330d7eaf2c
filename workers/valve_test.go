package workers

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
)

// gated is a worker, not connected to anything, with the valve of one kind that has so many slots of its own.
func gated(t *testing.T, slots int) (*Pool, *valve) {
	t.Helper()
	mux := NewMux()
	Handle(mux, intent.Kind[struct{}]{Name: "test.job.gated"}, Handler[struct{}]{
		Slots: slots, Do: func(context.Context, *Job[struct{}]) error { return nil },
	})
	p := &Pool{
		mux: mux, cfg: Config{Slots: 100, Log: slog.New(slog.DiscardHandler)}, metrics: newMetrics(nil, mux.names()), stirred: make(chan struct{}, 1),
		slots: newSlots(100), registry: newRegistry(),
	}
	p.openValves()
	v := p.valves["test.job.gated"]
	v.queue = &intake{valves: []*valve{v}}
	v.share.set(nil)
	<-p.stirred // it knows now that there is no limit
	return p, v
}

func (p *Pool) wasStirred() bool {
	select {
	case <-p.stirred:
		return true
	default:
		return false
	}
}

// TestValve_refused: a kind whose slots are free, and whose limit is reached, does not wake the claimer by asking: that would ask
// again, and so on for as long as there is no token.
func TestValve_refused(t *testing.T) {
	t.Parallel()
	p, v := gated(t, 2)
	v.share.set([]store.Limit{{Starts: 1, Period: time.Hour, Burst: 1}})
	<-p.stirred // there is a limit now
	for range 3 {
		if n, _ := v.take(5); n != 0 {
			t.Fatalf("%d went through without a token", n)
		}
		if p.wasStirred() {
			t.Fatal("what was refused stirs the claimer, which asks again at once")
		}
	}
}

// TestShare_cleared: a kind that is never idle is as free as before when its limit is gone, and one that is set while some
// run counts those.
func TestShare_cleared(t *testing.T) {
	t.Parallel()
	_, v := gated(t, 0)
	limits := []store.Limit{{Running: 3}}
	if n, _ := v.take(2); n != 2 {
		t.Fatalf("%d of 2 went through, where there is no limit", n)
	}
	v.share.set(limits)
	q := v.share.quotas[store.WholeKind]
	if q.used != 2 || !v.share.limited.Load() {
		t.Fatalf("%d are counted; want the 2 that run", q.used)
	}
	q.held, q.dirty = 3, false
	if n, _ := v.take(2); n != 1 || q.used != 3 {
		t.Fatalf("%d went through, %d are used; want the last place of three", n, q.used)
	}
	v.ended(1)
	if q.used != 2 {
		t.Fatalf("%d are used after one has ended; want 2", q.used)
	}
	v.share.set(nil)
	q.held, q.dirty = 0, false // the database was told
	v.share.next()
	v.share.set(nil)
	if v.share.limited.Load() {
		t.Error("a limit that is gone holds for as long as something of its kind runs")
	}
	v.ended(2)
	v.share.set(limits)
	if used := v.share.quotas[store.WholeKind].used; used != 0 {
		t.Errorf("%d are counted; want none", used)
	}
}

// TestQuota_idleLooks: while all places are taken nobody looks at tokens: they could not be spent.
func TestQuota_idleLooks(t *testing.T) {
	t.Parallel()
	now := time.Now()
	q := &quota{limit: store.Limit{Starts: 10, Period: time.Second, Running: 1}, used: 1, held: 1}
	q.waits(5, now)
	q.query, q.ask = now.Add(time.Second), now.Add(-time.Second)
	if at, ok := q.next(now, 0); !ok || at.Before(q.query) {
		t.Errorf("looks again in %v, %v; want when it asks for a place", at.Sub(now), ok)
	}
	q.blocks = []block{{n: 3, first: now.Add(-ms), got: now.Add(-ms), step: 100 * ms, life: 50 * ms}}
	if at, ok := q.next(now, 0); !ok || at.Before(q.query) {
		t.Errorf("with tokens looks again in %v, %v; want when it asks for a place", at.Sub(now), ok)
	}
	q.held = 2
	if at, ok := q.next(now, 0); !ok || !at.After(now) {
		t.Errorf("with a token that is due looks again in %v, %v; want when there is another", at.Sub(now), ok)
	}
}

// TestLot_redelivered: a message that comes again takes the place of the one that is here, which may be of a connection that is
// gone: to ack the new one would leave its hints with this process alone.
func TestLot_redelivered(t *testing.T) {
	t.Parallel()
	l := newLot()
	before, again := &frame{}, &frame{}
	one := func(f *frame) parked {
		return parked{hint{Hint: store.Hint{ID: uuid.UUID{15: 1}}, frame: f}, store.Keyed{Key: "=a"}, time.Now()}
	}
	l.add(one(before))
	if displaced, doubled := l.add(one(again)); !doubled || displaced.frame != before {
		t.Errorf("displaced %v, %v; want the one that was here", displaced.frame == before, doubled)
	}
	if line := l.lines["=a"]; len(line) != 1 || line[0].frame != again || l.n != 1 || l.frames[before] != 0 || l.frames[again] != 1 {
		t.Errorf("%d wait in %d messages; want one, of the message that came last", l.n, len(l.frames))
	}
}

// TestLot_longestStay: nothing stays unacked for as long as the broker would end the channel for.
func TestLot_longestStay(t *testing.T) {
	t.Parallel()
	now := time.Now()
	l := newLot()
	for n, came := range []time.Time{now.Add(-longestStay - time.Second), now.Add(-longestStay / 2)} {
		l.add(parked{hint{Hint: store.Hint{ID: uuid.UUID{15: byte(n)}}, frame: &frame{came: came}}, store.Keyed{Key: "=a"}, now})
	}
	if out := l.surplus(10, now.Add(-patience), now.Add(-longestStay)); len(out["=a"]) != 1 || out["=a"][0].ID != (uuid.UUID{}) {
		t.Errorf("%d leave; want the one whose message came so long ago", len(out["=a"]))
	}
}

// TestReleaseKeyed_shut: while the valve is shut for another reason the database is not asked for keys, nor for tokens that could not
// be spent.
func TestReleaseKeyed_shut(t *testing.T) {
	t.Parallel()
	p, v := gated(t, 0)
	v.share.set([]store.Limit{{Key: "args.n", Starts: 1, Period: time.Second, Burst: 1}})
	v.paused.Store(true)
	v.waiting = []hint{{frame: &frame{}}}
	c := &claimer{Pool: p, held: []*valve{v}} // without a database
	if batch := c.release(t.Context(), nil, 10); len(batch) != 0 || len(v.waiting) != 1 {
		t.Errorf("%d go on, %d wait; want one to wait", len(batch), len(v.waiting))
	}
}

// TestWithdraw: what could not be claimed waits again, in the order in which it was to begin, and as of now.
func TestWithdraw(t *testing.T) {
	t.Parallel()
	p, v := gated(t, 0)
	v.share.set([]store.Limit{{Running: 1}})
	v.began = time.Now().Add(-2 * longestStay) // the last time that something waited
	c := &claimer{Pool: p}
	var batch []hint
	for n := range byte(3) {
		batch = append(batch, hint{Hint: store.Hint{ID: uuid.UUID{15: n}, Kind: "test.job.gated"}, frame: &frame{}})
	}
	p.slots.take(3)
	if left := c.withdraw(batch); len(left) != 0 || len(c.held) != 1 || p.slots.running() != 0 {
		t.Fatalf("%d are left, %d valves hold hints, %d slots are taken; want none, 1, none", len(left), len(c.held), p.slots.running())
	}
	for n, h := range v.waiting {
		if h.ID != (uuid.UUID{15: byte(n)}) {
			t.Errorf("hint %d is at place %d", h.ID[15], n)
		}
	}
	if time.Since(v.began) > longestStay {
		t.Error("what has just come to wait counts as waiting since the last time that something did")
	}
}

// TestGather_more: hints that wait at a valve for nothing but a slot are looked at as soon as there is one.
func TestGather_more(t *testing.T) {
	t.Parallel()
	p, v := gated(t, 0)
	v.share.set([]store.Limit{{Running: 3}})
	v.share.quotas[store.WholeKind].held = 3
	c := &claimer{Pool: p, spent: newSpent(), held: []*valve{v}, tended: time.Now()}
	for n := range byte(3) {
		v.waiting = append(v.waiting, hint{Hint: store.Hint{ID: uuid.UUID{15: n}, Kind: "test.job.gated", Op: "run"}, frame: &frame{}})
	}
	if batch := c.admit(t.Context(), 1); len(batch) != 1 {
		t.Fatalf("%d go on; want as many as there are slots, 1", len(batch))
	}
	for p.wasStirred() {
	}
	ended, end := context.WithCancel(t.Context())
	end() // so that it ends if it waits
	if !c.gather(ended, 1) {
		t.Error("waits for something else, though hints wait for a slot, and there is one")
	}
	c.held, v.waiting, c.more = nil, nil, false
	if c.gather(ended, 1) {
		t.Error("does not wait, though no hint does")
	}
}
