package mail_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/writhq/writ/workers/mail"
)

// script is a mail server that says what it is told to, by the line that it answers: connect, EHLO, MAIL, RCPT, DATA, and end for
// the line that ends a mail. What is not in it is answered well.
type script map[string]string

// Other than answers:
const (
	cut  = "cut"  // closes the connection
	hang = "hang" // says nothing, and keeps it
)

// played is a running script.
type played struct {
	net.Listener
	mu    sync.Mutex
	lines []string // that clients said, mails aside
	ended int      // mails whose last line came
}

func (p *played) said(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines = append(p.lines, line)
}

func (p *played) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

// play serves by a script until the test ends.
func play(t *testing.T, s script) *played {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &played{Listener: l}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer context.AfterFunc(ctx, func() { c.Close() })()
				defer c.Close()
				p.talk(c, s)
			})
		}
	})
	t.Cleanup(func() {
		stop()
		l.Close()
		wg.Wait()
	})
	return p
}

func (p *played) talk(c net.Conn, s script) {
	r := bufio.NewReader(c)
	answer := func(at, well string) bool {
		said, ok := s[at]
		if !ok {
			said = well
		}
		switch said {
		case cut:
			return false
		case hang:
			_, _ = io.Copy(io.Discard, r)
			return false
		}
		_, err := io.WriteString(c, said+"\r\n")
		return err == nil
	}
	if !answer("connect", "220 ready") {
		return
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		p.said(strings.TrimSpace(line))
		verb := strings.ToUpper(strings.TrimSpace(line[:4]))
		well := map[string]string{"EHLO": "250-mail.example\r\n250 8BITMIME", "DATA": "354 go ahead", "QUIT": "221 bye", "STAR": "502 no such thing"}[verb]
		if well == "" {
			well = "250 fine"
		}
		if !answer(verb, well) || verb == "QUIT" {
			return
		}
		if verb == "DATA" && s["DATA"] == "" && (!p.mail(r, s) || !answer("end", "250 taken")) {
			return
		}
	}
}

// mail reads a mail up to its last line; false: it was cut off, by the client or by the script.
func (p *played) mail(r *bufio.Reader, s script) bool {
	if s["body"] == cut {
		_, _ = io.CopyN(io.Discard, r, 100)
		return false
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return false
		}
		if line == ".\r\n" {
			p.mu.Lock()
			p.ended++
			p.mu.Unlock()
			return true
		}
	}
}

// postOffice is a real mail server, with a certificate and a login.
type postOffice struct {
	addr     string
	settings *tls.Config // for clients: they know who signed the certificate
	mu       sync.Mutex
	mails    []posted
}

type posted struct {
	from string
	to   []string
	text string
}

// openPostOffice serves until the test ends: encrypted from the first byte with ImplicitTLS, else after STARTTLS.
func openPostOffice(t *testing.T, security mail.Security) *postOffice {
	t.Helper()
	known := httptest.NewTLSServer(nil)
	known.Close()
	o := &postOffice{settings: &tls.Config{RootCAs: known.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}}
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &clerk{office: o}, nil }))
	server.Domain, server.EnableSMTPUTF8 = "mail.example", true
	server.TLSConfig = &tls.Config{Certificates: known.TLS.Certificates}
	server.ErrorLog = log.New(io.Discard, "", 0)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.addr = l.Addr().String()
	if security == mail.ImplicitTLS {
		l = tls.NewListener(l, server.TLSConfig)
	}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-served })
	return o
}

// clerk is one connection to the post office.
type clerk struct {
	office *postOffice
	known  bool
	posted
}

func (c *clerk) AuthMechanisms() []string { return []string{sasl.Plain} }

func (c *clerk) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != "ann" || password != "right" {
			said := base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
			return &smtp.SMTPError{Code: 535, Message: "who is that? AUTH PLAIN " + said + " with " + password} // as some do
		}
		c.known = true
		return nil
	}), nil
}

func (c *clerk) Mail(from string, _ *smtp.MailOptions) error {
	if !c.known {
		return &smtp.SMTPError{Code: 530, Message: "log in first"}
	}
	c.from = from
	return nil
}

func (c *clerk) Rcpt(to string, _ *smtp.RcptOptions) error {
	c.to = append(c.to, to)
	return nil
}

func (c *clerk) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	c.text = string(raw)
	c.office.mu.Lock()
	defer c.office.mu.Unlock()
	c.office.mails = append(c.office.mails, c.posted)
	return nil
}

func (c *clerk) Reset()        { c.posted = posted{} }
func (c *clerk) Logout() error { return nil }
