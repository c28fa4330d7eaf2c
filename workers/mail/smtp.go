package mail

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"github.com/wneessen/go-mail/smtp"

	"github.com/writhq/writ/workers"
)

// goodbye is how long a server that has taken the mail is waited for.
const goodbye = time.Second

// conversation is a connection to the mail server. It ends when its context does.
type conversation struct {
	conn   net.Conn
	smtp   *smtp.Client
	body   io.WriteCloser
	unhook func() bool
}

// dial connects, greets, encrypts and logs in. Nothing has been said of any mail when it fails.
func (m *mailer[T]) dial(ctx context.Context) (*conversation, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", m.cfg.Server)
	if err != nil {
		return nil, err
	}
	c := &conversation{conn: conn, unhook: context.AfterFunc(ctx, func() { conn.Close() })}
	if err := m.greet(ctx, c); err != nil {
		c.cut()
		return nil, cmp.Or(context.Cause(ctx), err) // the time that was up, and not the connection that was closed for it
	}
	return c, nil
}

func (m *mailer[T]) greet(ctx context.Context, c *conversation) (err error) {
	settings := m.cfg.TLS.Clone()
	if settings == nil {
		settings = &tls.Config{}
	}
	settings.ServerName = cmp.Or(settings.ServerName, m.host)
	settings.MinVersion = max(settings.MinVersion, tls.VersionTLS12)
	conn := c.conn
	if m.cfg.Security == ImplicitTLS {
		encrypted := tls.Client(conn, settings)
		if err := encrypted.HandshakeContext(ctx); err != nil {
			return err
		}
		conn = encrypted
	}
	if c.smtp, err = smtp.NewClient(conn, m.host); err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	if err := c.smtp.Hello(m.cfg.Hello); err != nil {
		return err
	}
	if m.cfg.Security == StartTLS {
		if err := c.smtp.StartTLS(settings); err != nil {
			return fmt.Errorf("STARTTLS: %w", err)
		}
	}
	if m.cfg.Username == "" {
		return nil
	}
	_, offers := c.smtp.Extension("AUTH")
	login, err := m.login(offers)
	if err == nil {
		err = c.smtp.Auth(login)
	}
	if err != nil {
		return fmt.Errorf("log in as %s: %w", m.cfg.Username, &hiddenError{err, m.withoutPassword(err.Error())})
	}
	return nil
}

// withoutPassword is a text of the server's without the password, bare or as it was sent: some repeat a line that they refuse, and
// errors are stored and shown to many.
func (m *mailer[T]) withoutPassword(text string) string {
	for _, secret := range []string{
		base64.StdEncoding.EncodeToString([]byte("\x00" + m.cfg.Username + "\x00" + m.cfg.Password)), // PLAIN
		base64.StdEncoding.EncodeToString([]byte(m.cfg.Password)),                                    // LOGIN
		m.cfg.Password,
	} {
		text = strings.ReplaceAll(text, secret, "[…]")
	}
	return text
}

// hiddenError is an error with another text.
type hiddenError struct {
	error
	text string
}

func (e *hiddenError) Error() string { return e.text }
func (e *hiddenError) Unwrap() error { return e.error }

func (m *mailer[T]) login(offers string) (smtp.Auth, error) {
	mechanisms := strings.Fields(strings.ToUpper(offers))
	switch {
	case slices.Contains(mechanisms, "PLAIN"):
		return smtp.PlainAuth("", m.cfg.Username, m.cfg.Password, m.host, false), nil
	case slices.Contains(mechanisms, "LOGIN"):
		return smtp.LoginAuth(m.cfg.Username, m.cfg.Password, m.host, false), nil
	case slices.Contains(mechanisms, "CRAM-MD5"):
		return smtp.CRAMMD5Auth(m.cfg.Username, m.cfg.Password), nil
	}
	return nil, fmt.Errorf("the server offers %q, and not PLAIN, LOGIN or CRAM-MD5", offers)
}

// offer says all of the mail but the line that ends it: no server may take it yet.
func (c *conversation) offer(l letter) error {
	if err := c.smtp.Mail(l.from); err != nil {
		return refusal("sender "+l.from, err)
	}
	for _, to := range l.to {
		if err := c.smtp.Rcpt(to); err != nil {
			return refusal("recipient "+to, err)
		}
	}
	body, err := c.smtp.Data()
	if err != nil {
		return refusal("the mail", err)
	}
	c.body = body
	if _, err := body.Write(l.text); err != nil {
		return workers.NotDone(fmt.Errorf("mail: cut off before its end: %w", err))
	}
	return nil
}

// finish says the line that ends the mail, and hears what became of it.
func (c *conversation) finish() error {
	err := c.body.Close()
	var answer *textproto.Error
	switch {
	case err == nil || errors.As(err, &answer) && answer.Code/100 == 2:
		c.leave()
		return nil
	case answer != nil && (answer.Code/100 == 4 || answer.Code/100 == 5):
		return refusal("the mail", err)
	}
	return workers.Unknown(fmt.Errorf("mail: no answer after its end: %w", err))
}

// refusal is what an error says before the end of the mail, or an answer after it.
func refusal(what string, err error) error {
	var answer *textproto.Error
	if !errors.As(err, &answer) {
		return workers.NotDone(fmt.Errorf("mail: %s: cut off: %w", what, err))
	}
	refused := fmt.Errorf("mail: %s: the server says %w", what, err)
	switch {
	case answer.Code/100 != 5:
		return workers.NotDone(refused)
	case slices.Contains([]int{530, 534, 535, 538}, answer.Code): // about the login, not about this mail
		return workers.NotDone(refused)
	}
	return workers.Stop(refused)
}

// leave says goodbye after the mail was taken; that it may fail is of no interest.
func (c *conversation) leave() {
	_ = c.conn.SetDeadline(time.Now().Add(goodbye))
	_ = c.smtp.Quit()
}

// cut closes the connection without a word: any other line after the beginning of a mail would end it first, and so send
// the part that is there.
func (c *conversation) cut() {
	c.unhook()
	c.conn.Close()
}
