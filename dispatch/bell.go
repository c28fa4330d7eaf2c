package dispatch

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/internal/store"
)

// bell hears creations ring, on a connection of its own: on the session's, a ring would wait until what is being
// published has been confirmed. Hints that come with a ring are offered to the workers of this process at once, beside
// their way over the broker. All methods may be called on a nil bell, which never rings.
type bell struct {
	near   func(store.Hint) bool
	urgent chan struct{} // holds one token: rung, and nobody here took the hint
	calm   chan struct{} // holds one token: rung, and a worker of this process has the hint
	stop   context.CancelFunc
	done   chan struct{} // closed when the connection is
	err    error         // why; to be read after done
}

// hang connects and listens. Where LISTEN cannot work (pgbouncer in transaction mode) polling alone is correct.
func (r *Relay) hang(ctx context.Context) (*bell, error) {
	connecting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := pgx.ConnectConfig(connecting, r.pool.Config().ConnConfig.Copy())
	if err != nil {
		return nil, fmt.Errorf("connect to listen: %w", err)
	}
	listener, err := store.Listen(connecting, conn)
	if err != nil {
		r.cfg.Log.Warn("relay: cannot LISTEN, polling only", "error", err)
		return nil, conn.Close(connecting)
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

// wait blocks until the bell rings (true), or for the time given at most. A ring whose hint is in good hands is given
// leisure for others to come. The error is the listening connection's.
func (b *bell) wait(ctx context.Context, most time.Duration) (rung bool, err error) {
	if b == nil {
		b = &bell{}
	}
	timer := time.NewTimer(most)
	defer timer.Stop()
	calm := b.calm
	for {
		select {
		case <-ctx.Done():
			return false, nil
		case <-b.done:
			return false, b.err
		case <-b.urgent:
			return true, nil
		case <-calm:
			calm, rung = nil, true
			timer.Reset(leisure)
		case <-timer.C:
			return rung, nil
		}
	}
}

// close hangs up, and waits for that a second at most.
func (b *bell) close() {
	if b != nil {
		b.stop()
		<-b.done
	}
}
