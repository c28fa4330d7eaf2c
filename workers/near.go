package workers

import "github.com/writhq/writ/internal/store"

// Offer hands over a hint that has not gone over the broker, from the relay of this very process; it goes over the broker
// as well, so nothing depends on it. It returns whether the worker took it, which it does while it is at leisure: other
// processes are to have their share of a load that is worth sharing. It does not block, and is safe for concurrent use.
func (p *Pool) Offer(h store.Hint) bool {
	if v := p.valves[h.Kind]; v == nil || v.state() != open || v.share.limited.Load() || p.draining.Load() || !p.pulse.alive() || !p.slots.leisure(len(p.near)) {
		return false
	}
	select {
	case p.near <- h:
		return true
	default:
		return false
	}
}

// spent remembers hints that came by the bell and were claimed, until the broker brings them too: no row is ever claimed
// twice at one epoch, so the database need not be asked about those. It forgets the oldest ones, which costs a look at
// their rows. One goroutine owns it.
type spent struct {
	held map[claim]bool
	ring [maxSpent]claim
	next int
}

// maxSpent is more than trickles in while a message is on its way.
const maxSpent = 4096

func newSpent() *spent { return &spent{held: make(map[claim]bool)} }

func (s *spent) add(c claim) {
	delete(s.held, s.ring[s.next])
	s.ring[s.next] = c
	s.next = (s.next + 1) % maxSpent
	s.held[c] = true
}

// take reports whether a claim is remembered, and forgets it.
func (s *spent) take(c claim) bool {
	held := s.held[c]
	delete(s.held, c)
	return held
}
