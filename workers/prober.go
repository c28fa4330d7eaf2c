package workers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"sync"
	"time"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/backoff"
	"github.com/writhq/writ/internal/store"
)

const opProbe = "probe"

const (
	// probesWaiting bounds how many askings of a kind wait in this process for a place; hints beyond it go back to the outbox.
	probesWaiting = 1000
	// probeLease is how much longer than the probe's timeout an asking is this process'. Then it is due again, and the
	// reconciler has somebody else asked.
	probeLease = 5 * time.Second
	// maxEvidence bounds what is kept of a probe's evidence, in bytes.
	maxEvidence = 64 << 10
)

// prober asks the probe of one kind. A hint is taken at once and its message acked: if the process dies, probe_at in the
// row brings another. Safe for concurrent use.
type prober struct {
	p    *Pool
	kind *registration

	mu      sync.Mutex
	free    int            // places
	waiting []store.Hint   // for one
	known   map[claim]bool // waiting, or being asked; true: and another hint came meanwhile
	stuck   int            // probes past their timeout that have not returned
}

func newProber(p *Pool, kind *registration) *prober {
	return &prober{p: p, kind: kind, free: kind.probing.Slots, known: map[claim]bool{}}
}

// openProbers makes a prober for each kind that has a probe to ask.
func (p *Pool) openProbers() {
	p.probers = map[string]*prober{}
	for name, kind := range p.mux.kinds {
		p.clock.least = max(p.clock.least, kind.Timeout+kind.Settle+time.Minute)
		if kind.class == Probed {
			p.probers[name] = newProber(p, kind)
		}
	}
}

// take takes a hint over; it does not block. full: there is no room, and it is not taken.
func (q *prober) take(h store.Hint) (result string, full bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := claim{h.ID, h.Epoch}
	_, known := q.known[c]
	switch {
	case known:
		// Doubled; or, if the answer is written and that was not heard yet, the next asking's: the row will tell.
		q.known[c] = true
		return "held", false
	case q.free > 0:
		q.free--
		q.start(h)
	case len(q.waiting) >= probesWaiting || q.stuck >= q.kind.probing.Slots: // no place becomes free here
		return "", true
	default:
		q.waiting = append(q.waiting, h)
	}
	q.known[c] = false
	return opProbe, false
}

// start asks on a place that the caller took. The caller holds the lock.
func (q *prober) start(h store.Hint) {
	q.p.probes.Go(func() { q.ask(h) })
}

// leave gives a place to whoever waits.
func (q *prober) leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 || q.p.asking.Err() != nil {
		q.free++
		return
	}
	h := q.waiting[0]
	q.waiting = q.waiting[1:]
	q.start(h)
}

// forget ends with an asking. If another hint came meanwhile, that is taken now.
func (q *prober) forget(h store.Hint) {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := claim{h.ID, h.Epoch}
	if q.known[c] && q.p.asking.Err() == nil {
		q.known[c] = false
		if q.free > 0 {
			q.free--
			q.start(h)
			return
		}
		q.waiting = append(q.waiting, h) // for the place of this asking, or the next that is free
		return
	}
	delete(q.known, c)
}

// noteStuck counts probes that have not returned. When they hold all places, other processes are to ask what waits for one.
func (q *prober) noteStuck(n int) {
	q.mu.Lock()
	q.stuck += n
	q.p.metrics.stuckProbes.WithLabelValues(q.kind.Name).Set(float64(q.stuck))
	var back []store.Back
	if q.stuck >= q.kind.probing.Slots {
		for _, h := range q.waiting {
			delete(q.known, claim{h.ID, h.Epoch})
			delay, _ := aWhile(h)
			back = append(back, store.Back{Hint: h, Delay: delay})
		}
		q.waiting = nil
	}
	q.mu.Unlock()
	if len(back) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(q.p.settling, q.p.cfg.TTL)
	defer cancel()
	if err := q.p.store.PutBack(ctx, back); err != nil {
		q.p.cfg.Log.Warn("worker: cannot put hints of probes back; they come again", "kind", q.kind.Name, "hints", len(back), "error", err)
	}
}

// ask asks about one attempt, from taking it to writing down what was found. The place is free again when the probe has
// returned, which may be long after its time was up.
func (q *prober) ask(h store.Hint) {
	asking := q.takeAsking(h)
	if asking == nil {
		q.forget(h)
		q.leave()
		return
	}
	// Both clocks are read before the probe begins. The local one vouches for the database's.
	began := time.Now()
	watched := asking.DeadlineAt.Sub(asking.StartedAt) + q.kind.Settle
	if asking.Reason == store.Quarantined { // the start is not that of an attempt, and may be long ago
		watched = q.kind.Timeout + q.kind.Settle
	}
	rest := q.p.clock.rest(asking.DeadlineAt.Add(q.kind.Settle), watched, began)
	ctx, cancel := context.WithTimeout(q.p.asking, q.kind.probing.Timeout)
	answers := make(chan store.Answer, 1)
	var returned sync.WaitGroup
	returned.Go(func() {
		// A probe may end its goroutine (runtime.Goexit); then this is what it said.
		answer := store.Answer{Finding: store.FoundNothing, Why: "the probe ended its goroutine"}
		defer func() { answers <- answer }()
		answer = askProbe(ctx, q.kind, q.p.cfg.Log, asking)
	})
	var answer store.Answer
	late := false
	select {
	case answer = <-answers:
	case <-ctx.Done():
		late = true
		answer = store.Answer{Finding: store.FoundNothing, Why: fmt.Sprintf("the probe did not answer within %v", q.kind.probing.Timeout)}
	}
	if q.p.asking.Err() != nil && answer.Finding == store.FoundNothing {
		answer = store.Answer{Finding: store.FoundCancelled, Why: errDraining.Error()}
	}
	cancel()
	answer.Rest = rest
	q.p.metrics.probeTook.WithLabelValues(q.kind.Name).Observe(time.Since(began).Seconds())
	q.say(asking, answer)
	q.forget(h)
	if late {
		q.noteStuck(1)
		returned.Wait()
		q.noteStuck(-1)
	}
	q.leave()
}

// takeAsking takes the asking in the database. A hint that is moot, or cannot be taken now, is dropped: the row knows when
// it is to be asked about.
func (q *prober) takeAsking(h store.Hint) *store.Asking {
	ctx, cancel := context.WithTimeout(q.p.asking, q.p.cfg.TTL)
	defer cancel()
	asking, err := q.p.store.TakeProbe(ctx, h, q.kind.probing.Timeout+probeLease)
	if err != nil && q.p.asking.Err() == nil {
		q.p.cfg.Log.Warn("worker: cannot take the asking of a probe; its hint comes again", "id", h.ID, "kind", h.Kind, "error", err)
	}
	return asking
}

// askProbe runs a kind's probe and turns what it says, its panic or its error into an answer.
func askProbe(ctx context.Context, kind *registration, log *slog.Logger, asking *store.Asking) (answer store.Answer) {
	defer func() {
		if p := recover(); p != nil {
			log.Error("worker: the probe panicked", "id", asking.ID, "kind", asking.Kind, "panic", p, "stack", string(debug.Stack()))
			answer = store.Answer{Finding: store.FoundNothing, Why: fmt.Sprintf("the probe broke off with a panic: %v", p)}
		}
	}()
	said, err := kind.probe(ctx, facts(asking, kind.Settle))
	if left, ok := errors.AsType[*snoozeError](err); ok && left.newer { // the probe was not asked, so nothing counts
		return store.Answer{Finding: store.FoundCancelled, Why: left.why, Pause: left.d}
	}
	if err != nil {
		return store.Answer{Finding: store.FoundNothing, Why: "the probe failed: " + err.Error()}
	}
	answer = store.Answer{Finding: said.Finding.String(), Why: said.Why}
	if answer.Why == "" {
		answer.Why = "the probe says " + answer.Finding
	}
	if said.Evidence != nil {
		answer.Evidence = evidenceOf(said.Evidence)
	}
	return answer
}

// evidenceOf makes an object of a probe's evidence. What cannot be kept does not void the answer.
func evidenceOf(v any) []byte {
	raw, err := json.Marshal(map[string]any{"probe": v})
	if err == nil && len(raw) > maxEvidence {
		err = fmt.Errorf("it has %d bytes, the limit is %d", len(raw), maxEvidence)
	}
	if err != nil {
		return lostEvidence(err)
	}
	return raw
}

func lostEvidence(err error) []byte {
	raw, _ := json.Marshal(map[string]string{"probe_evidence_not_kept": err.Error()}) // a map of strings
	return raw
}

// say writes an answer down, and tries that again until the database has taken it or the process ends.
func (q *prober) say(asking *store.Asking, answer store.Answer) {
	answer.Delay = delay(q.kind.Backoff, asking.Attempt)
	if answer.Finding != store.FoundCancelled {
		answer.Pause = pauseAfter(q.kind.probing.Backoff, asking.Probes)
	}
	log := q.p.cfg.Log.With("id", asking.ID, "tid", asking.TID, "kind", asking.Kind, "attempt", asking.Attempt)
	pause := backoff.New(50*time.Millisecond, 5*time.Second)
	for {
		ctx, cancel := context.WithTimeout(q.p.settling, q.p.cfg.TTL)
		result, err := q.p.store.AnswerProbe(ctx, q.p.id, asking, answer)
		cancel()
		if err == nil {
			q.p.metrics.probed(q.kind.Name, result)
			if result == store.Contradicts {
				log.Error("worker: late report: the probe contradicts the word that came before it", "finding", answer.Finding, "why", answer.Why)
				return
			}
			log.Info("worker: probe asked", "finding", answer.Finding, "why", answer.Why, "result", result)
			return
		}
		if !store.Down(err) { // what it refuses is most likely the evidence
			answer.Evidence = lostEvidence(errors.New("the database refused it"))
		}
		log.Warn("worker: cannot write down what the probe found yet, trying again", "finding", answer.Finding, "error", err)
		if !pause.Wait(q.p.settling) {
			return
		}
	}
}

// pauseAfter is the pause before the next asking, after the probe was unable to tell so often before.
func pauseAfter(b intent.Backoff, before int) time.Duration {
	return backoff.Jitter(time.Duration(min(float64(b.Max), float64(b.Min)*math.Pow(b.Factor, float64(before)))))
}

// probe hands a probe's hint over to its kind's prober and settles it. Probes wait for no handler's slot.
func (c *claimer) probe(h hint) {
	kind := c.mux.kinds[h.Kind]
	switch {
	case kind == nil:
		c.leave(c.settling, []hint{h})
	case c.draining.Load():
		c.putBack(c.settling, []hint{h}, "elsewhere", aWhile)
	case kind.class != Probed:
		c.settle(h, "moot")
	default:
		result, full := c.probers[h.Kind].take(h.Hint)
		if full {
			c.putBack(c.settling, []hint{h}, "busy", aWhile)
			return
		}
		c.settle(h, result)
	}
}

// aWhile is when a hint that cannot be taken here comes again.
func aWhile(store.Hint) (time.Duration, time.Time) {
	return backoff.Jitter(10 * time.Second), time.Time{}
}
