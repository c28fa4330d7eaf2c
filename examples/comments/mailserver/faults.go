package mailserver

import (
	"encoding/json"
	"fmt"
	"sync"
	"syscall"
	"time"
)

// Mode is how the server treats everybody.
type Mode string

// The modes. Accept is the zero value.
const (
	Accept Mode = ""
	Slow   Mode = "slow"   // MAIL gets no answer until the mode changes
	Later  Mode = "later"  // 451 to MAIL
	Greedy Mode = "greedy" // takes and keeps the mail, and cuts the connection instead of answering
	Reject Mode = "reject" // 554 after the text
	Busy   Mode = "busy"   // 451 after the text
)

// Order tells the server how to behave from now on.
type Order struct {
	Mode   Mode   `json:"mode"`
	Refuse string `json:"refuse,omitempty"` // an address that gets 550
	Kill   *Kill  `json:"kill,omitempty"`
}

// Kill makes the server end a client's process by SIGKILL in the one moment that matters: after it has stored a mail,
// and before it answers. Up to Others further mails are made to be in flight in that moment: every other one of them
// stored, the rest not.
type Kill struct {
	PID    int    `json:"pid"`
	To     string `json:"to"` // the address whose mail is stored last
	Others int    `json:"others"`
}

// patience bounds every wait of an armed server.
const patience = 20 * time.Second

// faults is the present behaviour. Safe for concurrent use.
type faults struct {
	mu      sync.Mutex
	order   Order
	changed chan struct{} // closed when order changes
	trap    *trap
}

// trap is an armed Kill.
type trap struct {
	Kill
	taken  bool // the mail to kill over has come
	held   int
	full   chan struct{} // closed when enough others are in flight
	sprung chan struct{} // closed when the process is dead
}

// Order changes the server's behaviour; order is an [Order] as JSON.
func (s *Server) Order(order []byte) error {
	var o Order
	if err := json.Unmarshal(order, &o); err != nil {
		return fmt.Errorf("not an order: %w", err)
	}
	f := &s.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changed != nil {
		close(f.changed)
	}
	f.order, f.changed, f.trap = o, make(chan struct{}), nil
	if o.Kill != nil {
		f.trap = &trap{Kill: *o.Kill, full: make(chan struct{}), sprung: make(chan struct{})}
	}
	return nil
}

func (f *faults) mail() error {
	for end := time.After(patience); ; {
		f.mu.Lock()
		mode, changed := f.order.Mode, f.changed
		f.mu.Unlock()
		switch mode {
		case Slow:
			select {
			case <-changed:
				continue
			case <-end:
				return errLater
			}
		case Later:
			return errLater
		}
		return nil
	}
}

func (f *faults) rcpt(to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.order.Refuse != "" && to == f.order.Refuse {
		return errNoBox
	}
	return nil
}

// data decides over a mail whose text is there.
func (f *faults) data(to string, store func() error) error {
	f.mu.Lock()
	mode, trap := f.order.Mode, f.trap
	n, last := -1, false // not in the trap
	switch {
	case trap == nil || trap.over():
	case to == trap.To:
		last, trap.taken = !trap.taken, true
	case trap.held < trap.Others:
		n = trap.held
		if trap.held++; trap.held == trap.Others {
			close(trap.full)
		}
	}
	f.mu.Unlock()
	switch {
	case last:
		return trap.spring(store)
	case n >= 0:
		return trap.hold(n, store)
	case mode == Reject:
		return errNoBox
	case mode == Busy:
		return errLater
	}
	if err := store(); err != nil {
		return err
	}
	if mode == Greedy {
		return errDrop
	}
	return nil
}

func (t *trap) over() bool {
	select {
	case <-t.sprung:
		return true
	default:
		return false
	}
}

// spring stores the mail, kills the process that waits for the answer, and gives none.
func (t *trap) spring(store func() error) error {
	select {
	case <-t.full:
	case <-time.After(3 * time.Second): // fewer are in flight; the mail at hand is what counts
	}
	err := store()
	if err == nil {
		err = syscall.Kill(t.PID, syscall.SIGKILL)
	}
	close(t.sprung)
	if err != nil {
		return err
	}
	return errDrop
}

// hold keeps another mail in flight until the process is dead.
func (t *trap) hold(n int, store func() error) error {
	if n%2 == 0 {
		if err := store(); err != nil {
			return err
		}
	}
	select {
	case <-t.sprung:
	case <-time.After(patience):
	}
	return errDrop
}
