package workers

import (
	"slices"
	"time"

	"github.com/writhq/writ/internal/store"
)

// How a process deals with limits that hold for all of them; not tunable.
const (
	// contention is how long a process goes on using its places by itself while others wait for some.
	contention = 500 * time.Millisecond
	// firstAsk and lastAsk bound how often a process that waits for a place asks for it: in between it is a quarter of the time
	// that the kind's handlers typically take.
	firstAsk = 25 * time.Millisecond
	lastAsk  = time.Second
	// retell is how long it keeps what it holds and does not use, though it uses others.
	retell = 400 * time.Millisecond
	// graces is how many tokens that were not spent in time may be spent all the same, of each one that is leased, though no more
	// than one at once: without that a process whose claims take their time, now and then, could not use its limit. It must
	// not be older than graceful of its lives.
	graces   = 0.15
	graceful = 4
	// soonest spaces the looks at tokens that follow each other more closely.
	soonest = 2 * time.Millisecond
	// demand is how long hints that asked for tokens or places are believed to be there still.
	demand = time.Second
	// linger is how long places that were used lately are kept, though nothing waits for them here.
	linger = 100 * time.Millisecond
	// worthwhile is the time between two tokens from which on those that are not spent are given back.
	worthwhile = 100 * time.Millisecond
	// pruning is how often keys that are not used are forgotten.
	pruning = time.Minute
	// recheck is the longest time between two askings for a token that is far off.
	recheck = 5 * time.Second
)

// quota is what a process has in hand of one limit: of a kind as a whole, or of one of its keys. Its share's lock guards it.
type quota struct {
	key    string
	limit  store.Limit
	wants  int // hints wait, besides those that went through
	wanted time.Time

	blocks []block
	life   time.Time  // until when the token that was taken last may be spent
	tail   *time.Time // of its block
	ask    time.Time  // not before, for tokens
	grace  float64    // tokens that may be spent late

	used   int // places that are used: claims under way, and handlers
	held   int // places that the database knows to be this process's, used ones among them
	others bool
	synced time.Time
	taken  time.Time
	dirty  bool  // the database may hold more for this process than it knows of
	lapse  int64 // of the pulse, as of when the database answered
	query  time.Time
	pause  time.Duration
}

// block is a lease of tokens, each of which has its moment.
type block struct {
	n     int
	first time.Time // the moment of the next token, by the local clock
	got   time.Time
	step  time.Duration
	life  time.Duration
	tail  *time.Time
}

// due is how many tokens may be spent now.
func (b *block) due(now time.Time) int {
	switch wait := now.Sub(b.first); {
	case wait < 0:
		return 0
	case b.step <= 0:
		return b.n
	default:
		return min(b.n, int(wait/b.step)+1)
	}
}

func (b *block) spend(n int) {
	b.n -= n
	b.first = b.first.Add(time.Duration(n) * b.step)
}

// expire drops tokens whose time is over, and returns how many.
func (b *block) expire(now time.Time) int {
	over := now.Add(-b.life)
	if !over.After(b.got) || !over.After(b.first) {
		return 0
	}
	gone := b.n
	if b.step > 0 {
		gone = min(gone, int(over.Sub(b.first)/b.step)+1)
	}
	b.spend(gone)
	return gone
}

// due is how many tokens may be spent now; lost are those that were not spent in time.
func (q *quota) due(now time.Time) (n, lost int) {
	left := q.blocks[:0]
	var late *block
	for _, b := range q.blocks {
		if gone := b.expire(now); gone > 0 {
			lost += gone
			if q.grace >= 1 && now.Sub(b.first) < graceful*b.life {
				q.grace--
				lost--
				late = &block{n: 1, first: now, got: now, life: b.life}
			}
		}
		if b.n > 0 {
			n += b.due(now)
			left = append(left, b)
		}
	}
	q.blocks = left
	if late != nil {
		q.blocks = slices.Insert(q.blocks, 0, *late)
		n++
	}
	return n, lost
}

// stock is how many tokens are in hand, due or not.
func (q *quota) stock() (n int) {
	for _, b := range q.blocks {
		n += b.n
	}
	return n
}

// spend takes tokens that are due.
func (q *quota) spend(n int, now time.Time) {
	for i := range q.blocks {
		b := &q.blocks[i]
		k := min(n, b.due(now))
		if k == 0 {
			continue
		}
		last := b.first.Add(time.Duration(k-1) * b.step)
		if last.Before(b.got) {
			last = b.got
		}
		q.life, q.tail = last.Add(b.life), b.tail
		b.spend(k)
		n -= k
	}
}

// unspend puts tokens back that were taken lately; those whose time is over are lost.
func (q *quota) unspend(n int, now time.Time) {
	if left := q.life.Sub(now); n > 0 && left > 0 {
		q.blocks = append([]block{{n: n, first: now, got: now, life: left, tail: q.tail}}, q.blocks...)
	}
}

// spare is how many places are free here; lapse is the pulse's present one. Where others wait the places are not used again
// without asking.
func (q *quota) spare(now time.Time, lapse int64) int {
	if q.lapse != lapse { // it was taken for dead: what it held may be another's
		q.held, q.lapse, q.dirty = q.used, lapse, true
	}
	if q.others && now.Sub(q.synced) > contention {
		return 0
	}
	return max(0, q.held-q.used)
}

// open is how many hints may go through now.
func (q *quota) open(now time.Time, lapse int64) (n, lost int) {
	n = 1 << 30
	if q.limit.Starts > 0 {
		n, lost = q.due(now)
	}
	if q.limit.Running > 0 {
		n = min(n, q.spare(now, lapse))
	}
	return n, lost
}

// take lets n hints through, as many as are open.
func (q *quota) take(n int, now time.Time) {
	if q.limit.Starts > 0 {
		q.spend(n, now)
	}
	q.used += n
	q.taken = now
}

// waits notes how many hints could not go through.
func (q *quota) waits(n int, now time.Time) {
	q.wants, q.wanted = n, now
}

// demands is how many hints wait, as far as is known.
func (q *quota) demands(now time.Time) int {
	if now.Sub(q.wanted) > demand {
		return 0
	}
	return q.wants
}

// tokens is how many to ask for now.
func (q *quota) tokens(now time.Time, lapse int64) int {
	if q.limit.Starts == 0 || q.ask.After(now) {
		return 0
	}
	want := q.demands(now)
	if q.limit.Running > 0 {
		want = min(want, q.spare(now, lapse))
	}
	return want - q.stock()
}

// got takes an answer to an asking for tokens that was sent and received then. The moments are somewhere in between by the
// local clock: none may be spent before it certainly has come, and a long way of the answer counts against its life.
func (q *quota) got(t store.Tokens, sent, received time.Time) {
	if t.Granted == 0 {
		q.ask = received.Add(min(max(t.Wait, soonest), recheck))
		return
	}
	q.grace = min(1, q.grace+graces*float64(t.Granted))
	first := received.Add(t.StartsIn)
	q.blocks = append(q.blocks, block{n: t.Granted, first: first, got: received, step: t.Step, life: max(t.Life/2, t.Life-received.Sub(sent)/2), tail: t.Tail})
	// The next block when this one is nearly spent: others are to have theirs in between.
	q.ask = first.Add(time.Duration(t.Granted-1)*t.Step - t.Life)
}

// asks reports whether the database is to be told of the places: hints wait for some, others wait for those that are spare
// here, or what it knows may be wrong.
func (q *quota) asks(now time.Time, lapse int64) bool {
	if q.limit.Running == 0 && q.held == 0 && !q.dirty || q.query.After(now) {
		return false
	}
	spare := q.spare(now, lapse)
	return q.dirty || q.demands(now) > spare || q.surplus(now) && !q.kept().After(now)
}

// surplus reports whether more is held than is of use here.
func (q *quota) surplus(now time.Time) bool { return q.held > q.used+q.demands(now) }

// kept is until when a surplus is kept.
func (q *quota) kept() time.Time {
	at, last := q.taken.Add(linger), q.synced.Add(retell)
	if last.Before(at) {
		return last
	}
	return at
}

// placed takes an answer to such an asking.
func (q *quota) placed(p store.Places, wanted int, run time.Duration, received time.Time) {
	q.held, q.others, q.synced, q.dirty = p.Held, p.Others > 0, received, false
	if wanted > 0 && q.held <= q.used {
		q.pause = min(max(2*q.pause, firstAsk), max(2*firstAsk, run/4), lastAsk)
		q.query = received.Add(q.pause)
		return
	}
	q.pause = 0
	q.query = received
	if wanted > q.held-q.used {
		q.query = received.Add(firstAsk) // some of them
	}
}

// next is when to look at it again; false: nothing is waited for.
func (q *quota) next(now time.Time, lapse int64) (at time.Time, ok bool) {
	see := func(t time.Time) {
		if !ok || t.Before(at) {
			at, ok = t, true
		}
	}
	if q.dirty {
		see(q.query)
	}
	if q.surplus(now) {
		see(q.kept())
	}
	if q.demands(now) == 0 {
		return at, ok
	}
	if q.limit.Running > 0 && q.demands(now) > q.spare(now, lapse) {
		see(q.query)
	}
	wants := q.demands(now)
	if q.limit.Running > 0 {
		wants = min(wants, q.spare(now, lapse)) // no token is of use without a place
	}
	if q.limit.Starts > 0 && wants > 0 {
		for _, b := range q.blocks {
			if b.first.After(now) { // what is due the claimer knows of
				see(b.first)
			}
		}
		if wants > q.stock() {
			see(q.ask)
		}
	}
	return at, ok
}

// idle reports whether there is nothing to remember.
func (q *quota) idle(now time.Time) bool {
	return q.used == 0 && q.held == 0 && !q.dirty && q.demands(now) == 0 && q.stock() == 0
}
