package dispatch

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/internal/store"
)

// bell hears creations ring, on a connection of its own: on the session's, a ring would wait until what is being
// published has been confirmed. Hints that come with a ring are offered to the workers of this process at once, beside
// their way over the broker.
type bell struct {
	near   func(store.Hint) bool
	urgent chan struct{} // holds one token: rung, and nobody here took the hint
	calm   chan struct{} // holds one token: rung, and a worker of this process has the hint
	rings  atomic.Int64  // since they were last asked for
	stop   context.CancelFunc
	done   chan struct{} // closed when the connection is
	err    error         // why; to be read after done
}

// hang connects and listens.
func (r *Relay) hang(ctx context.Context) (*bell, error) {
	connecting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := pgx.ConnectConfig(connecting, r.pool.Config().ConnConfig.Copy())
	if err != nil {
		return nil, fmt.Errorf("connect to listen: %w", err)
	}
	listener, err := store.Listen(connecting, conn)
	if err != nil {
		conn.Close(connecting) // an error leaves that to the server
		return nil, fmt.Errorf("listen: %w", err)
	}
	listening, stop := context.WithCancel(ctx)
	b := &bell{
		near: r.cfg.Near, urgent: make(chan struct{}, 1), calm: make(chan struct{}, 1), stop: stop, done: make(chan struct{}),
	}
	go func() {
		defer close(b.done)
		b.err = b.listen(listening, listener)
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		conn.Close(closing) // an error leaves that to the server
	}()
	return b, nil
}

// listen passes rings on until the connection is lost or ctx ends.
func (b *bell) listen(ctx context.Context, listener *store.Listener) error {
	for {
		hint, err := listener.Rung(ctx)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		b.rings.Add(1)
		heard := b.urgent
		if b.near != nil && hint.Kind != "" && b.near(hint) {
			heard = b.calm
		}
		select {
		case heard <- struct{}{}:
		default:
		}
	}
}

// ring is how the bell rang.
type ring int

const (
	silent   ring = iota
	calmly        // workers of this process have the hint
	urgently      // nobody has
)

// wait blocks until the bell rings, or for the time given at most. A ring whose hint is in good hands is given leisure for
// others to come. The error is the listening connection's.
func (b *bell) wait(ctx context.Context, most time.Duration) (rung ring, err error) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	calm := b.calm
	for {
		select {
		case <-ctx.Done():
			return silent, nil
		case <-b.done:
			return silent, b.err
		case <-b.urgent:
			return urgently, nil
		case <-calm:
			calm, rung = nil, calmly
			timer.Reset(leisure)
		case <-timer.C:
			return rung, nil
		}
	}
}

// rung returns how often it rang since the last call.
func (b *bell) rung() int {
	if b == nil {
		return 0
	}
	return int(b.rings.Swap(0))
}

// close hangs up, and waits for that a second at most.
func (b *bell) close() {
	if b != nil {
		b.stop()
		<-b.done
	}
}
