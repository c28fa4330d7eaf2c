package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	"github.com/writhq/writ/workers"
)

// compose makes the mail for a comment. Names and texts come from strangers: go-mail encodes what would break a header,
// and line breaks are taken out of the subject besides.
func compose(c posted, key string) (*mail.Msg, error) {
	m := mail.NewMsg()
	if err := errors.Join(m.FromFormat("The blog", "blog@comments.example"), m.To(c.To)); err != nil {
		return nil, fmt.Errorf("address: %w", err)
	}
	m.SetMessageIDWithValue(key + "@comments.example")
	m.Subject(strings.Join(strings.Fields(fmt.Sprintf("%s commented on %s", c.Author, c.Title)), " "))
	m.SetBodyString(mail.TypeTextPlain, c.Text)
	return m, nil
}

// Mailer is an SMTP server's address, host:port.
type Mailer string

// Dial connects and says hello. Nothing has been sent when it fails.
func (addr Mailer) Dial(ctx context.Context) (*Mail, error) {
	host, port, err := net.SplitHostPort(string(addr))
	if err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	m := &Mail{}
	m.client, err = mail.NewClient(host, mail.WithPort(number), mail.WithTLSPolicy(mail.NoTLS), mail.WithHELO("worker.blog.example"),
		mail.WithDialContextFunc(func(ctx context.Context, network, addr string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, network, addr)
			m.conn = conn
			return conn, err
		}))
	if err != nil {
		return nil, err
	}
	if m.smtp, err = m.client.DialToSMTPClientWithContext(ctx); err != nil {
		m.Close()
		return nil, fmt.Errorf("connect to the mail server: %w", err)
	}
	return m, nil
}

// Mail is one connection to the mail server.
type Mail struct {
	client *mail.Client
	smtp   *smtp.Client
	conn   net.Conn
}

// Send hands a message over and says what became of it: nil when the server has taken it; [workers.Stop] and
// [workers.NotDone] when it said no, for good or for now, or was never given the text; any other error leaves it open,
// because the text was on its way and no answer came. It returns when ctx ends.
func (m *Mail) Send(ctx context.Context, msg *mail.Msg) error {
	// go-mail has deadlines, but no context, from here on.
	defer context.AfterFunc(ctx, func() { m.conn.Close() })()
	err := m.client.SendWithSMTPClient(m.smtp, msg)
	if err == nil || msg.IsDelivered() {
		return nil // trouble after the server's 250 changes nothing
	}
	var failed *mail.SendError
	if !errors.As(err, &failed) {
		return err
	}
	switch code := failed.ErrorCode(); {
	case code >= 500:
		return workers.Stop(err)
	case code >= 400:
		return workers.NotDone(err)
	case failed.Reason == mail.ErrWriteContent || failed.Reason == mail.ErrSMTPDataClose:
		return err // the connection broke after DATA: nobody knows
	}
	return workers.NotDone(err)
}

// Close says goodbye; that it may fail is of no interest to anybody.
func (m *Mail) Close() {
	if m.smtp != nil {
		_ = m.client.CloseWithSMTPClient(m.smtp)
	}
	if m.conn != nil {
		m.conn.Close()
	}
}
