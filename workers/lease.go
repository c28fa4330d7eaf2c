package workers

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/writhq/writ/internal/backoff"
	"github.com/writhq/writ/internal/store"
)

// The other side of a share: the goroutine that asks the database for tokens and places. What the claimer takes from is in share.go.

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
