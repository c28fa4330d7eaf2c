package workers

import (
	"context"
	"sync"
	"time"
)

// deadline is context.WithDeadline, made when it is first waited for, which handlers of brief jobs often never do: its timer and
// its link to the parent are a tenth of what a worker spends on such a job. Whoever derives a context from it waits for it, and
// then derives from the standard library's own. Of its time and its parent's end the latter is told where both have come unseen.
type deadline struct {
	at time.Time

	mu     sync.Mutex
	parent context.Context
	cause  causal // puts its values over the parent's, when somebody asks for one; nil: it has, or there are none
	made   context.Context
	cancel context.CancelFunc
	over   bool
}

func (d *deadline) Deadline() (time.Time, bool) { return d.at, true }

func (d *deadline) Done() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.make().Done()
}

func (d *deadline) Err() error {
	if c := d.ended(); c != nil {
		return c.Err()
	}
	return nil
}

// causal adds to a context what all that is created with it inherits.
type causal interface {
	cause(context.Context) context.Context
}

// Value is the parent's, and what context.Cause and derived contexts ask for.
func (d *deadline) Value(key any) any {
	if c := d.ended(); c != nil {
		return c.Value(key)
	}
	d.mu.Lock()
	parent := d.whole()
	d.mu.Unlock()
	return parent.Value(key)
}

// whole is the parent with all values. The caller holds the lock.
func (d *deadline) whole() context.Context {
	if d.cause != nil {
		d.parent, d.cause = d.cause.cause(d.parent), nil
	}
	return d.parent
}

// end ends it; it must be called, like a context.CancelFunc.
func (d *deadline) end() {
	d.ended() // what came before counts
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true
	if d.made != nil {
		d.cancel()
	}
}

// ended returns the context that was made, or must be because there is something to be said; nil: there is neither.
func (d *deadline) ended() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.made == nil && (d.over || d.parent.Err() != nil || !time.Now().Before(d.at)) {
		d.make()
	}
	return d.made
}

// make makes it. The caller holds the lock.
func (d *deadline) make() context.Context {
	if d.made != nil {
		return d.made
	}
	parent := d.whole()
	if d.over { // whatever its parent says since
		parent = context.WithoutCancel(parent)
	}
	if d.made, d.cancel = context.WithDeadline(parent, d.at); d.over {
		d.cancel()
	}
	return d.made
}
