package rabbit

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestConfig_Defaults(t *testing.T) {
	t.Parallel()
	got, err := ConsumerConfig{Config: Config{URL: "amqp://"}}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "writ" || got.WriteTimeout != 10*time.Second || got.ConfirmTimeout != 5*time.Second || got.Log == nil || got.Prefetch != 64 || got.Buffer != 256 {
		t.Errorf("got %+v", got)
	}
}

func TestConfig_ReportsEveryFault(t *testing.T) {
	t.Parallel()
	bad := ConsumerConfig{
		Config:   Config{URL: "amqp://user:s3cret@host:port%/", WriteTimeout: -1, ConfirmTimeout: -1},
		Queues:   []string{""},
		Prefetch: 65536, Buffer: -1,
	}
	_, err := NewConsumer(bad)
	if err == nil {
		t.Fatal("accepted")
	}
	for _, name := range []string{"Config.URL", "WriteTimeout", "ConfirmTimeout", "Prefetch", "Buffer", "queue name"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%q is not in %q", name, err)
		}
	}
	noSecret(t, err.Error(), "s3cret")
	if _, err := NewPublisher(bad.Config); err == nil {
		t.Error("publisher: accepted")
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	for uri, want := range map[string]string{
		"amqp://user:s3cret@host:1234/v":           "amqp://host:1234/v",
		"amqps://user:s3cret@host?cacertfile=/x":   "amqps://host:5671/",
		"amqp://user:s3cret@[::1]/%2f":             "amqp://[::1]:5672/",
		"amqp://user:s3%zz@host":                   "(not an AMQP URI)",
		"postgres://user:s3cret@host:1234/v":       "(not an AMQP URI)",
		"amqp://user:s3cret@host:1234/v heartbeat": "(not an AMQP URI)",
	} {
		if got := Redact(uri); got != want {
			t.Errorf("%s: got %s, want %s", uri, got, want)
		}
	}
}

func TestQueueName(t *testing.T) {
	t.Parallel()
	id := uuid.MustParse(someID)
	got, err := QueueName(id, "mail.hi")
	if got != "writ.01990f3e.v1.mail.hi" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := QueueName(id, strings.Repeat("q", 238)); len(got) != 255 || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	for _, bad := range []string{"", strings.Repeat("q", 239), "a b", "a\n", "ü", "a*"} {
		if got, err := QueueName(id, bad); err == nil {
			t.Errorf("%q: got %q", bad, got)
		}
	}
}

func TestDial_WrongPasswordIsNotShown(t *testing.T) {
	t.Parallel()
	u, _ := url.Parse(brokerURL(t))
	u.User = url.UserPassword(u.User.Username(), "s3cret")
	p, err := NewPublisher(Config{URL: u.String()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	_, err = p.Publish(deadline(t), []Message{to("x")})
	if !errors.Is(err, ErrDisconnected) {
		t.Errorf("got %v", err)
	}
	noSecret(t, err.Error(), "s3cret")
	noSecret(t, p.State().Reason, "s3cret")
}

// silent accepts connections and says nothing.
func silent(t *testing.T) (uri string, accepted chan net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted = make(chan net.Conn, 16)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
		close(accepted)
		for c := range accepted {
			_ = c.Close()
		}
	})
	return "amqp://" + l.Addr().String(), accepted
}

func TestDial_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	uri, accepted := silent(t)
	cfg, err := Config{URL: uri}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(deadline(t))
	go func() {
		c := <-accepted
		cancel()
		_, _ = c.Read(make([]byte, 1<<10))
		_ = c.Close()
	}()
	if _, err := dial(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestClose_DuringTheHandshake(t *testing.T) {
	t.Parallel()
	uri, accepted := silent(t)
	p, err := NewPublisher(Config{URL: uri})
	if err != nil {
		t.Fatal(err)
	}
	c := <-accepted
	defer func() { _ = c.Close() }()
	published := make(chan error)
	go func() {
		_, err := p.Publish(context.Background(), []Message{to("x")})
		published <- err
	}()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := <-published; !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}
