package probe_test

import (
	"compress/gzip"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
	"github.com/writhq/writ/workers/probe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type args struct{}

func attempt(key string, started time.Time) *workers.Attempt[args] {
	return &workers.Attempt[args]{Facts: workers.Facts{Key: key, StartedAt: started}}
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	rules := []probe.Rule{
		{Field: "data.0.status", Equals: []string{"succeeded", "pending"}, Is: workers.WasDone},
		{Field: "data.#", Equals: []string{"0"}, Is: workers.WasNotDone},
		{Status: 410, Is: workers.WasNotDone},
	}
	tests := []struct {
		name   string
		status int
		body   string
		want   workers.Finding
	}{
		{"Done", 200, `{"data": [{"status": "succeeded"}]}`, workers.WasDone},
		{"NotDone", 200, `{"data": []}`, workers.WasNotDone},
		{"NotDoneByStatus", 410, `<html>`, workers.WasNotDone},
		{"UnknownForAnotherValue", 200, `{"data": [{"status": "failed"}]}`, workers.CannotTell},
		{"UnknownWithoutTheField", 200, `{}`, workers.CannotTell},
		{"UnknownForAnotherType", 200, `{"data": {"0": {"status": ["succeeded"]}}}`, workers.CannotTell},
		{"UnknownForNull", 200, `null`, workers.CannotTell},
		{"UnknownForAnotherStatus", 500, `{"data": []}`, workers.CannotTell},
		{"UnknownFor404", 404, `{"data": []}`, workers.CannotTell},
		{"UnknownWhenNotJSON", 200, `<html>maintenance</html>`, workers.CannotTell},
		{"UnknownWhenMoreFollows", 200, `{"data": []} {"data": []}`, workers.CannotTell},
		{"UnknownWhenTooLong", 200, `{"data": [], "x": "` + strings.Repeat("x", 2000) + `"}`, workers.CannotTell},
		{"UnknownWhenRedirected", 302, ``, workers.CannotTell},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var asked string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = r.URL.Query().Get("idempotency_key") + " " + r.Header.Get("Authorization")
				if tt.status == http.StatusFound {
					http.Redirect(w, r, "/login", http.StatusFound)
					return
				}
				w.WriteHeader(tt.status)
				fmt.Fprint(w, tt.body)
			}))
			defer server.Close()
			ask, err := probe.HTTP(probe.HTTPConfig[args]{
				URL: server.URL + "/charges?idempotency_key={key}", Rules: rules, MaxBody: 1000, Header: http.Header{"Authorization": {"Bearer secret"}},
				Client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
			})
			if err != nil {
				t.Fatal(err)
			}
			got, err := ask(context.Background(), attempt("a&b c", time.Now()))
			if err != nil || got.Finding != tt.want {
				t.Errorf("found %v (%s), %v; want %v", got.Finding, got.Why, err, tt.want)
			}
			if asked != "a&b c Bearer secret" {
				t.Errorf("asked with %q", asked)
			}
			if text := fmt.Sprint(got.Evidence, got.Why); strings.Contains(text, "secret") {
				t.Errorf("a credential is in %s", text)
			}
		})
	}
}

func TestHTTP_unreachable(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	ask, err := probe.HTTP(probe.HTTPConfig[args]{URL: "http://" + addr + "/{key}?token=secret", Rules: []probe.Rule{{Status: 404, Is: workers.WasNotDone}}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ask(context.Background(), attempt("k", time.Now())); err == nil || got.Finding != workers.CannotTell || strings.Contains(err.Error(), "secret") {
		t.Errorf("found %v, %v; want an error without the credential", got.Finding, err)
	}
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer hanging.Close()
	if ask, err = probe.HTTP(probe.HTTPConfig[args]{URL: hanging.URL + "/{key}", Rules: []probe.Rule{{Is: workers.WasDone}}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if got, err := ask(ctx, attempt("k", time.Now())); err == nil || got.Finding != workers.CannotTell {
		t.Errorf("found %v, %v of one that hangs", got.Finding, err)
	}
}

// TestFaults: faults of the configs are reported, all at once.
func TestFaults(t *testing.T) {
	t.Parallel()
	_, err := probe.HTTP(probe.HTTPConfig[args]{URL: "charges", Rules: []probe.Rule{{Field: "x", Is: workers.WasDone}}})
	for _, want := range []string{"absolute", "{key}", "Rules[0]"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not tell of %s", err, want)
		}
	}
	if _, err := probe.HTTP(probe.HTTPConfig[args]{}); err == nil {
		t.Error("an empty HTTPConfig was taken")
	}
	if _, err := probe.MailLog(probe.MailLogConfig[args]{}); err == nil {
		t.Error("an empty MailLogConfig was taken")
	}
	if _, err := probe.SQL(probe.SQLConfig[args]{}); err == nil {
		t.Error("an empty SQLConfig was taken")
	}
}

func TestSQL(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	db.Run(t, "CREATE TABLE charges (key text, amount int)")
	db.Run(t, "INSERT INTO charges VALUES ('k1', 7), ('k1', 8)")
	tests := []struct {
		name   string
		query  string
		key    string
		noRows workers.Finding
		want   workers.Finding
		fails  bool
	}{
		{"Done", "SELECT amount FROM charges WHERE key = $1 ORDER BY amount", "k1", workers.CannotTell, workers.WasDone, false},
		{"UnknownWithoutRows", "SELECT amount FROM charges WHERE key = $1", "k2", workers.CannotTell, workers.CannotTell, false},
		{"NotDoneWithoutRowsWhenDeclared", "SELECT amount FROM charges WHERE key = $1", "k2", workers.WasNotDone, workers.WasNotDone, false},
		{"ErrorWhenRefused", "SELECT amount FROM nowhere WHERE key = $1", "k1", workers.WasNotDone, workers.CannotTell, true},
		{"ErrorWhenItWrites", "INSERT INTO charges VALUES ($1, 1) RETURNING amount", "k1", workers.WasNotDone, workers.CannotTell, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ask, err := probe.SQL(probe.SQLConfig[args]{DB: db.Pool, Query: tt.query, NoRows: tt.noRows})
			if err != nil {
				t.Fatal(err)
			}
			got, err := ask(context.Background(), attempt(tt.key, time.Now()))
			if (err != nil) != tt.fails || got.Finding != tt.want {
				t.Errorf("found %v, %v; want %v", got.Finding, err, tt.want)
			}
			if tt.want == workers.WasDone && !strings.Contains(fmt.Sprint(got.Evidence), "amount:7") {
				t.Errorf("evidence %v; want the first row", got.Evidence)
			}
		})
	}
}

// mailLog is a log that a test writes.
type mailLog struct {
	t    *testing.T
	path string
}

func newMailLog(t *testing.T) *mailLog {
	return &mailLog{t, filepath.Join(t.TempDir(), "mail.log")}
}

// line writes a line as of so long ago.
func (l *mailLog) line(ago time.Duration, text string) {
	l.t.Helper()
	l.raw(stamp(ago) + " mx postfix/" + text + "\n")
}

func stamp(ago time.Duration) string {
	return time.Now().Add(-ago).UTC().Format("2006-01-02T15:04:05.000000Z07:00")
}

func (l *mailLog) raw(text string) {
	l.t.Helper()
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		l.t.Fatal(err)
	}
}

// mail writes the two lines of a mail that was taken.
func (l *mailLog) mail(ago time.Duration, queue, id string) {
	l.t.Helper()
	l.line(ago, "cleanup[7]: "+queue+": message-id=<"+id+"@shop.example>")
	l.line(ago, "qmgr[8]: "+queue+": from=<shop@shop.example>, size=812, nrcpt=1 (queue active)")
}

func (l *mailLog) rotate() {
	l.t.Helper()
	for n := 5; n >= 0; n-- {
		from := fmt.Sprintf("%s.%d", l.path, n)
		if n == 0 {
			from = l.path
		}
		if err := os.Rename(from, fmt.Sprintf("%s.%d", l.path, n+1)); err != nil && !os.IsNotExist(err) {
			l.t.Fatal(err)
		}
	}
}

// probe returns a probe of the log, whose server writes a line when it is woken.
func (l *mailLog) probe() workers.Probe[args] {
	l.t.Helper()
	return l.with(func(context.Context) error { l.line(0, "smtpd[9]: connect from worker.example[10.0.0.7]"); return nil })
}

func (l *mailLog) with(wake func(context.Context) error) workers.Probe[args] {
	l.t.Helper()
	ask, err := probe.MailLog(probe.MailLogConfig[args]{Path: l.path, Wake: wake, Patience: 100 * time.Millisecond, Skew: time.Second})
	if err != nil {
		l.t.Fatal(err)
	}
	return ask
}

// finds asks about an attempt that was begun so long ago.
func (l *mailLog) finds(ask workers.Probe[args], key string, ago time.Duration, want workers.Finding) {
	l.t.Helper()
	got, err := ask(context.Background(), attempt(key, time.Now().Add(-ago)))
	if got.Finding != want {
		l.t.Errorf("%s: found %v (%s), %v; want %v", key, got.Finding, got.Why, err, want)
	}
}

func TestMailLog(t *testing.T) {
	t.Parallel()
	l := newMailLog(t)
	l.line(time.Hour, "smtpd[9]: connect from a")
	l.mail(30*time.Minute, "Q1", "k1")
	l.line(20*time.Minute, "cleanup[7]: Q2: message-id=<k2@shop.example>") // broken off
	ask := l.probe()
	l.finds(ask, "k1", 31*time.Minute, workers.WasDone)
	l.finds(ask, "k1@shop.example", 31*time.Minute, workers.WasDone)
	l.finds(ask, "k2", 31*time.Minute, workers.CannotTell)
	l.finds(ask, "k3", 31*time.Minute, workers.WasNotDone)
	l.finds(ask, "k1@other.example", 31*time.Minute, workers.WasNotDone)
	l.finds(ask, "k3", 2*time.Hour, workers.CannotTell) // the log does not reach back so far
	l.finds(ask, "k3", time.Hour, workers.CannotTell)   // nor surely so far, as clocks may differ

	// Read on, by pieces: a line that is not whole is not there yet.
	l.raw(stamp(0) + " mx postfix/cleanup[7]: Q4: message-id=<k4@sh")
	l.finds(l.with(func(context.Context) error { return nil }), "k4", time.Minute, workers.CannotTell)
	l.raw("op.example>\n")
	l.line(0, "qmgr[8]: Q4: from=<>, size=1, nrcpt=1 (queue active)")
	l.finds(ask, "k4", time.Minute, workers.WasDone)
	l.raw(strings.Repeat("x", 300_000) + "\n") // longer than any line
	l.mail(0, "Q5", "k5")
	l.finds(ask, "k5", time.Minute, workers.WasDone)

	// Somebody else's mail with the same word before the @ does not hide ours.
	l.line(0, "cleanup[7]: Q6: message-id=<k5@other.example>")
	l.finds(ask, "k5@shop.example", time.Minute, workers.WasDone)
}

// TestMailLog_standsStill: what is missing in a log that nobody writes to may only be late.
func TestMailLog_standsStill(t *testing.T) {
	t.Parallel()
	l := newMailLog(t)
	l.mail(time.Hour, "Q1", "k1")
	ask := l.with(nil)
	l.finds(ask, "k2", time.Minute, workers.CannotTell)
	l.finds(ask, "k1", 2*time.Hour, workers.WasDone)
	l.finds(l.with(func(context.Context) error { return fmt.Errorf("connection refused") }), "k2", time.Minute, workers.CannotTell)
	if err := os.Remove(l.path); err != nil {
		t.Fatal(err)
	}
	l.finds(l.probe(), "k2", time.Minute, workers.CannotTell) // there is no log before it is woken
}

// TestMailLog_rotated: files that were rotated before and while it reads, packed ones, a gap, and one that was cut off in
// place.
func TestMailLog_rotated(t *testing.T) {
	t.Parallel()
	l := newMailLog(t)
	l.line(5*time.Hour, "smtpd[9]: connect from a")
	l.mail(4*time.Hour, "Q1", "k1")
	l.rotate()
	l.mail(3*time.Hour, "Q2", "k2")
	l.rotate()
	l.mail(2*time.Hour, "Q3", "k3")
	pack(t, l.path+".2")
	ask := l.probe()
	for _, key := range []string{"k1", "k2", "k3"} {
		l.finds(ask, key, 4*time.Hour+time.Minute, workers.WasDone)
	}
	l.finds(ask, "k9", 4*time.Hour+time.Minute, workers.WasNotDone)

	// Rotated while it follows; the writer goes on in the old file for a moment.
	old, err := os.OpenFile(l.path, os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := os.Rename(l.path+".2.gz", l.path+".3.gz"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(l.path+".1", l.path+".2"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(l.path, l.path+".1"); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(old, "%s mx postfix/cleanup[7]: Q4: message-id=<k4@shop.example>\n", stamp(time.Minute))
	fmt.Fprintf(old, "%s mx postfix/qmgr[8]: Q4: from=<>, size=1, nrcpt=1 (queue active)\n", stamp(time.Minute))
	l.mail(0, "Q5", "k5")
	l.finds(ask, "k4", 2*time.Minute, workers.WasDone)
	l.finds(ask, "k5", 2*time.Minute, workers.WasDone)
	l.finds(ask, "k9", 4*time.Hour+time.Minute, workers.WasNotDone)

	// Twice since it looked last.
	l.rotate()
	l.mail(0, "Q6", "k6")
	l.rotate()
	l.mail(0, "Q7", "k7")
	if err := os.Rename(l.path+".3.gz", l.path+".5.gz"); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	l.finds(ask, "k6", time.Minute, workers.WasDone)
	l.finds(ask, "k7", time.Minute, workers.WasDone)

	// A file is missing: the log is known from behind the gap on.
	if err := os.Remove(l.path + ".2"); err != nil {
		t.Fatal(err)
	}
	fresh := l.probe()
	l.finds(fresh, "k9", 4*time.Hour, workers.CannotTell)

	// Cut off in place: what was between is gone for good.
	if err := os.Truncate(l.path, 0); err != nil {
		t.Fatal(err)
	}
	l.line(0, "smtpd[9]: connect from a")
	l.finds(ask, "k9", time.Minute, workers.CannotTell)
}

func pack(t *testing.T, path string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path + ".gz")
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(f)
	if _, err := z.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func TestExim(t *testing.T) {
	t.Parallel()
	const took = "2026-11-22 00:44:05 1tE-000-1 <= shop@shop.example H=worker [10.0.0.7] P=esmtp S=812"
	for line, want := range map[string]string{
		took + " id=k1@shop.example": "k1@shop.example",
		took + ` id=k1@shop.example T="your ticket id=77 is open" from <a@b> for c@d`:       "k1@shop.example",
		took + ` T="your ticket id=77 is open"`:                                             "",
		"2026-11-22 00:44:05 [812] 1tE-000-1 <= <> R=1tE-000-0 P=local id=E1@mx.example":    "E1@mx.example",
		`2026-11-22 00:44:05 1tE-000-1 => c@d R=dnslookup T=remote_smtp C="250 <= x id=77"`: "",
	} {
		l := probe.Exim()(line)
		if l.MessageID != want || l.Taken != (want != "") || !l.Server || l.At.Hour() != 0 || l.At.Year() != 2026 {
			t.Errorf("%s: read %+v; want id %q", line, l, want)
		}
	}
	if l := probe.Exim()("Nov 22 00:44:05 mx exim[812]: 1tE-000-1 <= a@b id=k1@b"); l.Server {
		t.Error("a line of another form is taken for one of its main log")
	}
}

// TestMailLog_cut: a log that was cut off in place is noticed, though it has grown past its old length since.
func TestMailLog_cut(t *testing.T) {
	t.Parallel()
	l := newMailLog(t)
	for n := range 50 {
		l.line(time.Hour, fmt.Sprintf("smtpd[9]: connect from %d", n))
	}
	l.mail(30*time.Minute, "Q1", "k1")
	ask := l.probe()
	l.finds(ask, "k2", time.Minute, workers.WasNotDone)
	l.mail(time.Second, "Q2", "k2")
	raw, err := os.ReadFile(l.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.path+".1", raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(l.path, 0); err != nil {
		t.Fatal(err)
	}
	for n := range 100 {
		l.line(0, fmt.Sprintf("smtpd[9]: connect from %d", n))
	}
	l.finds(ask, "k2", time.Minute, workers.CannotTell)
	l.finds(ask, "k1", time.Hour, workers.WasDone) // what was met once is no less true
	l.finds(l.probe(), "k2", time.Minute, workers.WasDone)
}

// TestMailLog_instances: an instance of Postfix has a name of its own, and only its own lines show that its log is all there.
func TestMailLog_instances(t *testing.T) {
	t.Parallel()
	for _, tag := range []string{"postfix-out", "postfix/submission", "mx-out/relay"} {
		l := newMailLog(t)
		l.raw(stamp(time.Hour) + " mx " + tag + "/smtpd[1]: connect from a\n")
		l.raw(stamp(time.Second) + " mx " + tag + "/cleanup[1]: ABC123: message-id=<k1@shop.example>\n")
		l.raw(stamp(time.Second) + " mx " + tag + "/qmgr[2]: ABC123: from=<a@b>, size=7, nrcpt=1 (queue active)\n")
		l.finds(l.with(func(context.Context) error {
			l.raw(stamp(0) + " mx " + tag + "/smtpd[1]: connect from b\n")
			return nil
		}), "k1", time.Minute, workers.WasDone)
	}
	l := newMailLog(t)
	l.raw(stamp(time.Hour) + " mx dovecot: imap-login: Login\n")
	strangers := l.with(func(context.Context) error {
		l.raw(stamp(0) + " mx dovecot: imap-login: says x/qmgr[1]: Q1: from=<>, size=1\n" + stamp(0) + " mx sm-mta[12]: k1 taken\n")
		return nil
	})
	l.finds(strangers, "k1", time.Minute, workers.CannotTell)
}

// TestMailLog_dropped: a logger that says it dropped lines may have dropped the one that is looked for.
func TestMailLog_dropped(t *testing.T) {
	t.Parallel()
	for _, says := range []string{
		"rsyslogd: imuxsock lost 12 messages from pid 8 due to rate-limiting",
		"rsyslogd: imjournal: begin to drop messages due to rate-limiting",
		"rsyslogd: imjournal: 12 messages lost due to rate-limiting",
		"systemd-journald[3]: Suppressed 12 messages from postfix.service",
	} {
		l := newMailLog(t)
		l.line(2*time.Hour, "smtpd[9]: connect from a")
		l.raw(stamp(time.Hour) + " mx " + says + "\n")
		l.line(time.Minute, "smtpd[9]: connect from b")
		ask := l.probe()
		l.finds(ask, "k1", 90*time.Minute, workers.CannotTell)
		l.finds(ask, "k1", 30*time.Minute, workers.WasNotDone)
	}
}

func TestWritten(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for line, want := range map[string]bool{
		now.Format(time.RFC3339Nano) + " mx postfix": true,
		now.Format(time.Stamp) + " mx postfix":       true,
		"-- MARK --":                                 false,
		"":                                           false,
		"2026-13-45T99:99:99Z mx postfix: something x": false,
	} {
		at := probe.Written(line)
		if at.IsZero() == want || want && now.Sub(at).Abs() > 2*time.Second {
			t.Errorf("%q was written at %v", line, at)
		}
	}
}

// FuzzMailLog: whatever stands in a log, it is read without a panic, and to its end.
func FuzzMailLog(f *testing.F) {
	f.Add("2026-11-22T00:44:05Z mx postfix/cleanup[7]: Q1: message-id=<k1@x>\n2026-11-22T00:44:05Z mx postfix/qmgr[8]: Q1: from=<>, size=1\n")
	f.Add("\x00\xff\n\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		ask, err := probe.MailLog(probe.MailLogConfig[args]{Path: path, Patience: time.Millisecond, Keep: 100 * 365 * 24 * time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := ask(context.Background(), attempt("never there", time.Now())); got.Finding != workers.CannotTell {
			t.Errorf("found %v", got.Finding)
		}
	})
}
