package mail_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	gomail "github.com/wneessen/go-mail"
	"go.uber.org/goleak"

	"github.com/writhq/writ"
	"github.com/writhq/writ/examples/comments/mailserver"
	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
	"github.com/writhq/writ/workers/mail"
	"github.com/writhq/writ/workers/probe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type letterArgs struct {
	To   []string `json:"to"`
	Text string   `json:"text"`
}

// big is a text of more than a megabyte, which is no good argument.
const big = "big"

func compose(_ context.Context, job *workers.Job[letterArgs]) (*gomail.Msg, error) {
	m := gomail.NewMsg()
	if err := errors.Join(m.FromFormat("The shop", "shop@shop.example"), m.To(job.Args.To[0]), m.Bcc(job.Args.To[1:]...)); err != nil {
		return nil, workers.Stop(err)
	}
	m.Subject("Größe")
	text := job.Args.Text
	if text == big {
		text = strings.Repeat("A line of a text that no buffer holds.\n", 1<<15)
	}
	m.SetBodyString(gomail.TypeTextPlain, text)
	return m, nil
}

// rig is a database with Writ running on it.
type rig struct {
	*testkit.DB
	mux *workers.Mux
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{testkit.Database(t), workers.NewMux()}
	r.Run(t, "CREATE TABLE receipts (id uuid)")
	return r
}

// handle registers a kind.
func (r *rig) handle(t *testing.T, kind intent.Kind[letterArgs], cfg mail.Config[letterArgs]) {
	t.Helper()
	cfg.Domain, cfg.Hello = "shop.example", "worker.shop.example"
	if cfg.Compose == nil {
		cfg.Compose = compose
	}
	cfg.Receipt = func(ctx context.Context, tx pgx.Tx, job *workers.Job[letterArgs]) error {
		_, err := tx.Exec(ctx, "INSERT INTO receipts VALUES ($1)", job.ID())
		return err
	}
	h, err := mail.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	workers.Handle(r.mux, kind, h)
}

// begin runs Writ until the test ends.
func (r *rig) begin(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- writ.Run(ctx, r.Pool, testkit.AMQPURL(t), r.mux, writ.Config{Log: testkit.Log(t)}) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func (r *rig) create(t *testing.T, kind intent.Kind[letterArgs], args letterArgs) intent.ID {
	t.Helper()
	c, err := kind.CreateAlone(context.Background(), r.Pool, args, intent.Opts{})
	if err != nil {
		t.Fatal(err)
	}
	return c.ID
}

// await waits until an intent rests, and returns how: its status, and what its log or flag says.
func (r *rig) await(t *testing.T, id intent.ID) (how, lastError string) {
	t.Helper()
	testkit.Until(t, time.Minute, "at rest", func() (bool, string) {
		i, err := intent.Get(context.Background(), r, id)
		if err != nil {
			t.Fatal(err)
		}
		how, lastError = i.Status, ""
		if i.Error != nil {
			lastError = *i.Error
		}
		switch i.Status {
		case "ambiguous":
			how += ": " + *i.FlagReason
		case "error":
			how += ": " + testkit.Value[string](t, r.DB, "SELECT why FROM writ.log WHERE intent_id = $1 ORDER BY id DESC LIMIT 1", id)
		case "sent":
		default:
			return false, i.Status + " " + lastError
		}
		return true, ""
	})
	receipts := testkit.Value[int](t, r.DB, "SELECT count(*) FROM receipts WHERE id = $1", id)
	if want := map[bool]int{true: 1}[how == sent]; receipts != want {
		t.Errorf("%d receipts of a mail that is %s", receipts, how)
	}
	return how, lastError
}

// One attempt each, so that the end tells what the attempt was judged to be.
const (
	sent     = "sent"
	stopped  = "error: stopped"
	notDone  = "error: attempts spent; the last one: not done"
	unknown  = "ambiguous: unknown"
	timedOut = "ambiguous: timeout"
)

// TestHandler: servers that misbehave at each line decide what becomes of the mail.
func TestHandler(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		s     script
		want  string
		ended int // mails whose last line came
	}{
		{"Accepts", script{}, sent, 1},
		{"AcceptsAndIsGone", script{"QUIT": cut}, sent, 1},
		{"AcceptsAndHangs", script{"QUIT": hang}, sent, 1},
		{"AcceptsWithAnotherCode", script{"end": "251 somewhere else"}, sent, 1},
		{"IsOnlyHELO", script{"EHLO": "502 what?"}, sent, 1},
		{"CutsTheGreeting", script{"connect": cut}, notDone, 0},
		{"HangsInsteadOfGreeting", script{"connect": hang}, notDone, 0},
		{"IsBusy", script{"connect": "421 too many connections"}, notDone, 0},
		{"WantsNobody", script{"connect": "554 no service"}, notDone, 0},
		{"IsNoMailServer", script{"connect": "HTTP/1.1 400 Bad Request"}, notDone, 0},
		{"CutsTheSender", script{"MAIL": cut}, notDone, 0},
		{"DefersTheSender", script{"MAIL": "451 later"}, notDone, 0},
		{"RefusesTheSender", script{"MAIL": "550 not you"}, stopped, 0},
		{"WantsALogin", script{"MAIL": "530 who are you?"}, notDone, 0},
		{"DefersTheRecipient", script{"RCPT": "450 greylisted"}, notDone, 0},
		{"RefusesTheRecipient", script{"RCPT": "550 no such mailbox"}, stopped, 0},
		{"RefusesTheMail", script{"DATA": "554 no"}, stopped, 0},
		{"CutsBeforeTheBody", script{"DATA": cut}, notDone, 0},
		{"CutsInTheBody", script{"body": cut}, notDone, 0},
		{"CutsAfterTheBody", script{"end": cut}, unknown, 1},
		{"HangsAfterTheBody", script{"end": hang}, timedOut, 1},
		{"DefersAfterTheBody", script{"end": "452 the disk is full"}, notDone, 1},
		{"RefusesAfterTheBody", script{"end": "552 too much"}, stopped, 1},
		{"AnswersGarbageAfterTheBody", script{"end": "fine!"}, unknown, 1},
		{"GoesDownAfterTheBody", script{"end": "421 shutting down"}, notDone, 1},
		{"CannotEncrypt", nil, notDone, 0}, // and is to
	}
	r := newRig(t)
	kinds, servers := make([]intent.Kind[letterArgs], len(tests)), make([]*played, len(tests))
	for i, tt := range tests {
		servers[i] = play(t, tt.s)
		kinds[i] = intent.Kind[letterArgs]{Name: fmt.Sprintf("shop.mail%d.send", i), MaxAttempts: 1, Timeout: 10 * time.Second}
		if slices.ContainsFunc([]string{tt.s["connect"], tt.s["end"]}, func(s string) bool { return s == hang }) {
			kinds[i].Timeout = 5 * time.Second // for the greeting, or the whole body, of a slow machine
		}
		security := mail.Plaintext
		if tt.s == nil {
			security = mail.StartTLS
		}
		r.handle(t, kinds[i], mail.Config[letterArgs]{Server: servers[i].Addr().String(), Security: security})
	}
	r.begin(t)
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			id := r.create(t, kinds[i], letterArgs{[]string{"ann@blog.example"}, big})
			how, lastError := r.await(t, id)
			if how != tt.want || servers[i].count() != tt.ended {
				t.Errorf("%s (%s), %d mails came to their end; want %s, %d", how, lastError, servers[i].count(), tt.want, tt.ended)
			}
			servers[i].mu.Lock()
			defer servers[i].mu.Unlock()
			if said := strings.Join(servers[i].lines, " "); tt.s == nil && strings.Contains(said, "MAIL") {
				t.Errorf("the client said %q to a server that cannot encrypt", said)
			}
		})
	}
}

// TestHandler_Login: a real server, with encryption.
func TestHandler_Login(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		security mail.Security
		password string
		stranger bool // the client does not know who signed the certificate
		want     string
	}{
		{"StartTLS", mail.StartTLS, "right", false, sent},
		{"ImplicitTLS", mail.ImplicitTLS, "right", false, sent},
		{"WrongPassword", mail.StartTLS, "wrong", false, notDone},
		{"StrangeCertificate", mail.StartTLS, "right", true, notDone},
		{"StrangeCertificateAtOnce", mail.ImplicitTLS, "right", true, notDone},
	}
	r := newRig(t)
	kinds, offices := make([]intent.Kind[letterArgs], len(tests)), make([]*postOffice, len(tests))
	for i, tt := range tests {
		offices[i] = openPostOffice(t, tt.security)
		kinds[i] = intent.Kind[letterArgs]{Name: fmt.Sprintf("shop.mail%d.send", i), MaxAttempts: 1, Timeout: 10 * time.Second}
		cfg := mail.Config[letterArgs]{Server: offices[i].addr, Security: tt.security, Username: "ann", Password: tt.password}
		if !tt.stranger {
			cfg.TLS = offices[i].settings
		}
		r.handle(t, kinds[i], cfg)
	}
	r.begin(t)
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			id := r.create(t, kinds[i], letterArgs{[]string{"ann@blog.example", "bob@blog.example"}, ".\nA dot, and Größe\n.\n"})
			how, lastError := r.await(t, id)
			said := base64.StdEncoding.EncodeToString([]byte("\x00ann\x00" + tt.password))
			if how != tt.want || strings.Contains(lastError, tt.password) || strings.Contains(lastError, said) {
				t.Fatalf("%s (%s); want %s, without the password", how, lastError, tt.want)
			}
			offices[i].mu.Lock()
			defer offices[i].mu.Unlock()
			if how != sent {
				return
			}
			m := offices[i].mails[0]
			if len(offices[i].mails) != 1 || m.from != "shop@shop.example" || !slices.Equal(m.to, []string{"ann@blog.example", "bob@blog.example"}) {
				t.Errorf("%d mails, the first from %s to %v", len(offices[i].mails), m.from, m.to)
			}
			if !strings.Contains(m.text, "Message-ID: <"+id.String()+"@shop.example>") || strings.Contains(m.text, "bob@") {
				t.Errorf("the mail has not its key for a Message-ID, or shows who got it besides:\n%s", m.text)
			}
		})
	}
}

// TestHandler_Refused: a server that is not there has surely not taken the mail.
func TestHandler_Refused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	kind := intent.Kind[letterArgs]{Name: "shop.mail.send", MaxAttempts: 1}
	gone := intent.Kind[letterArgs]{Name: "shop.half.send", MaxAttempts: 1}
	r.handle(t, kind, mail.Config[letterArgs]{Server: l.Addr().String()})
	office := play(t, nil)
	r.handle(t, gone, mail.Config[letterArgs]{
		Server: office.Addr().String(), Security: mail.Plaintext,
		Compose: func(ctx context.Context, job *workers.Job[letterArgs]) (*gomail.Msg, error) {
			m, err := compose(ctx, job)
			m.SetBodyWriter(gomail.TypeTextPlain, func(w io.Writer) (int64, error) {
				n, _ := io.WriteString(w, "The beginning")
				return int64(n), errors.New("the rest is gone")
			})
			return m, err
		},
	})
	r.begin(t)
	if how, lastError := r.await(t, r.create(t, kind, letterArgs{To: []string{"ann@blog.example"}})); how != notDone || !strings.Contains(lastError, "refused") {
		t.Errorf("%s (%s); want not done", how, lastError)
	}
	if how, lastError := r.await(t, r.create(t, kind, letterArgs{To: []string{"no address"}})); how != stopped {
		t.Errorf("no address: %s (%s); want it stopped", how, lastError)
	}
	if how, lastError := r.await(t, r.create(t, gone, letterArgs{To: []string{"ann@blog.example"}})); how != stopped || len(office.lines) > 0 {
		t.Errorf("a mail that cannot be written whole: %s (%s), said %q; want it stopped before a word", how, lastError, office.lines)
	}
}

// TestHandler_Probe: the server takes the mail and says nothing; its log tells.
func TestHandler_Probe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	box, err := mailserver.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	server := mailserver.New(box)
	if err := server.Order([]byte(`{"mode": "greedy"}`)); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-served, box.Close()); err != nil {
			t.Error(err)
		}
	})

	r := newRig(t)
	kind := intent.Kind[letterArgs]{Name: "shop.mail.send"}
	r.handle(t, kind, mail.Config[letterArgs]{
		Server: l.Addr().String(), Security: mail.Plaintext,
		Log: &probe.MailLogConfig[letterArgs]{Path: filepath.Join(dir, mailserver.LogName), Line: func(line string) probe.Line {
			var e mailserver.Entry
			if json.Unmarshal([]byte(line), &e) != nil {
				return probe.Line{}
			}
			return probe.Line{At: e.At, MessageID: e.Key, Taken: e.Key != ""}
		}},
	})
	r.begin(t)
	id := r.create(t, kind, letterArgs{To: []string{"ann@blog.example"}, Text: "hello"})
	testkit.Until(t, time.Minute, "the probe finds it", func() (bool, string) {
		i, err := intent.Get(context.Background(), r, id)
		if err != nil {
			t.Fatal(err)
		}
		return i.Status == "sent", i.Status
	})
	if who := testkit.Value[string](t, r.DB, "SELECT actor FROM writ.log WHERE event = 'happened'"); who != "probe" {
		t.Errorf("decided by %s; want the probe", who)
	}
}

func TestNew_Faults(t *testing.T) {
	t.Parallel()
	_, err := mail.New(mail.Config[letterArgs]{Server: "mail", Security: 7, Username: "ann", Log: &probe.MailLogConfig[letterArgs]{}})
	for _, what := range []string{"Server", "Security", "Domain", "Compose", "Password", "Path"} {
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("the fault of %s is not reported: %v", what, err)
		}
	}
	_, err = mail.New(mail.Config[letterArgs]{Server: "mail:25", Domain: "d", Compose: compose, Security: mail.Plaintext, Username: "ann", Password: "hunter2"})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a password over plain text: %v", err)
	}
}
