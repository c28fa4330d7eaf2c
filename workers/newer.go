package workers

import (
	"context"
	"sync"
	"time"

	"github.com/writhq/writ/internal/backoff"
	"github.com/writhq/writ/internal/store"
)

// While a deployment rolls, workers of two releases share queues: the older ones meet kinds and operations that they do not
// know, and arguments of a later version. They leave them to the newer ones. Where there is none yet, and thousands wait,
// the same ones would come round and round: so what a process leaves is spread over time.
const (
	// leaveFor is the least that something is left for, jittered.
	leaveFor = 10 * time.Second
	// leaveEvery is how far apart a process leaves things of one kind, so that it meets at most so many in a second again.
	leaveEvery = 20 * time.Millisecond
	// leaveMost bounds how long something is left for, but for the jitter. The reconciler counts on it: see StalePending.
	leaveMost = 10 * time.Minute
	// tellEvery is how often the log says so, for each kind.
	tellEvery = 30 * time.Second
)

// leaving spaces what a process leaves to newer ones of one kind. The zero value is ready. Safe for concurrent use.
type leaving struct {
	mu   sync.Mutex
	next time.Time // when the last of what was left comes again
	told time.Time
	n    int // left since then
}

// pause is how long one more is left for: 5 to 10 s, and longer the more were left before it.
func (l *leaving) pause(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next.Before(now) {
		l.next = now
	}
	if l.next = l.next.Add(leaveEvery); l.next.After(now.Add(leaveMost)) {
		l.next = now.Add(leaveMost)
	}
	return l.next.Sub(now) + backoff.Jitter(leaveFor)
}

// tell counts n more, and returns how many are to be told of, now and then.
func (l *leaving) tell(n int, now time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n += n
	if now.Sub(l.told) < tellEvery {
		return 0
	}
	n, l.n, l.told = l.n, 0, now
	return n
}

// maxStrangers bounds for how many kinds that it does not know a process keeps what it left.
const maxStrangers = 1000

// strangers are kinds, and operations, that a process has no code for. Its claimer owns it.
type strangers map[string]*leaving

func (s strangers) of(kind string) *leaving {
	if len(s) >= maxStrangers && s[kind] == nil {
		clear(s) // names come from outside
	}
	if s[kind] == nil {
		s[kind] = &leaving{}
	}
	return s[kind]
}

// newerWorker is what a hint that is left says of itself in the outbox.
const newerWorker = "a worker had no code for it, and left it to a newer one"

// leave puts hints back that only a newer worker can do something with. Those that came directly come again.
func (c *claimer) leave(ctx context.Context, hints []hint) {
	if len(hints) == 0 {
		return
	}
	now, counts := time.Now(), map[string]int{}
	for _, h := range hints {
		counts[h.Op+" "+h.Kind]++
	}
	for what, n := range counts {
		if left := c.strangers.of(what).tell(n, now); left > 0 {
			c.cfg.Log.Warn("worker: hints that this release has no code for are put back, for a newer worker", "hints", left, "what", what)
		}
	}
	backs := make([]store.Back, len(hints))
	for i, h := range hints {
		backs[i] = store.Back{Hint: h.Hint, Delay: c.strangers.of(h.Op + " " + h.Kind).pause(now), Why: newerWorker}
	}
	c.writeBack(ctx, hints, backs, "elsewhere")
}
