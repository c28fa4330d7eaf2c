package mailserver

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"time"

	"github.com/emersion/go-smtp"
)

// Server takes mail by SMTP and puts it into a mailbox. Make it with [New].
type Server struct {
	box    *Mailbox
	faults faults
}

// New returns a server that takes everything until an [Order] says otherwise.
func New(box *Mailbox) *Server { return &Server{box: box} }

// Serve takes mail until ctx ends; then it cuts all connections, which is what a crash looks like to a client.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		if err := s.box.Note("connection from " + c.Conn().RemoteAddr().String()); err != nil {
			return nil, err
		}
		return &session{server: s, conn: c.Conn()}, nil
	}))
	server.Domain = "mail.example"
	server.MaxMessageBytes = 1 << 20
	server.MaxRecipients = 10
	server.EnableSMTPUTF8 = true
	server.ReadTimeout, server.WriteTimeout = time.Minute, time.Minute
	server.ErrorLog = log.New(io.Discard, "", 0) // clients that go away are part of the story
	defer context.AfterFunc(ctx, func() { server.Close() })()
	err := server.Serve(l)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// session is one connection. go-smtp calls its methods one after the other.
type session struct {
	server *Server
	conn   net.Conn
	to     string
}

var (
	errLater = &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 2}, Message: "not now, please try again later"}
	errNoBox = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such mailbox here"}
	errDrop  = errors.New("the connection is cut")
)

func (s *session) Mail(string, *smtp.MailOptions) error { return s.server.faults.mail() }

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = to
	return s.server.faults.rcpt(to)
}

func (s *session) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	err = s.server.faults.data(s.to, func() error { return s.server.box.Store(s.to, raw) })
	if errors.Is(err, errDrop) {
		s.conn.Close()
	}
	return err
}

func (s *session) Reset()        { s.to = "" }
func (s *session) Logout() error { return nil }
