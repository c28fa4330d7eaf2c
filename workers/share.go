package workers

import (
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/writhq/writ/internal/store"
)

// share is this process's part of the limits that a kind has over all processes: tokens and places in hand, of the kind as a
// whole and of its keys. It is the gate of the kind's valve: the claimer takes from it what is there, and never waits. A
// goroutine, which is there only for kinds with a limit, asks the database for more; where that does not answer nothing comes,
// so nothing is begun. Safe for concurrent use.
type share struct {
	kind   string
	runs   *typical
	worker uuid.UUID
	store  *store.Store
	pulse  *pulse
	ttl    time.Duration
	stir   func() // has the claimer look again
	log    *slog.Logger
	counts limitCounts

	each    atomic.Pointer[store.Limit] // that each key has; nil: none
	limited atomic.Bool                 // there is a limit, or it is not known yet whether there is one
	known   atomic.Bool                 // the limits were read; until then nothing goes through
	busy    atomic.Int64                // hints that went through and are not over

	mu     sync.Mutex
	quotas map[string]*quota // by key; those of a limit per key are there while they are of use
	keys   map[claim]string  // of what went through under a limit per key
	wake   chan struct{}
	begin  sync.Once
}

// sayings number what this process says of its places.
var sayings atomic.Int64

func newShare(p *Pool, kind string, runs *typical) *share {
	s := &share{
		kind: kind, runs: runs, worker: p.id, store: p.store, pulse: &p.pulse, ttl: p.cfg.TTL, stir: p.stir, log: p.cfg.Log, counts: p.metrics.limit(kind),
		quotas: map[string]*quota{}, keys: map[claim]string{}, wake: make(chan struct{}, 1),
	}
	s.limited.Store(true)
	return s
}

// take is how many of n hints the kind as a whole lets through now.
func (s *share) take(n int) int {
	if !s.limited.Load() {
		s.busy.Add(int64(n)) // a limit that is set at this moment counts them
		return n
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.known.Load() {
		return 0
	}
	if q := s.whole(); q != nil {
		n = s.takeOf(q, n)
	}
	s.busy.Add(int64(n))
	return n
}

// whole is the quota of the kind as a whole, or nil. Its places are all that are busy, also those that were taken when there
// was no limit. The caller holds the lock.
func (s *share) whole() *quota {
	q := s.quotas[store.WholeKind]
	if q != nil {
		q.used = int(s.busy.Load())
	}
	return q
}

// takeOf takes from one quota, and notes what it could not give. The caller holds the lock.
func (s *share) takeOf(q *quota, n int) int {
	now := time.Now()
	got, lost := q.open(now, s.pulse.lapses.Load())
	got = min(got, n)
	s.counts.lost(lost)
	if got > 0 {
		q.take(got, now)
		if q.limit.Starts > 0 {
			s.counts.spent(got)
		}
	}
	if q.waits(n-got, now); n > got {
		s.rouse()
	}
	return got
}

// openKey is how many of n hints of a key may go through now, as far as the key is concerned; it notes that the others wait.
func (s *share) openKey(key string, n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.quota(key)
	if q == nil {
		return n
	}
	now := time.Now()
	may, lost := q.open(now, s.pulse.lapses.Load())
	s.counts.lost(lost)
	if may = min(may, n); may < n {
		s.rouse()
	}
	q.waits(n, now)
	return may
}

// takeKey lets a hint of a key through that the kind as a whole has let through.
func (s *share) takeKey(at claim, key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.quota(key)
	if q == nil {
		return true
	}
	now := time.Now()
	if may, _ := q.open(now, s.pulse.lapses.Load()); may == 0 {
		return false
	}
	q.take(1, now)
	q.wants = max(0, q.wants-1)
	s.keys[at] = key
	return true
}

// quota of a key; nil: keys have no limit any more. The caller holds the lock.
func (s *share) quota(key string) *quota {
	q := s.quotas[key]
	if each := s.each.Load(); q == nil && each != nil {
		q = &quota{key: key, limit: *each, lapse: s.pulse.lapses.Load()}
		s.quotas[key] = q
	}
	return q
}

// giveBack returns the tokens and places of hints that no handler was started for.
func (s *share) giveBack(n int) { s.over(store.WholeKind, n, (*quota).unspend) }

// ended returns the places of handlers that have.
func (s *share) ended(n int) { s.over(store.WholeKind, n, nil) }

// giveBackKey does for the key of a claim what giveBack does for the kind.
func (s *share) giveBackKey(at claim) { s.overKey(at, (*quota).unspend) }

// endedKey does for the key of a claim what ended does for the kind.
func (s *share) endedKey(at claim) { s.overKey(at, nil) }

func (s *share) overKey(at claim, tokens func(*quota, int, time.Time)) {
	if !s.limited.Load() { // it is for as long as a key is used
		return
	}
	s.mu.Lock()
	key, ok := s.keys[at]
	delete(s.keys, at)
	s.mu.Unlock()
	if ok {
		s.over(key, 1, tokens)
	}
}

func (s *share) over(key string, n int, tokens func(*quota, int, time.Time)) {
	if key == store.WholeKind {
		s.leave(n)
		if !s.limited.Load() {
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.quotas[key]
	if q == nil {
		return
	}
	now := time.Now()
	if key == store.WholeKind {
		s.whole()
	} else {
		q.used = max(0, q.used-n)
	}
	if tokens != nil {
		tokens(q, n, now)
	}
	s.rouse()
	if q.demands(now) > 0 {
		s.stir()
	}
}

// leave counts hints that are over.
func (s *share) leave(n int) {
	for {
		busy := s.busy.Load() // a hint written by hand may have come through another kind's valve
		if s.busy.CompareAndSwap(busy, max(0, busy-int64(n))) {
			return
		}
	}
}

// rouse has the goroutine look; it does not block.
func (s *share) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// room is any: tokens and places are asked for by taking.
func (s *share) room() int {
	if !s.known.Load() {
		return 0
	}
	return math.MaxInt
}

// wholeLimit is that of the kind as a whole.
func (s *share) wholeLimit() store.Limit {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q := s.quotas[store.WholeKind]; q != nil {
		return q.limit
	}
	return store.Limit{}
}

// keyed returns where the keys stand that have a limit each; empty: there is none.
func (s *share) keyed() string {
	if each := s.each.Load(); each != nil {
		return each.Key
	}
	return ""
}

// most is how many messages in hand are of use: what may be begun in ten seconds, so that messages of a slow kind wait in the
// broker, in their order.
func (s *share) most() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.quotas[store.WholeKind]
	if q == nil {
		return 0
	}
	n := 0
	if step := q.limit.Step(); step > 0 {
		n = max(2, int(10*time.Second/step))
	}
	if r := max(2, 2*q.limit.Running); q.limit.Running > 0 && (n == 0 || r < n) {
		n = r
	}
	return n
}

// set takes the limits as they were read. What is in hand of one that has changed is dropped, or, of places, told anew.
func (s *share) set(limits []store.Limit) {
	s.mu.Lock()
	var whole, each *store.Limit
	for _, l := range limits {
		if l.Key == "" {
			whole = &l
		} else {
			each = &l
		}
	}
	changed := !s.known.Swap(true)
	if old := s.each.Load(); (old == nil) != (each == nil) || old != nil && *old != *each {
		changed = true
		s.each.Store(each)
	}
	if q := s.quotas[store.WholeKind]; q == nil && whole != nil {
		s.quotas[store.WholeKind] = &quota{key: store.WholeKind, lapse: s.pulse.lapses.Load()}
	}
	s.whole()
	for key, q := range s.quotas {
		now := each
		if key == store.WholeKind {
			now = whole
		}
		if now == nil {
			now = &store.Limit{}
		}
		if q.limit == *now {
			continue
		}
		changed = true
		q.blocks, q.ask, q.query, q.pause = nil, time.Time{}, time.Time{}, 0
		q.limit, q.dirty = *now, q.dirty || q.held > 0 || now.Running > 0 && q.used > 0
	}
	s.limited.Store(len(s.quotas) > 0 || each != nil) // what is left of a limit that is gone has still to be told the database
	s.mu.Unlock()
	if changed {
		s.rouse()
		s.stir()
	}
}
