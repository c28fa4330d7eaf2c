package matrix

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	netmail "net/mail"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/google/uuid"
	gomail "github.com/wneessen/go-mail"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/workers"
	"github.com/writhq/writ/workers/mail"
	"github.com/writhq/writ/workers/probe"
	"github.com/writhq/writ/workers/webhook"
)

// Kinds with ready-made handlers. The ledger is the receiver of the one's requests, and of the other's mails.
var (
	hooked = intent.Kind[task]{Name: "matrix.job.hook", Queue: queue, Timeout: 30 * time.Second}
	mailed = intent.Kind[task]{Name: "matrix.job.mail", Queue: queue, Timeout: 30 * time.Second}
)

const domain = "matrix.example"

// deliver registers them.
func deliver(mux *workers.Mux, s servers, out recorder) error {
	hook, err := webhook.New(webhook.Config[task]{
		PlainHTTP: true, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Request: func(_ context.Context, job *workers.Job[task]) (*webhook.Request, error) {
			return &webhook.Request{URL: s.Ledger + "/hook/" + job.Args.Script[0], Body: entry{job.ID(), job.Epoch(), job.WorkerID()}}, nil
		},
	})
	if err != nil {
		return err
	}
	post, err := mail.New(mail.Config[task]{
		Server: s.Mail, Security: mail.Plaintext, Domain: domain,
		Compose: func(_ context.Context, job *workers.Job[task]) (*gomail.Msg, error) {
			m := gomail.NewMsg()
			if err := m.From("writ@" + domain); err != nil {
				return nil, err
			}
			if err := m.To(job.Args.Script[0] + "@" + domain); err != nil {
				return nil, err
			}
			m.SetGenHeader("X-Epoch", strconv.Itoa(job.Epoch()))
			m.SetGenHeader("X-Worker", job.WorkerID().String())
			m.SetBodyString(gomail.TypeTextPlain, "done")
			return m, nil
		},
		Log: &probe.MailLogConfig[task]{Path: s.MailLog, Line: func(line string) probe.Line {
			at, id, _ := strings.Cut(line, " ")
			when, _ := time.Parse(time.RFC3339Nano, at)
			return probe.Line{At: when, MessageID: id, Taken: true}
		}},
	})
	if err != nil {
		return err
	}
	for kind, h := range map[*intent.Kind[task]]workers.Handler[task]{&hooked: hook, &mailed: post} {
		do := h.Do
		h.Do = func(ctx context.Context, job *workers.Job[task]) error {
			if err := out.record(ctx, started, entry{job.ID(), job.Epoch(), job.WorkerID()}); err != nil {
				return workers.NotDone(err)
			}
			return do(ctx, job)
		}
		workers.Handle(mux, *kind, h)
	}
	return nil
}

// hook is the ledger as a receiver of requests.
func (l *ledger) hook(w http.ResponseWriter, r *http.Request) {
	var e entry
	if err := json.NewDecoder(r.Body).Decode(&e); err != nil || r.Header.Get("Idempotency-Key") != e.ID.String() {
		http.Error(w, fmt.Sprintf("key %q of %v, %v", r.Header.Get("Idempotency-Key"), e.ID, err), http.StatusBadRequest)
		return
	}
	l.note(effected, e)
	if r.PathValue("word") == hold {
		select {
		case <-l.released:
		case <-r.Context().Done():
		}
	}
}

// postOffice is the ledger as a mail server: it notes each mail that it takes, in its log as well, before it says so.
type postOffice struct {
	ledger *ledger
	log    string
}

func (p *postOffice) NewSession(*smtp.Conn) (smtp.Session, error) { return &posting{office: p}, nil }

type posting struct {
	office *postOffice
	to     string
}

func (s *posting) Mail(string, *smtp.MailOptions) error      { return nil }
func (s *posting) Rcpt(to string, _ *smtp.RcptOptions) error { s.to = to; return nil }
func (s *posting) Reset()                                    {}
func (s *posting) Logout() error                             { return nil }
func (s *posting) Data(r io.Reader) error {
	m, err := netmail.ReadMessage(r)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, m.Body); err != nil {
		return err
	}
	message := strings.Trim(m.Header.Get("Message-ID"), "<>")
	key, _, _ := strings.Cut(message, "@")
	var e entry
	if e.ID, err = uuid.Parse(key); err == nil {
		if e.Worker, err = uuid.Parse(m.Header.Get("X-Worker")); err == nil {
			e.Epoch, err = strconv.Atoi(m.Header.Get("X-Epoch"))
		}
	}
	if err != nil {
		return err
	}
	f, err := os.OpenFile(s.office.log, os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s %s\n", time.Now().UTC().Format(time.RFC3339Nano), message)
	if err := f.Close(); err != nil {
		return err
	}
	s.office.ledger.note(effected, e)
	if strings.HasPrefix(s.to, hold+"@") {
		<-s.office.ledger.released
	}
	return err
}

// openPost opens the world's post office, and makes its kinds known.
func (w *world) openPost() {
	w.t.Helper()
	w.db.Run(w.t, "INSERT INTO writ.kinds (name, queue, class) VALUES ($1, $3, 'manual'), ($2, $3, 'probed')", hooked.Name, mailed.Name, queue)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	path := filepath.Join(w.t.TempDir(), "mail.log")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		w.t.Fatal(err)
	}
	server := smtp.NewServer(&postOffice{w.ledger, path})
	server.Domain, server.ErrorLog = domain, log.New(io.Discard, "", 0) // clients that are killed are the matter
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(l) }()
	w.t.Cleanup(func() { w.ledger.release(); server.Close(); <-ended })
	w.straight.Mail, w.straight.MailLog = l.Addr().String(), path
	w.faulty.Mail, w.faulty.MailLog = w.straight.Mail, path
}

// handing: a ready-made handler's outcome breaks on its way to the database.
func handing(kind intent.Kind[task], m moment, want end) scenario {
	return func(_ *testing.T, w *world) {
		w.openPost()
		id := w.strikeWork(m, sends, kind, done)
		w.restsAt(id, want)
	}
}

// unanswered: the worker is killed when the other side has it, and has not said so.
func unanswered(kind intent.Kind[task], want end) scenario {
	return func(t *testing.T, w *world) {
		w.openPost()
		dying(kind, want)(t, w)
	}
}

// publication: the application's transaction that publishes an event breaks; it cannot know whether it did, and publishes it
// again under the same id.
func publication(m moment) scenario {
	return func(t *testing.T, w *world) {
		w.openEvents()
		w.start(relay, w.straight)
		w.start(worker, w.straight)
		w.start(subscriber, w.straight)
		o := order{ID: intent.NewID(), Verb: publishes, Event: w.straight.Event}
		w.strikeOnce(decider, m, publishes, o)
		if !m.applied {
			if _, err := carryOut(context.Background(), decider, w.straight.Database, o); err != nil {
				t.Fatal(err)
			}
		}
		w.followsOnce(o.ID) // which publishes it again, too
	}
}
