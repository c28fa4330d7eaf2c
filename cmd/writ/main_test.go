package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" { // a test runs the program as a process of its own, to kill it
		os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m)
}

const asProgram = "WRIT_TEST_AS_PROGRAM"

const (
	kindName = "shop.order.charge"
	because  = "the provider shows charge ch_71"
)

// result is what a call of the program left behind.
type result struct {
	code           int
	stdout, stderr string
}

// call runs the program in this process.
func call(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	code := run(ctx, args, strings.NewReader(stdin), &stdout, &stderr)
	r := result{code, stdout.String(), stderr.String()}
	for _, url := range []string{os.Getenv("DATABASE_URL"), os.Getenv("AMQP_URL")} {
		if _, rest, ok := strings.Cut(url, "://"); ok {
			if login, _, ok := strings.Cut(rest, "@"); ok {
				_, password, _ := strings.Cut(login, ":")
				if password != "" && strings.Contains(r.stdout+r.stderr, password) {
					t.Errorf("writ %s printed a password", strings.Join(args, " "))
				}
			}
		}
	}
	return r
}

func (r result) want(t *testing.T, code int, stderr ...string) result {
	t.Helper()
	if r.code != code {
		t.Fatalf("exit code %d; want %d\nstdout: %s\nstderr: %s", r.code, code, r.stdout, r.stderr)
	}
	for _, part := range stderr {
		if !strings.Contains(r.stderr, part) {
			t.Errorf("stderr lacks %q: %s", part, r.stderr)
		}
	}
	if code == exitUsage && r.stdout != "" {
		t.Errorf("stdout of a usage error: %s", r.stdout)
	}
	return r
}

// setup is a database of the test's own and the program run against it.
type setup struct {
	t  *testing.T
	db *testkit.DB
}

func newSetup(t *testing.T) *setup {
	t.Helper()
	return &setup{t, testkit.Database(t)}
}

func (s *setup) writ(args ...string) result {
	s.t.Helper()
	return call(s.t, "", append([]string{"--database", s.db.URL}, args...)...)
}

func (s *setup) create(args any) intent.ID {
	s.t.Helper()
	raw, err := json.Marshal(args)
	if err != nil {
		s.t.Fatal(err)
	}
	var created intent.Created
	err = pgx.BeginFunc(s.t.Context(), s.db, func(tx pgx.Tx) error {
		created, err = intent.CreateRaw(s.t.Context(), tx, kindName, raw, intent.Opts{Subjects: []string{"order:7"}})
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return created.ID
}

// sending creates an intent and claims it by a worker that lives for an hour.
func (s *setup) sending() intent.ID {
	s.t.Helper()
	id, worker := s.create(map[string]int{"order": 7}), uuid.New()
	s.db.Run(s.t, `INSERT INTO writ.workers (id, host, pid, version, kinds, slots, ttl) VALUES ($1, 'web1', 4711, 'v1', $2, 10, '1 h')`,
		worker, []string{kindName})
	claimed, err := store.New(s.db.Pool).Claim(s.t.Context(), worker, []store.Group{{Timeout: time.Minute, IDs: []uuid.UUID{id}}})
	if err != nil || len(claimed) != 1 {
		s.t.Fatalf("claim: %v, %d rows", err, len(claimed))
	}
	return id
}

// ambiguous is a flagged attempt, whose effect can no longer land.
func (s *setup) ambiguous() intent.ID {
	s.t.Helper()
	id := s.sending()
	s.db.Run(s.t, "DELETE FROM writ.workers")
	s.db.Run(s.t, `UPDATE writ.intents SET flagged_at = now(), flag_reason = 'worker-died', deadline_at = now() - interval '1 h' WHERE id = $1`, id)
	return id
}

// failed is an intent that its worker stopped, with words that want to rule the terminal.
func (s *setup) failed() intent.ID {
	s.t.Helper()
	id := s.sending()
	s.db.Run(s.t, `UPDATE writ.intents SET state = 'error', event = 'failed', finished_at = now(), failed_at = now(),
		error = E'card declined\x1b[2J\nby the \u009bbank' WHERE id = $1`, id)
	return id
}

func (s *setup) position(id intent.ID) string {
	s.t.Helper()
	return testkit.Value[string](s.t, s.db, "SELECT state || ' ' || epoch FROM writ.intents WHERE id = $1", id)
}

var volatile = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`\n {6,}([^" ])`), " $1"}, // where a line is wrapped depends on what follows
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( [A-Z]{3,5}|Z|[+-]\d\d(:?\d\d)?)?`), "<time>"},
	{regexp.MustCompile(`TIME \([^)]*\)`), "TIME (<zone>)"},
	{regexp.MustCompile(`\b\d+ (ms|s|m|h|d)\b( \d+ [smh]\b)?`), "<span>"},
	{regexp.MustCompile(`…[0-9a-f]{8}\b`), "…<end>"},
	{regexp.MustCompile(`writ_(test|empty)_[0-9a-f]{32}`), "<database>"},
	{regexp.MustCompile(`<database> on \S+`), "<database> on <host>"},
	{regexp.MustCompile(`(?m)^(why +|  "why": |error: ).*`), "$1<why>"}, // the words are sql/why.sql's
	{regexp.MustCompile(`(?m) {2,}`), "  "},
}

var anyID = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// steady replaces what differs from run to run.
func steady(s string) string {
	seen := map[string]string{}
	s = anyID.ReplaceAllStringFunc(s, func(id string) string {
		if seen[id] == "" {
			seen[id] = fmt.Sprintf("<id %c>", 'A'+len(seen))
		}
		return seen[id]
	})
	for _, v := range volatile {
		s = v.pattern.ReplaceAllString(s, v.with)
	}
	return s
}

// golden compares both streams with testdata/<name>.golden.
func (r result) golden(t *testing.T, name string) {
	t.Helper()
	got := steady(fmt.Sprintf("exit code %d\n--- stdout\n%s--- stderr\n%s", r.code, r.stdout, r.stderr))
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; run the test with -update", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -update accepts):\n%s", path, diff)
	}
	if strings.ContainsAny(r.stdout+r.stderr, "\x1b\u009b") {
		t.Error("a control character reached the output")
	}
}
