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

// leisure reports whether most slots are free.
func (s *slots) leisure() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return 4*s.busy < s.total
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
}

// enter notes a claim about to be sent; false: it is held already.
func (r *registry) enter(c claim) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, held := r.held[c]; held {
		return false
	}
	r.held[c] = nil
	return true
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
