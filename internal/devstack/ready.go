package devstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"
)

const (
	// answerWithin bounds one probe of a server that should be up.
	answerWithin = 3 * time.Second
	// readyWithin bounds the start of a server; a loaded machine needs far more
	// than the usual ten seconds.
	readyWithin = 90 * time.Second
	readyPoll   = 50 * time.Millisecond
)

// answers reports whether both servers of a recorded stack answer now.
func answers(ctx context.Context, st *state) error {
	if st.DatabaseURL == "" || st.AMQPURL == "" {
		return errors.New("its start was never finished")
	}
	return answerBoth(ctx, st.DatabaseURL, st.AMQPURL)
}

func answerBoth(ctx context.Context, databaseURL, amqpURL string) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	var g errgroup.Group
	var pgErr, mqErr error
	g.Go(func() error { pgErr = pingPostgres(ctx, databaseURL); return nil })
	g.Go(func() error { mqErr = pingBroker(ctx, amqpURL); return nil })
	_ = g.Wait()
	return errors.Join(pgErr, mqErr)
}

// pingPostgres connects, asks for nothing and closes.
func pingPostgres(ctx context.Context, databaseURL string) error {
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return fmt.Errorf("no answer from Postgres at %s: %w", address(databaseURL), err)
	}
	err = conn.Ping(ctx)
	if closeErr := conn.Close(context.WithoutCancel(ctx)); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("no answer from Postgres at %s: %w", address(databaseURL), err)
	}
	return nil
}

// pingBroker does a full AMQP handshake, login and vhost included, and closes.
func pingBroker(ctx context.Context, amqpURL string) error {
	if _, err := amqp.ParseURI(amqpURL); err != nil {
		// The parser's error quotes the URL, password and all.
		return errors.New("AMQP_URL is not a valid amqp:// or amqps:// URL")
	}
	conn, err := dialBroker(ctx, amqpURL)
	if err == nil {
		err = conn.CloseDeadline(time.Now().Add(answerWithin))
	}
	if err != nil {
		return fmt.Errorf("RabbitMQ at %s does not answer: %w", address(amqpURL), err)
	}
	return nil
}

// dialBroker honours ctx up to the end of the handshake; amqp091 itself takes
// only a timeout.
func dialBroker(ctx context.Context, amqpURL string) (*amqp.Connection, error) {
	dial := func(network, addr string) (net.Conn, error) {
		d := net.Dialer{Timeout: answerWithin}
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		until, ok := ctx.Deadline()
		if !ok {
			until = time.Now().Add(answerWithin)
		}
		// The library lifts this deadline once the handshake is done.
		return conn, conn.SetDeadline(until)
	}
	return amqp.DialConfig(amqpURL, amqp.Config{Dial: dial, Heartbeat: 10 * time.Second})
}

// waitFor calls probe until it succeeds. It gives up when the server's process
// has ended, with the end of its log in the error, or when ctx has.
func waitFor(ctx context.Context, what string, p process, logPath string, probe func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for {
		once, stop := context.WithTimeout(ctx, answerWithin)
		err := probe(once)
		stop()
		switch {
		case err == nil:
			return nil
		case !p.alive():
			return fmt.Errorf("devstack: %s ended while starting; the end of %s:\n%s", what, logPath, tail(logPath))
		case ctx.Err() != nil:
			return fmt.Errorf("devstack: %s is not ready (%w); last probe: %w; its log is %s", what, ctx.Err(), err, logPath)
		}
		select {
		case <-ctx.Done():
		case <-time.After(readyPoll):
		}
	}
}

// address is the host and port of a URL, which unlike the URL may be logged.
func address(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil || u.Host == "" {
		return "the given address"
	}
	return u.Host
}
