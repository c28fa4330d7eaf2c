package workers

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/writhq/writ/internal/store"
)

const ms = time.Millisecond

// TestBlock: each token may be spent from its moment on, and for its life; those of the past from when they came.
func TestBlock(t *testing.T) {
	t.Parallel()
	began := time.Now()
	for name, c := range map[string]struct {
		startsIn  time.Duration
		at        time.Duration
		due, lost int
	}{
		"before the first":         {100 * ms, 99 * ms, 0, 0},
		"the first":                {100 * ms, 100 * ms, 1, 0},
		"two and a half":           {100 * ms, 125 * ms, 3, 0},
		"the first is over":        {100 * ms, 155 * ms, 5, 1},
		"all have been":            {100 * ms, 230 * ms, 1, 9},
		"all are over":             {100 * ms, 300 * ms, 0, 10},
		"a burst, at once":         {-200 * ms, 0, 10, 0},
		"a burst lives, too":       {-200 * ms, 50 * ms, 10, 0},
		"a burst that is over":     {-200 * ms, 51 * ms, 0, 10},
		"partly a burst":           {-30 * ms, 20 * ms, 6, 0},
		"partly a burst, and over": {-30 * ms, 61 * ms, 5, 5},
	} {
		q := &quota{limit: store.Limit{Starts: 100, Period: time.Second}}
		q.got(store.Tokens{Granted: 10, StartsIn: c.startsIn, Step: 10 * ms, Life: 50 * ms}, began, began)
		q.grace = 0
		if due, lost := q.due(began.Add(c.at)); due != c.due || lost != c.lost {
			t.Errorf("%s: %d due, %d lost; want %d and %d", name, due, lost, c.due, c.lost)
		}
	}
}

// TestQuota_tokens: what is given back may be spent again for as long as it lives, and is not asked for again.
func TestQuota_tokens(t *testing.T) {
	t.Parallel()
	began := time.Now()
	q := &quota{limit: store.Limit{Starts: 100, Period: time.Second}}
	q.waits(7, began)
	if n := q.tokens(began, 0); n != 7 {
		t.Fatalf("asks for %d; want 7", n)
	}
	q.got(store.Tokens{Granted: 5, Step: 10 * ms, Life: 50 * ms}, began, began)
	now := began.Add(20 * ms)
	if n, _ := q.open(now, 0); n != 3 {
		t.Fatalf("%d open; want 3", n)
	}
	q.take(3, now)
	q.unspend(2, now)
	if n, _ := q.open(now, 0); n != 2 {
		t.Errorf("%d open after 2 were given back; want these", n)
	}
	if n, lost := q.open(began.Add(75*ms), 0); n != 2 || lost != 2 {
		t.Errorf("%d open, %d lost; want the last two of the block only", n, lost)
	}
	if at, ok := q.next(now, 0); !ok || at.After(began.Add(30*ms)) {
		t.Errorf("looks again in %v, %v; want at the next token", at.Sub(began), ok)
	}
	if n := q.tokens(began.Add(2*demand), 0); n > 0 {
		t.Errorf("asks for %d for hints that have not asked for long", n)
	}
	q.got(store.Tokens{Wait: time.Hour}, began, began)
	if n := q.tokens(began.Add(recheck-ms), 0); n > 0 {
		t.Errorf("asks for %d before it is worth it", n)
	}
}

// TestQuota_grace: of those that were not spent in time one may be, if it is not much too late, and then others have to be spent
// first.
func TestQuota_grace(t *testing.T) {
	t.Parallel()
	began := time.Now()
	lease := func() *quota {
		q := &quota{limit: store.Limit{Starts: 100, Period: time.Second}}
		q.got(store.Tokens{Granted: 10, Step: 10 * ms, Life: 50 * ms}, began, began)
		return q
	}
	q := lease()
	if n, lost := q.open(began.Add(120*ms), 0); n != 3 || lost != 7 {
		t.Errorf("%d open, %d lost; want two and a late one", n, lost)
	}
	if n, lost := q.open(began.Add(145*ms), 0); n != 1 || lost != 2 {
		t.Errorf("%d open, %d lost; want the late one only", n, lost)
	}
	if n, lost := q.open(began.Add(171*ms), 0); n != 0 || lost != 1 {
		t.Errorf("%d open, %d lost; want none", n, lost)
	}
	if n, _ := lease().open(began.Add(320*ms), 0); n != 0 {
		t.Errorf("%d open; want none, for all are much too late", n)
	}
}

// TestQuota_places: what is spare is used again, until others wait, or the process may have been taken for dead.
func TestQuota_places(t *testing.T) {
	t.Parallel()
	now := time.Now()
	q := &quota{limit: store.Limit{Running: 4}}
	open := func(want int, what string, at time.Time, lapse int64) {
		t.Helper()
		if n, _ := q.open(at, lapse); n != want {
			t.Errorf("%s: %d open; want %d", what, n, want)
		}
	}
	open(0, "nothing is held", now, 0)
	q.waits(9, now)
	if !q.asks(now, 0) {
		t.Error("does not ask for places")
	}
	q.placed(store.Places{Held: 4}, 9, 0, now)
	open(4, "four are held", now, 0)
	q.take(4, now)
	open(0, "four are used", now, 0)
	q.used--
	open(1, "one has come free", now.Add(time.Hour), 0)
	q.placed(store.Places{Held: 4, Others: 2}, 0, 0, now)
	open(1, "others wait", now.Add(contention), 0)
	open(0, "others have waited", now.Add(contention+ms), 0)
	if !q.asks(now.Add(contention+ms), 0) {
		q.waits(1, now.Add(contention+ms))
		if !q.asks(now.Add(contention+ms), 0) {
			t.Error("does not tell that it has one that others wait for")
		}
	}
	q.placed(store.Places{Held: 4}, 0, 0, now)
	open(1, "nobody waits any more", now.Add(contention+ms), 0)
	open(0, "it may have been taken for dead", now, 1)
	if q.held != q.used || !q.dirty {
		t.Errorf("held %d, used %d, dirty %v; want what is used, and told anew", q.held, q.used, q.dirty)
	}
	q.used, q.wants = 0, 0
	q.placed(store.Places{Held: 3}, 0, 0, now)
	if q.asks(now.Add(linger/2), 1) {
		t.Error("gives up at once what it used just now")
	}
	if !q.asks(now.Add(linger+ms), 1) {
		t.Error("keeps what is of no use to it")
	}
}

// TestPulse: it lapses when it was not confirmed for a TTL, and watches from the last gap on.
func TestPulse(t *testing.T) {
	t.Parallel()
	now := time.Now()
	p := &pulse{ttl: time.Minute}
	if p.watched() != 0 {
		t.Error("watches before its first beat")
	}
	p.confirm(now.Add(-50 * time.Second))
	p.confirm(now.Add(-25 * time.Second))
	if w := p.watched(); w < 50*time.Second {
		t.Errorf("watched for %v; want 50s", w)
	}
	p.confirmed.Store(&[]time.Time{now.Add(-2 * time.Minute)}[0])
	if p.watched() != 0 || p.lapses.Load() != 0 {
		t.Error("watches without a beat")
	}
	p.confirm(now)
	if p.lapses.Load() != 1 || !p.lapsedSince(now.Add(-time.Second)) || p.watched() > time.Second {
		t.Errorf("lapses %d, watched %v; want one, and anew", p.lapses.Load(), p.watched())
	}
}

// TestLot: the oldest first; what has to wait elsewhere is the youngest, and, of what fills the messages in hand, what has been here for
// long.
func TestLot(t *testing.T) {
	t.Parallel()
	now := time.Now()
	l := newLot()
	one := func(key string, n int, f *frame, since time.Time, young bool) parked {
		return parked{hint{Hint: store.Hint{ID: uuid.UUID{15: byte(n)}}, frame: f}, store.Keyed{Key: key, RunAt: now.Add(time.Duration(n) * time.Second), New: young}, since}
	}
	f := &frame{}
	for _, n := range []int{3, 1, 2, 5, 4} {
		if _, doubled := l.add(one("=a", n, f, now, n == 5)); doubled {
			t.Errorf("%d was there already", n)
		}
	}
	if _, doubled := l.add(one("=a", 2, f, now, false)); !doubled {
		t.Error("a doubled hint was taken for another")
	}
	ids := func(line []parked) (out []int) {
		for _, p := range line {
			out = append(out, int(p.ID[15]))
		}
		return out
	}
	if got := ids(l.lines["=a"]); !slices.Equal(got, []int{1, 2, 3, 4, 5}) {
		t.Errorf("the line is %v", got)
	}
	if out := l.surplus(100, now, time.Time{}); !slices.Equal(ids(out["=a"]), []int{5}) {
		t.Errorf("%v leave; want the one that is younger than the line", out)
	}
	if out := l.surplus(3, now, time.Time{}); !slices.Equal(ids(out["=a"]), []int{4}) {
		t.Errorf("%v leave; want the youngest", out)
	}
	l.remove(one("=a", 1, f, now, false))
	for n := range maxPrefetch {
		l.add(one("=b", n, &frame{}, now.Add(-time.Duration(n%2)*time.Minute), false))
	}
	out := l.surplus(1000, now.Add(-time.Second), time.Time{})
	if len(out["=b"]) != maxPrefetch/2 || len(out["=a"]) != 0 || l.n != 2+maxPrefetch/2 || len(l.frames) != 1+maxPrefetch/2 {
		t.Errorf("%d and %d leave, %d stay of %d messages; want those that came a minute ago", len(out["=b"]), len(out["=a"]), l.n, len(l.frames))
	}
	if all := l.all(); len(all) != 2+maxPrefetch/2 || l.n != 0 || len(l.frames) != 0 {
		t.Errorf("%d in all, %d left", len(all), l.n)
	}
}
