// Package mail is a ready-made handler that sends an intent as a mail over SMTP: the Message-ID is the idempotency key,
// every answer of the server is mapped to what it says of the mail, and what nobody knows can be looked up in the server's
// log.
package mail

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/wneessen/go-mail"

	"github.com/writhq/writ/workers"
	"github.com/writhq/writ/workers/probe"
)

// Config of a handler. Zero fields mean the defaults.
type Config[T any] struct {
	// Server is the mail server's address, host:port. Required. Hand mails to a server of your own that queues them: what it
	// says is about taking the mail, and its log is what the probe reads.
	Server string

	// Security of the connection. Default StartTLS.
	Security Security

	// TLS settings. Default: the system's certificate authorities, and Server's host name.
	TLS *tls.Config

	// Username and Password to log in with, by PLAIN, LOGIN or CRAM-MD5, whichever the server offers first in this order; never
	// on a connection that is not encrypted. Default: no login.
	Username, Password string

	// Hello is the name to greet with. Default: the host's.
	Hello string

	// Domain is what stands right of the @ in Message-IDs: one of yours. Required.
	Domain string

	// Compose makes the mail of a job, anew for each attempt. Its Message-ID is set here. Nothing has been sent when it
	// returns an error: the job is tried again, or with workers.Stop ends in error. Required.
	Compose func(ctx context.Context, job *workers.Job[T]) (*mail.Msg, error)

	// Receipt runs in the transaction that records the intent as sent, for the application's own rows; or, where only the probe
	// or a person could say that the mail was taken, in one soon after that (Handler.OnHappened). Default: none.
	Receipt func(ctx context.Context, tx pgx.Tx, job *workers.Job[T]) error

	// Log is the server's log, for the probe. Its Wake is filled in if it is nil and Security is not ImplicitTLS: the server
	// is greeted, which it logs. Default: no probe, so what nobody knows waits for a person.
	Log *probe.MailLogConfig[T]
}

// Security of a connection to a mail server.
type Security int

// The ways to secure a connection.
const (
	StartTLS    Security = iota // encrypted after the greeting; a server that does not offer it gets nothing
	ImplicitTLS                 // encrypted from the first byte, as on port 465
	Plaintext                   // not encrypted: for a server on the same machine
)

// New returns a handler for workers.Handle; Probing and OnError can be added to it. Faults of the config are returned all at
// once.
//
// Each mail has a connection of its own. The effect is entered with the line that ends the mail, for until then no server
// may take it:
//
//	250 after that line                        done
//	4xx, to any line                           not done: tried again
//	5xx to the sender, a recipient, or the mail  stopped: ends in error; if it is about the login (530, 534, 535, 538), not done
//	5xx before that, to greeting or login      not done: it says nothing of this mail
//	no connection, or cut or silent before it  not done
//	cut or silent after it                     nobody knows: the probe looks, or a person
//
// One recipient that is refused is enough for the mail not to be sent to anybody.
func New[T any](cfg Config[T]) (workers.Handler[T], error) {
	var faults []error
	host, _, err := net.SplitHostPort(cfg.Server)
	if err != nil || host == "" {
		faults = append(faults, fmt.Errorf("Config.Server is %q; it must be host:port", cfg.Server))
	}
	if cfg.Security < StartTLS || cfg.Security > Plaintext {
		faults = append(faults, fmt.Errorf("Config.Security is %d; it must be StartTLS, ImplicitTLS or Plaintext", cfg.Security))
	}
	if cfg.Domain == "" {
		faults = append(faults, errors.New("Config.Domain is missing: what stands right of the @ in Message-IDs"))
	}
	if cfg.Compose == nil {
		faults = append(faults, errors.New("Config.Compose is missing"))
	}
	if (cfg.Username == "") != (cfg.Password == "") {
		faults = append(faults, errors.New("Config.Username and Password come together"))
	} else if cfg.Username != "" && cfg.Security == Plaintext {
		faults = append(faults, errors.New("Config.Username and Password are not sent over Plaintext; use StartTLS"))
	}
	m := &mailer[T]{cfg: cfg, host: host}
	handler := workers.Handler[T]{Do: m.do, Effect: workers.EffectMarked, OnHappened: cfg.Receipt}
	if cfg.Log != nil {
		log := *cfg.Log
		if log.Wake == nil && cfg.Security != ImplicitTLS {
			log.Wake = probe.Greet(cfg.Server)
		}
		if handler.Probe, err = probe.MailLog(log); err != nil {
			faults = append(faults, err)
		}
	}
	if err := errors.Join(faults...); err != nil {
		return workers.Handler[T]{}, fmt.Errorf("mail: %w", err)
	}
	if m.cfg.Hello == "" {
		name, err := os.Hostname()
		if err != nil {
			name = ""
		}
		m.cfg.Hello = cmp.Or(name, "localhost")
	}
	return handler, nil
}

type mailer[T any] struct {
	cfg  Config[T]
	host string
}

func (m *mailer[T]) do(ctx context.Context, job *workers.Job[T]) error {
	msg, err := m.cfg.Compose(ctx, job)
	if err != nil {
		return err
	}
	l, err := m.letter(msg, job.Key())
	if err != nil {
		return workers.Stop(fmt.Errorf("mail: %w", err))
	}
	c, err := m.dial(ctx)
	if err != nil {
		return workers.NotDone(fmt.Errorf("mail: connect to %s: %w", m.cfg.Server, err))
	}
	defer c.cut()
	if err := c.offer(l); err != nil {
		return err
	}
	job.Effect(ctx)
	if err := c.finish(); err != nil {
		return err
	}
	if m.cfg.Receipt == nil {
		return nil
	}
	return job.Done(func(ctx context.Context, tx pgx.Tx) error { return m.cfg.Receipt(ctx, tx, job) })
}

// letter is a mail as it goes over the wire.
type letter struct {
	from string
	to   []string
	text []byte
}

// letter writes a mail before a connection is made: what cannot be written down, such as a file to attach that is gone,
// must not end a mail in the middle.
func (m *mailer[T]) letter(msg *mail.Msg, key string) (letter, error) {
	if msg == nil {
		return letter{}, errors.New("Config.Compose returned no mail")
	}
	msg.SetMessageIDWithValue(key + "@" + m.cfg.Domain)
	from, err := msg.GetSender(false)
	if err != nil {
		return letter{}, err
	}
	to, err := msg.GetRecipients()
	if err != nil {
		return letter{}, err
	}
	var text bytes.Buffer
	if _, err := msg.WriteTo(&text); err != nil {
		return letter{}, fmt.Errorf("write the mail: %w", err)
	}
	return letter{from, to, text.Bytes()}, nil
}
