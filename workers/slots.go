package workers

import (
	"sync"

	"github.com/google/uuid"
)

// slots counts the handlers that may still be started, and the outcomes not written yet.
type slots struct {
	mu       sync.Mutex
	total    int
	busy     int           // handlers running, or about to
	unsaid   int           // claimed and not finished
	loosened chan struct{} // holds one token when something became free
}

func newSlots(n int) *slots { return &slots{total: n, loosened: make(chan struct{}, 1)} }

// free returns how many handlers may be started now.
func (s *slots) free() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(0, min(s.total-s.busy, backlog*s.total-s.unsaid))
}

// leisure reports whether most slots are free, though so many more are waited for.
func (s *slots) leisure(waiting int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return 4*(s.busy+waiting) < s.total && s.unsaid < s.total
}

func (s *slots) take(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy += n
	s.unsaid += n
}

// returned gives back the slots of handlers that returned, or never began.
func (s *slots) returned(n int) { s.change(-n, 0) }

// said notes that outcomes were written, or that there is none to write.
func (s *slots) said(n int) { s.change(0, -n) }

func (s *slots) change(busy, unsaid int) {
	s.mu.Lock()
	s.busy += busy
	s.unsaid += unsaid
	s.mu.Unlock()
	s.loosen()
}

// loosen has whoever waits for a slot look again.
func (s *slots) loosen() {
	select {
	case s.loosened <- struct{}{}:
	default:
	}
}

func (s *slots) running() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.busy
}

// claim names an attempt before it is one: the hint's intent and epoch.
type claim struct {
	id    uuid.UUID
	epoch int32
}

// registry knows what this process is claiming or has started, so that nothing starts twice in it: a hint that comes
// twice, or again while an earlier claim's answer is lost, finds it here.
type registry struct {
	mu   sync.Mutex
	held map[claim]*attempt // nil: being claimed
	near map[claim]*frame   // of those, the ones whose hint came directly; with the broker's copy, if that came meanwhile
}

func newRegistry() registry { return registry{held: map[claim]*attempt{}, near: map[claim]*frame{}} }

// enter notes a claim about to be sent; false: it is held already. A frame that meets a claim whose hint came directly
// stands in for it from now on (kept): if that claim comes to nothing it is the only hint that is left.
func (r *registry) enter(c claim, f *frame) (entered, kept bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a, held := r.held[c]; held {
		copied, near := r.near[c]
		if a == nil && near && copied == nil && f != nil {
			r.near[c] = f
			return false, true
		}
		return false, false
	}
	r.held[c] = nil
	if f == nil {
		r.near[c] = nil
	}
	return true, false
}

// copied returns the frame that came for a direct hint's claim while that was under way, or nil.
func (r *registry) copied(c claim) *frame {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.near[c]
	delete(r.near, c)
	return f
}

func (r *registry) start(c claim, a *attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held[c] = a
}

func (r *registry) leave(c claim) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.held, c)
	delete(r.near, c)
}

// started returns the attempts whose handlers were started and whose outcome is not written.
func (r *registry) started() []*attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*attempt, 0, len(r.held))
	for _, a := range r.held {
		if a != nil {
			out = append(out, a)
		}
	}
	return out
}

func (r *registry) size() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.held)
}
