package workers

import (
	"context"
	"sync"
	"time"
)

// movable is a context whose deadline can be moved on, for kinds with Handler.MaxExtend. All others have a plain one, which
// costs those less that derive contexts from it.
type movable struct {
	context.Context // its parent: values, and the end of the process
	done            chan struct{}
	unlink          func() bool
	timer           *time.Timer

	mu  sync.Mutex
	at  time.Time
	err error
}

// newMovable returns a context that ends at a time, or with its parent. It must be ended by cancel.
func newMovable(parent context.Context, at time.Time) *movable {
	m := &movable{Context: parent, done: make(chan struct{}), at: at}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.timer = time.AfterFunc(time.Until(at), m.expire)
	m.unlink = context.AfterFunc(parent, func() { m.end(parent.Err()) })
	return m
}

// Deadline, Done and Err are those of a context.
func (m *movable) Deadline() (time.Time, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.at, true
}

func (m *movable) Done() <-chan struct{} { return m.done }

func (m *movable) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// move moves the deadline on, never back; false: the context has ended.
func (m *movable) move(at time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return false
	}
	if at.After(m.at) {
		m.at = at
		m.timer.Reset(time.Until(at))
	}
	return true
}

func (m *movable) expire() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if rest := time.Until(m.at); rest > 0 { // it was moved just now
		m.timer.Reset(rest)
		return
	}
	m.endLocked(context.DeadlineExceeded)
}

func (m *movable) cancel() {
	m.unlink()
	m.end(context.Canceled)
}

func (m *movable) end(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.endLocked(err)
}

func (m *movable) endLocked(err error) {
	if m.err != nil {
		return
	}
	m.err = err
	m.timer.Stop()
	close(m.done)
}
