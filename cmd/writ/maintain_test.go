package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writhq/writ/internal/testkit"
)

func TestMigrate(t *testing.T) {
	t.Parallel()
	url := testkit.EmptyDatabase(t)
	writ := func(args ...string) result { return call(t, "", append([]string{"--database", url}, args...)...) }
	writ("list").want(t, exitFailure, "no Writ schema", "writ migrate up")
	writ("run", "--roles", "reconciler").want(t, exitFailure, "writ migrate up")
	writ("migrate", "status").golden(t, "migrate_status_empty")
	writ("migrate", "up").golden(t, "migrate_up")
	writ("migrate", "up").golden(t, "migrate_up_again")
	writ("migrate", "up", "-o", "json").golden(t, "migrate_up_json")
	writ("migrate", "status", "-o", "json").golden(t, "migrate_status_json")
	writ("migrate", "down").want(t, exitUsage, "--yes")
	writ("migrate", "status").want(t, exitOK)
	writ("migrate", "down", "--yes").want(t, exitOK)
	writ("migrate", "down", "--yes", "-o", "json").want(t, exitOK)
	writ("migrate", "status").want(t, exitFailure)
}

func TestReconcile(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.create(nil)
	s.db.Run(t, "UPDATE writ.intents SET run_at = now() - interval '10 min'")
	s.db.Run(t, "DELETE FROM writ.outbox")
	s.writ("reconcile", "--once", "--dry-run").golden(t, "reconcile_dry_run")
	s.writ("reconcile", "--once", "--dry-run", "--limit", "0", "-o", "json").golden(t, "reconcile_dry_run_json")
	s.writ("reconcile", "--once").golden(t, "reconcile_table")
	s.writ("reconcile", "--once", "-o", "json").golden(t, "reconcile_json")
	s.db.Run(t, "UPDATE writ.settings SET paused_at = now(), paused_by = 'ann', paused_why = 'the bank is down'")
	s.writ("reconcile", "--once").want(t, exitNotAllowed, "paused: the bank is down")
	s.writ("resume", "--why", "the bank is back again", "--actor", "ann").golden(t, "resume")
	s.writ("reconcile", "--once").want(t, exitOK)
}

// findings reads the doctor's report by check.
func findings(t *testing.T, r result) map[string]finding {
	t.Helper()
	var list []finding
	if err := json.Unmarshal([]byte(r.stdout), &list); err != nil {
		t.Fatalf("%v: %s", err, r.stdout)
	}
	out := map[string]finding{}
	for _, f := range list {
		out[f.Check] = f
	}
	return out
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	amqp := testkit.AMQPURL(t)
	r := s.writ("doctor", "-o", "json", "--amqp", amqp).want(t, exitFindings)
	for check, want := range map[string]string{
		"database": checkOK, "broker": checkOK, "roles": checkOK, "schema": checkOK, "identity": checkOK, "relay": checkWarn,
		"reconciler": checkWarn, "workers": checkWarn, "kinds": checkOK, "pauses": checkOK, "outbox": checkOK, "ambiguous": checkOK, "snapshots": checkOK,
	} {
		if got := findings(t, r)[check]; got.Result != want {
			t.Errorf("%s: %+v; want %s", check, got, want)
		}
	}

	s.ambiguous()
	s.create(nil)
	s.db.Run(t, "UPDATE writ.outbox SET due_at = now() - interval '10 min'")
	s.db.Run(t, "UPDATE writ.settings SET fingerprint = 'elsewhere'")
	s.db.Run(t, `INSERT INTO writ.kinds (name, queue, class, paused_at, paused_by, paused_why) VALUES ($1, $1, 'manual', now(), 'ann', 'bank')`, kindName)
	s.db.Run(t, "UPDATE writ.repeatable SET hash = 'older' WHERE name = 'status'")
	r = s.writ("doctor", "-o", "json", "--amqp", "amqp://127.0.0.1:1/").want(t, exitFindings)
	for check, want := range map[string][2]string{
		"broker": {checkFail, "127.0.0.1:1"}, "schema": {checkWarn, "status"}, "identity": {checkFail, "adopted"}, "kinds": {checkWarn, kindName},
		"pauses": {checkWarn, "ann"}, "outbox": {checkWarn, "10 m"}, "ambiguous": {checkWarn, "1 with an outcome"},
	} {
		if got := findings(t, r)[check]; got.Result != want[0] || !strings.Contains(got.Detail, want[1]) || got.Advice == "" {
			t.Errorf("%s: %+v; want %v", check, got, want)
		}
	}
	table := s.writ("doctor", "--amqp", amqp).want(t, exitFindings, "checks found something")
	if !strings.Contains(table.stdout, "→ ") {
		t.Errorf("no advice in %s", table.stdout)
	}
}

func TestDoctor_IsContentWhenAllRuns(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.db.Run(t, `INSERT INTO writ.workers (id, host, pid, version, kinds, slots, ttl) VALUES (gen_random_uuid(), 'web1', 1, '', $1, 10, '1 h')`, []string{kindName})
	p := s.start("run")
	testkit.Until(t, 30*time.Second, "the doctor finds nothing", func() (bool, string) {
		r := s.writ("doctor", "--amqp", testkit.AMQPURL(t))
		return r.code == exitOK, r.stdout
	})
	p.end(t)
}

// process is the program running until it is ended.
type process struct {
	stop   context.CancelFunc
	done   chan int
	stderr *lockedBuffer
}

func (s *setup) start(args ...string) *process {
	s.t.Helper()
	ctx, stop := context.WithCancel(s.t.Context())
	p := &process{stop, make(chan int, 1), &lockedBuffer{}}
	args = append([]string{"--database", s.db.URL, "--amqp", testkit.AMQPURL(s.t)}, args...)
	go func() { p.done <- run(ctx, args, strings.NewReader(""), io.Discard, p.stderr) }()
	s.t.Cleanup(stop)
	return p
}

func (p *process) end(t *testing.T) {
	t.Helper()
	p.stop()
	select {
	case code := <-p.done:
		if code != exitOK || !strings.Contains(p.stderr.String(), "stopped") {
			t.Errorf("exit code %d; want 0 and a last word: %s", code, p.stderr)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("did not end: %s", p.stderr)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestRun(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	p := s.start("run", "--listen", address)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	testkit.Until(t, 30*time.Second, "it is ready", func() (bool, string) {
		response, err := client.Get("http://" + address + "/readyz")
		if err != nil {
			return false, err.Error()
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return strings.Contains(string(body), `"ok"`), string(body)
	})
	p.end(t)

	t.Run("RunsOneRoleAlone", func(t *testing.T) {
		p := s.start("run", "--roles", "reconciler")
		testkit.Until(t, 10*time.Second, "it says that it runs", func() (bool, string) {
			return strings.Contains(p.stderr.String(), "running"), p.stderr.String()
		})
		p.end(t)
	})
	t.Run("FailsWhenTheAddressIsTaken", func(t *testing.T) {
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		s.writ("run", "--amqp", testkit.AMQPURL(t), "--listen", taken.Addr().String()).want(t, exitFailure, "address already in use")
	})
	t.Run("FailsWhenTheBrokerURLIsWrong", func(t *testing.T) {
		s.writ("run", "--amqp", "http://nothing").want(t, exitFailure, "not an AMQP URI")
	})
}

func TestRun_IsInterruptedWhenCancelledBeforeItRuns(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stderr bytes.Buffer
	if code := run(ctx, []string{"--database", s.db.URL, "list"}, strings.NewReader(""), io.Discard, &stderr); code != exitInterrupted {
		t.Errorf("exit code %d; want %d: %s", code, exitInterrupted, &stderr)
	}
}
