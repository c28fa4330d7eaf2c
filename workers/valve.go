package workers

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/writhq/writ/internal/rabbit"
	"github.com/writhq/writ/internal/store"
)

// A valve lets the hints of one kind through to the claim, or has them wait, without holding up other kinds. It is shut for
// reasons of three sorts: a person's pause, which every valve looks at, a circuit breaker, which a kind has only if its declaration asks
// for it, and gates: the kind's share of limits over all processes, which may be set at any time, and others, for which its declaration
// asks. What waits stays in its order, and unacked, so the broker's prefetch bounds it: at most as
// many messages a queue as [Pool.prefetch] says, in each up to 32 hints (128 of the briefest kinds).
//
// When a valve stays shut its queue is not consumed any more, so that messages wait in the broker, and what had come
// already goes back through the outbox, once. See flow.go.
//
// To add a reason for hints to wait: write a gate, and have [Pool.openValves] put it into the valves of the kinds that ask for
// it. A gate that opens, because of time, an answer of the database, or a handler that ended, calls [Pool.stir]; nobody
// polls it. One that asks the database does so in a goroutine of its own, and grants from what it holds meanwhile: take is
// called by the goroutine that claims for all kinds. What it is to grant by is the kind; the row of an intent, and so any
// key within its arguments, is not known before its claim, and is read for kinds with a limit per key only: see lot.go.
type valve struct {
	kind    *registration
	paused  atomic.Bool
	breaker *breaker // nil: none
	gates   []gate
	share   *share // one of the gates

	// The claimer's own.
	waiting []hint    // in the order of their coming
	lot     *lot      // where those wait whose keys have a limit
	began   time.Time // when hints began to wait
	queue   *intake   // that its hints come through
	since   time.Time // when it was first seen shut; zero: it is open
}

// gate is one reason for which the hints of one kind may have to wait. All methods are safe for concurrent use and do not
// block.
type gate interface {
	// room is how many hints it would let through as far as it knows; 0: it is shut, and will open any moment.
	room() int
	// take asks for places for n hints, no more than there was room for, and returns how many of them may go on now.
	take(n int) int
	// giveBack returns places of hints of which nothing came: no handler was started.
	giveBack(n int)
	// ended notes that handlers that went through have returned.
	ended(n int)
	// most is how many messages in hand are of use to it; 0: any number.
	most() int
}

// closure is in how far a valve is shut.
type closure int

const (
	open    closure = iota
	brief           // it will open by itself any moment; nothing is done about it for as long as hold
	lasting         // it stays shut until further notice: its queue is left alone at once
)

func (v *valve) state() closure {
	if v.paused.Load() {
		return lasting
	}
	if v.room(1) == 0 {
		return max(brief, v.breaker.closure())
	}
	return v.breaker.closure()
}

// room is how many hints the gates would let through, at most n.
func (v *valve) room(n int) int {
	for _, g := range v.gates {
		n = min(n, g.room())
	}
	return n
}

// take asks for n hints to be let through, and returns how many may go, and how the breaker let them; the others' places are
// given back.
func (v *valve) take(n int) (int, pass) {
	if v.paused.Load() || v.breaker.closure() != open {
		return 0, 0
	}
	// No gate takes what another refuses: to give that back would stir the claimer, which would ask again, and so on. So the
	// share goes first, which alone may refuse what it had room for.
	if n = v.room(n); n == 0 {
		return 0, 0
	}
	for i, g := range v.gates {
		got := g.take(n)
		if got < n {
			for _, before := range v.gates[:i] {
				before.giveBack(n - got)
			}
		}
		if n = got; n == 0 {
			return 0, 0
		}
	}
	got, p := v.breaker.take(n)
	if got < n {
		v.giveBack(n-got, 0)
	}
	return got, p
}

// giveBack returns the places of hints that were let through, and that no handler was started for.
func (v *valve) giveBack(n int, p pass) {
	for _, g := range v.gates {
		g.giveBack(n)
	}
	if p > 0 {
		v.breaker.giveBack(p)
	}
}

// ended returns the places of handlers that have.
func (v *valve) ended(n int) {
	for _, g := range v.gates {
		g.ended(n)
	}
}

// without gives back all that one hint was let through with, of which no handler came.
func (v *valve) without(at claim, p pass) {
	v.giveBack(1, p)
	v.share.giveBackKey(at)
}

// done gives back what a hint was let through with whose handler has returned.
func (v *valve) done(at claim) {
	v.ended(1)
	v.share.endedKey(at)
}

// most is how many messages in hand are of use to the kind, at most n.
func (v *valve) most(n int) int {
	if m := v.breaker.most(); m > 0 {
		n = min(n, m)
	}
	for _, g := range v.gates {
		if m := g.most(); m > 0 {
			n = min(n, m)
		}
	}
	return n
}

// openValves makes a valve for each kind, with the gates that its declaration asks for.
func (p *Pool) openValves() {
	p.valves = make(map[string]*valve, len(p.mux.kinds))
	reserves := p.reserves()
	for name, kind := range p.mux.kinds {
		v := &valve{kind: kind, share: newShare(p, name, &kind.run), lot: newLot()}
		v.gates = append([]gate{v.share}, reserves[kind.Priority]...)
		if kind.slots > 0 {
			v.gates = append(v.gates, &places{total: kind.slots, stir: p.stir})
		}
		if kind.breaker.Ratio > 0 {
			v.breaker = &breaker{Breaker: kind.breaker, kind: name, stir: p.stir, soon: p.beatSoon, metrics: p.metrics, state: store.Breaker{State: store.BreakerClosed}}
			p.metrics.breaker(name, store.BreakerClosed)
		}
		p.valves[name] = v
	}
}

// stir has the claimer look at the valves again; it does not block.
func (p *Pool) stir() {
	select {
	case p.stirred <- struct{}{}:
	default:
	}
}

// places bound how many handlers of a kind run at once in this process.
type places struct {
	total int
	stir  func()

	mu   sync.Mutex
	busy int
}

func (g *places) take(n int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n = min(n, g.total-g.busy)
	g.busy += n
	return n
}

func (g *places) giveBack(n int) { g.ended(n) }

func (g *places) ended(n int) {
	g.mu.Lock()
	full := g.busy == g.total
	g.busy = max(0, g.busy-n) // a hint written by hand may have come through another kind's valve
	g.mu.Unlock()
	if full {
		g.stir()
	}
}

func (g *places) room() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.total - g.busy
}

func (g *places) most() int { return g.total }

// intake is a queue of the broker with the valves that its hints go through. The claimer owns it.
type intake struct {
	valves []*valve
	held   bool // it is not consumed
}

// intakes are the queues of the mux's kinds, by the broker's names.
func (p *Pool) intakes(installation uuid.UUID) (map[string]*intake, error) {
	out := map[string]*intake{}
	for _, v := range p.valves {
		name, err := rabbit.QueueName(installation, v.kind.Queue)
		if err != nil {
			return nil, err
		}
		if out[name] == nil {
			out[name] = &intake{}
		}
		out[name].valves = append(out[name].valves, v)
		v.queue = out[name]
	}
	return out, nil
}

// prefetch is how many messages of a queue wait here unacked: no more than are of use. Of kinds with a limit per key it does not
// depend on the slots: what waits of one key must not keep others from coming.
func (p *Pool) prefetch(q *intake) int {
	most := min(p.cfg.Slots, maxPrefetch)
	sum := 0
	for _, v := range q.valves {
		if v.share.keyed() != "" {
			return maxPrefetch
		}
		sum += v.most(most)
	}
	return min(sum, most)
}
