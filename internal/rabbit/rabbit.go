// Package rabbit is all that Writ knows of AMQP: connection, topology, publish,
// consume, and the frames that carry hints. It knows nothing of Postgres.
//
// A Publisher and a Consumer each keep a connection of their own, so that an
// alarm that stops publishing does not stop acks. Both are supervised: a lost
// connection is dialled again, with jittered backoff from 100 ms to 5 s, until
// they are closed.
//
// One bad queue or message does not stop the rest for long: a queue that cannot
// be consumed is set aside and retried, at most a minute apart.
//
// Nothing here is lost or repeated by guess, because nothing here is the truth:
// a message whose fate is Unknown stays in the outbox and is published again,
// and a delivery that was not acked is delivered again. Both are harmless, as a
// message is only a hint.
//
// No error and no log line holds a credential.
package rabbit

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"strconv"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"
)

// The defaults of Config, and the limits that nobody has needed to tune.
const (
	defaultName           = "writ"
	defaultWriteTimeout   = 10 * time.Second
	defaultConfirmTimeout = 5 * time.Second

	heartbeat    = 10 * time.Second
	dialTimeout  = 10 * time.Second // TCP, TLS and the AMQP handshake together
	closeTimeout = 2 * time.Second  // the closing handshake, after which the socket is just closed
)

// Config says how to reach the broker. The zero value of each field but URL is
// its default; a negative duration is refused.
type Config struct {
	// URL is an AMQP URI: amqp://user:password@host:port/vhost, or amqps:// for
	// TLS, which verifies the host's name. Of its query parameters, cacertfile,
	// certfile, keyfile, server_name_indication, auth_mechanism, channel_max and
	// heartbeat count. Required. It is never logged; see Redact.
	URL string
	// Name is shown by the broker as the connection's name. Default: "writ".
	Name string
	// WriteTimeout bounds each write to the socket. A broker in alarm stops reading
	// from publishers, so without it a write could block for ever. A write that
	// runs into it ends the connection. Default: 10 s.
	WriteTimeout time.Duration
	// ConfirmTimeout bounds the wait for an answer of the broker: for the confirms
	// of one window of messages, and for each request such as declaring a queue.
	// Default: 5 s.
	ConfirmTimeout time.Duration
	// Log receives connections made and lost, at most one line for each. Default:
	// discarded.
	Log *slog.Logger
}

// withDefaults checks the config and fills in what is not set. The error joins
// every fault found.
func (c Config) withDefaults() (Config, error) {
	var errs []error
	if _, err := amqp.ParseURI(c.URL); err != nil {
		// The cause would quote the URI, password and all.
		errs = append(errs, errors.New("rabbit: Config.URL is not an AMQP URI; it should look like amqp://user:password@host:5672/vhost, with reserved characters percent-encoded"))
	}
	for name, d := range map[string]time.Duration{"WriteTimeout": c.WriteTimeout, "ConfirmTimeout": c.ConfirmTimeout} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("rabbit: Config.%s is %v; it must not be negative", name, d))
		}
	}
	if c.Name == "" {
		c.Name = defaultName
	}
	if c.WriteTimeout == 0 {
		c.WriteTimeout = defaultWriteTimeout
	}
	if c.ConfirmTimeout == 0 {
		c.ConfirmTimeout = defaultConfirmTimeout
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, errors.Join(errs...)
}

// Redact returns an AMQP URI without user, password and parameters, for logs
// and error messages. Of what is not an AMQP URI it returns nothing.
func Redact(uri string) string {
	u, err := amqp.ParseURI(uri)
	if err != nil {
		return "(not an AMQP URI)"
	}
	vhost := u.Vhost
	if vhost != "/" {
		vhost = "/" + vhost
	}
	return u.Scheme + "://" + net.JoinHostPort(u.Host, strconv.Itoa(u.Port)) + vhost
}

// maxShortstr is the most bytes AMQP can carry in a queue, exchange, routing key
// or header name.
const maxShortstr = 255

// QueueName is the broker's name of an installation's queue:
// "writ.<first 8 hex digits of the installation>.v1.<queue>". It carries a
// version because a queue's arguments cannot be changed once it exists. The
// error says what is wrong with the queue's name: it must be 1 to 238 bytes of
// letters, digits, and "._:-".
func QueueName(installation uuid.UUID, queue string) (string, error) {
	name := "writ." + installation.String()[:8] + ".v1." + queue
	switch {
	case queue == "":
		return "", errors.New("rabbit: empty queue name")
	case len(name) > maxShortstr:
		return "", fmt.Errorf("rabbit: queue name of %d bytes; at most %d", len(queue), maxShortstr-(len(name)-len(queue)))
	}
	for i := range len(queue) {
		if !isQueueByte(queue[i]) {
			return "", fmt.Errorf("rabbit: queue name %q holds a byte other than letters, digits and \"._:-\"", queue)
		}
	}
	return name, nil
}

func isQueueByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == ':' || c == '-'
}

// declareArgs make every queue a quorum queue: it survives the loss of a node,
// and mirrored classic queues are gone from RabbitMQ 4.0. There are no other
// arguments, because tunables belong in policies, which can be changed.
func declareArgs() amqp.Table {
	return amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum}
}

// eventArgs are those of a queue of events, which nobody writes again: since RabbitMQ 4.0 a quorum queue without a limit
// deletes what was delivered 20 times, and connections that break count.
func eventArgs() amqp.Table {
	args := declareArgs()
	args["x-delivery-limit"] = int32(math.MaxInt32)
	return args
}
