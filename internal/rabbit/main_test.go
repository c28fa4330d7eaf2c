package rabbit

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv("AMQP_URL") == "" {
		fmt.Fprintln(os.Stderr, "internal/rabbit: no broker to test with: set AMQP_URL, or run make test")
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// brokerURL is the shared broker's, by way of another address if one is given.
func brokerURL(t testing.TB, addr ...string) string {
	t.Helper()
	u, err := url.Parse(os.Getenv("AMQP_URL"))
	if err != nil {
		t.Fatal("AMQP_URL is not a URL")
	}
	for _, a := range addr {
		u.Host = a
	}
	return u.String()
}

// deadline is a context that ends a test which hangs.
func deadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// admin is a plain connection to the broker, with queues of this test alone.
type admin struct {
	t            testing.TB
	conn         *amqp.Connection
	Installation uuid.UUID
}

func newAdmin(t testing.TB) *admin { return newAdminAt(t, brokerURL(t)) }

func newAdminAt(t testing.TB, uri string) *admin {
	t.Helper()
	conn, err := amqp.Dial(uri)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &admin{t: t, conn: conn, Installation: uuid.New()}
}

// do runs f on a channel of its own.
func (a *admin) do(f func(*amqp.Channel) error) {
	a.t.Helper()
	ch, err := a.conn.Channel()
	if err != nil {
		a.t.Fatal(err)
	}
	defer func() { _ = ch.Close() }()
	if err := f(ch); err != nil {
		a.t.Fatal(err)
	}
}

// name reserves a queue name, to be deleted when the test ends.
func (a *admin) name(queue string) string {
	a.t.Helper()
	name, err := QueueName(a.Installation, queue)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { a.delete(name) })
	return name
}

// look tells of a queue; of one that does not exist, nothing.
func (a *admin) look(queue string) (q amqp.Queue) {
	a.t.Helper()
	a.do(func(ch *amqp.Channel) error {
		q, _ = ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		return nil
	})
	return q
}

func (a *admin) delete(name string) {
	a.t.Helper()
	a.do(func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete(name, false, false, false)
		return err
	})
}

// declare creates a queue as the consumer would, or with other arguments.
func (a *admin) declare(queue string, args ...amqp.Table) string {
	a.t.Helper()
	name, table := a.name(queue), declareArgs()
	for _, other := range args {
		table = other
	}
	a.do(func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(name, true, false, false, false, table)
		return err
	})
	return name
}

// put publishes texts to a queue and waits for the confirms.
func (a *admin) put(queue string, texts ...string) {
	a.t.Helper()
	a.do(func(ch *amqp.Channel) error {
		if err := ch.Confirm(false); err != nil {
			return err
		}
		for _, text := range texts {
			c, err := ch.PublishWithDeferredConfirm("", queue, true, false, amqp.Publishing{Body: []byte(text), DeliveryMode: amqp.Persistent})
			if err != nil {
				return err
			}
			if !c.Wait() {
				return fmt.Errorf("put %q: not confirmed", text)
			}
		}
		return nil
	})
}

// eventually waits for what cannot be waited for in any other way.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(30 * time.Second)
	defer late.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-late.C:
			t.Fatalf("never: %s", what)
		}
	}
}

func noSecret(t testing.TB, text, secret string) {
	t.Helper()
	if strings.Contains(text, secret) {
		t.Errorf("the secret is in %q", text)
	}
}

// testLog writes to the test's output, which is shown if it fails.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}
