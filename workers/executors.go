package workers

import "sync"

// executors are goroutines that run handlers, one at a time each, and are used again: a new goroutine has to grow its
// stack for each attempt, which costs more than all else that is done for a short one. For the same reason an attempt
// does not wake one for itself. Whoever takes work while more is waiting wakes one other and goes on, as Go's own
// scheduler does: short handlers are run by a few goroutines in a row, and no attempt waits behind a handler that blocks.
// Safe for concurrent use.
type executors struct {
	attend func(*attempt)
	wake   chan struct{}
	quit   chan struct{}

	mu     sync.Mutex
	queue  []*attempt
	idle   int  // executors that wait
	waking bool // one is on its way to the queue
}

func newExecutors(attend func(*attempt)) *executors {
	return &executors{attend: attend, wake: make(chan struct{}, 1), quit: make(chan struct{})}
}

// run hands an attempt over; it does not block.
func (e *executors) run(a *attempt) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.queue = append(e.queue, a)
	e.call()
}

// call brings one executor to the queue, unless one is coming. The caller holds the lock.
func (e *executors) call() {
	if e.waking || len(e.queue) == 0 {
		return
	}
	e.waking = true
	if e.idle > 0 {
		e.idle--
		e.wake <- struct{}{} // has room: one is waking at a time
		return
	}
	go e.executor()
}

// executor ends with quit, or with a handler that ends its goroutine.
func (e *executors) executor() {
	for {
		e.mu.Lock()
		e.waking = false
		for len(e.queue) > 0 {
			a := e.queue[0]
			e.queue[0] = nil
			e.queue = e.queue[1:]
			e.call()
			e.mu.Unlock()
			e.attend(a)
			e.mu.Lock()
		}
		e.idle++
		e.mu.Unlock()
		select {
		case <-e.wake:
		case <-e.quit:
			return
		}
	}
}

// close lets idle executors end at once, and busy ones when nothing is queued any more.
func (e *executors) close() { close(e.quit) }
