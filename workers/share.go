package workers

import (
	"context"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/writhq/writ/internal/backoff"
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

// run asks the database until ctx ends, and then gives back what is not spent.
func (s *share) run(ctx context.Context) {
	pause := backoff.New(50*time.Millisecond, 2*time.Second)
	pruned := time.Now()
	for timer := time.NewTimer(0); ; {
		select {
		case <-ctx.Done():
			timer.Stop()
			s.close()
			return
		case <-s.wake:
		case <-timer.C:
		}
		next, err := s.look(ctx)
		if err == nil && time.Since(pruned) > pruning {
			pruned = time.Now()
			err = s.prune(ctx)
		}
		switch {
		case ctx.Err() != nil:
		case err != nil:
			s.log.Warn("worker: cannot ask for tokens or places of a limit, so nothing is begun by it", "kind", s.kind, "error", err)
			next = pause.Next()
			backoff.Sleep(ctx, next)
			timer.Reset(0)
		case next > 0:
			pause = backoff.New(50*time.Millisecond, 2*time.Second)
			timer.Reset(max(next, soonest))
		default:
			timer.Stop()
		}
	}
}

func (s *share) prune(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.ttl)
	defer cancel()
	_, err := s.store.PruneLimits(ctx)
	return err
}

// look asks for what is wanted now, and returns when to look again; 0: when it is roused.
func (s *share) look(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, s.ttl)
	defer cancel()
	if err := s.lookAtPlaces(ctx); err != nil {
		return 0, err
	}
	if err := s.lookAtTokens(ctx); err != nil {
		return 0, err
	}
	if err := s.handBack(ctx); err != nil {
		return 0, err
	}
	return s.next(), nil
}

// next has the claimer look if there is something for it, forgets keys that are not used, and returns when to look again.
func (s *share) next() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	lapse := s.pulse.lapses.Load()
	var soon time.Time
	opened := false
	held := 0
	s.whole()
	for key, q := range s.quotas {
		gone := q.limit == store.Limit{}
		if key != store.WholeKind && q.idle(now) || key == store.WholeKind && gone && q.held == 0 && !q.dirty {
			delete(s.quotas, key)
			continue
		}
		n, lost := q.open(now, lapse)
		s.counts.lost(lost)
		opened = opened || n > 0 && q.demands(now) > 0
		held += q.held
		if at, ok := q.next(now, lapse); ok && (soon.IsZero() || at.Before(soon)) {
			soon = at
		}
	}
	s.counts.places(held)
	if opened {
		s.stir()
	}
	if soon.IsZero() {
		return 0
	}
	return max(soonest, soon.Sub(now))
}

// lookAtTokens asks for tokens of all keys that want some.
func (s *share) lookAtTokens(ctx context.Context) error {
	s.mu.Lock()
	now := time.Now()
	lapse := s.pulse.lapses.Load()
	s.whole()
	var keys []string
	for key, q := range s.quotas {
		if q.tokens(now, lapse) > 0 {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	wants := make([]int, len(keys))
	step := time.Duration(0)
	for i, key := range keys {
		q := s.quotas[key]
		wants[i], step = q.tokens(now, lapse), max(step, q.limit.Step())
	}
	s.mu.Unlock()
	if len(keys) == 0 {
		return nil
	}
	answers, err := s.store.LeaseTokens(ctx, s.kind, step, keys, wants)
	if err != nil {
		return err
	}
	received := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range answers {
		if q := s.quotas[t.Key]; q != nil {
			q.got(t, now, received)
			s.counts.leased(t.Granted)
		}
	}
	return nil
}

// lookAtPlaces tells the database what places are used and wanted. While that is under way no more are used than before:
// whatever the database answers, and whether that comes or not, it knows of as many.
func (s *share) lookAtPlaces(ctx context.Context) error {
	s.mu.Lock()
	now := time.Now()
	lapse := s.pulse.lapses.Load()
	var uses []store.Use
	s.whole()
	for key, q := range s.quotas {
		if q.asks(now, lapse) {
			use := store.Use{Key: key, Used: q.used, Wants: q.demands(now)}
			if q.limit.Running == 0 { // there are no places any more
				use.Used, use.Wants = 0, 0
			}
			uses = append(uses, use)
			q.held, q.dirty = use.Used, true
		}
	}
	turn := sayings.Add(1)
	s.mu.Unlock()
	if len(uses) == 0 {
		return nil
	}
	slices.SortFunc(uses, func(a, b store.Use) int { return strings.Compare(a.Key, b.Key) })
	answers, err := s.store.LeasePlaces(ctx, s.worker, s.kind, uses, turn, s.pulse.watched())
	if err != nil {
		return err
	}
	received := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range answers {
		i, found := slices.BinarySearchFunc(uses, p.Key, func(u store.Use, key string) int { return strings.Compare(u.Key, key) })
		if q := s.quotas[p.Key]; found && q != nil && q.lapse == s.pulse.lapses.Load() {
			q.placed(p, uses[i].Wants, s.runs.typically(), received)
		}
	}
	return nil
}

// close gives back tokens that are not spent. Places come free with the worker's row.
func (s *share) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s.mu.Lock()
	for _, q := range s.quotas {
		q.wants = 0
	}
	s.mu.Unlock()
	if err := s.handBack(ctx); err != nil {
		s.log.Warn("worker: tokens of a limit could not be given back", "kind", s.kind, "error", err)
	}
}

// handBack gives back tokens that nothing waits for, where each is worth something.
func (s *share) handBack(ctx context.Context) error {
	type lease struct {
		key  string
		tail time.Time
	}
	s.mu.Lock()
	now := time.Now()
	all := map[lease]int{}
	for key, q := range s.quotas {
		if q.limit.Step() < worthwhile || q.demands(now) > 0 || len(q.blocks) == 0 {
			continue
		}
		q.due(now)
		for _, b := range q.blocks {
			if b.tail != nil {
				all[lease{key, *b.tail}] += b.n
			}
		}
		q.blocks = nil
	}
	s.mu.Unlock()
	for l, n := range all {
		if _, err := s.store.ReturnTokens(ctx, s.kind, l.key, n, l.tail); err != nil {
			return err
		}
	}
	return nil
}

// leasing are the goroutines that ask for tokens and places.
type leasing struct {
	ctx    context.Context
	cancel context.CancelFunc
	all    sync.WaitGroup
}

// close ends them; none must be started any more.
func (l *leasing) close() {
	l.cancel()
	l.all.Wait()
}

// lookAtLimits reads which kinds have limits. Kinds that have one get a goroutine that asks for its share.
func (p *Pool) lookAtLimits(ctx context.Context, q store.Querier) error {
	limits, err := store.LimitsInForce(ctx, q, p.mux.names())
	if err != nil {
		return err
	}
	of := make(map[string][]store.Limit, len(limits))
	for _, l := range limits {
		of[l.Kind] = append(of[l.Kind], l)
	}
	for name, v := range p.valves {
		v.share.set(of[name])
		if !v.share.limited.Load() {
			continue
		}
		v.share.begin.Do(func() { p.leasing.all.Go(func() { v.share.run(p.leasing.ctx) }) })
		v.share.rouse() // it prunes from time to time, whether or not there is work
	}
	return nil
}
