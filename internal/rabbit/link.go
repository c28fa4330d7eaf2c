package rabbit

import (
	"context"
	"fmt"
	"net"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// link is one connection to the broker, with its socket: amqp091-go waits for
// answers, and writes, for as long as it takes, and closing the socket is the one
// thing that surely ends such a wait. It is safe for concurrent use.
type link struct {
	conn    *amqp.Connection
	socket  net.Conn
	timeout time.Duration // of a request
}

// dial connects, within dialTimeout. The error is ErrDisconnected with its cause,
// or what ended ctx.
func dial(ctx context.Context, cfg Config) (*link, error) {
	within, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	l := &link{timeout: cfg.ConfirmTimeout}
	unwatch := func() bool { return true }
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName(cfg.Name)
	conn, err := amqp.DialConfig(cfg.URL, amqp.Config{
		Heartbeat:  heartbeat,
		Properties: properties,
		Dial: func(network, addr string) (net.Conn, error) {
			socket, err := new(net.Dialer).DialContext(within, network, addr)
			if err != nil {
				return nil, err
			}
			l.socket = socket
			unwatch = context.AfterFunc(within, l.sever) // the handshakes do not look at a context
			return &deadlineConn{Conn: socket, timeout: cfg.WriteTimeout}, nil
		},
	})
	l.conn = conn
	if !unwatch() && err == nil {
		err = within.Err()
	}
	if err == nil {
		return l, nil
	}
	if l.socket != nil {
		l.sever()
	}
	if conn != nil {
		_ = conn.Close() // a failed handshake leaves the library's goroutines running
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, fmt.Errorf("%w: dial %s: %w", ErrDisconnected, Redact(cfg.URL), err)
}

// ask runs one request to the broker. If it takes longer than the timeout, or if
// ctx ends first, the connection is severed, and the request with it.
func (l *link) ask(ctx context.Context, request func() error) error {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	unwatch := context.AfterFunc(ctx, l.sever)
	err := request()
	if !unwatch() {
		return lost(context.Cause(ctx))
	}
	if err != nil {
		return lost(err)
	}
	return nil
}

// sever closes the socket, without a word to the broker. Everything that waits
// on the connection then fails. It does not block.
func (l *link) sever() { _ = l.socket.Close() }

// close says goodbye if the broker listens, and frees all resources. It blocks
// for at most closeTimeout.
func (l *link) close() {
	late := time.AfterFunc(closeTimeout, l.sever)
	defer late.Stop()
	_ = l.conn.Close() // closed already, or severed: closed all the same
}

// deadlineConn bounds each write, because the library does not. A write that was
// cut short has broken the stream; the library then gives the connection up.
type deadlineConn struct {
	net.Conn
	timeout time.Duration
}

func (c *deadlineConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}
