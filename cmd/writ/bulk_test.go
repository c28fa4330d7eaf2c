package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/writhq/writ/internal/testkit"
)

// planned plans a bulk and returns its id.
func (s *setup) planned(args ...string) string {
	s.t.Helper()
	r := s.writ(append([]string{"bulk", "plan", "-o", "json", "--why", because, "--actor", "ann@desk"}, args...)...).want(s.t, exitOK)
	var b struct{ ID string }
	if err := json.Unmarshal([]byte(r.stdout), &b); err != nil {
		s.t.Fatal(err)
	}
	return b.ID
}

func TestBulk(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	first, second, moved := s.failed(), s.failed(), s.failed()
	s.ambiguous()
	s.writ("bulk", "plan", "retry", "--status", "error", "--error", "card declined\x1b[2J\nby the \u009bbank", "--why", because, "--actor", "ann@desk").golden(t, "bulk_plan")
	bulk := s.planned("retry", "--status", "error")
	for _, id := range []any{first, second, moved} {
		if got := testkit.Value[string](t, s.db, "SELECT state FROM writ.intents WHERE id = $1", id); got != "error" {
			t.Errorf("%s is %s after a plan", id, got)
		}
	}
	s.writ("cancel", moved.String(), "--why", because, "--actor", "bob@desk").want(t, exitOK)
	s.writ("bulk", "run", bulk, "--limit", "1", "--actor", "eve").want(t, exitOK)
	s.writ("bulk", "run", bulk, "--actor", "eve").golden(t, "bulk_run")
	s.writ("bulk", "show", bulk, "--rows").golden(t, "bulk_rows")
	s.writ("bulk", "show", bulk, "--rows", "-o", "jsonl").want(t, exitOK)
	s.writ("bulk", "show", bulk, "-o", "json").golden(t, "bulk_json")
	s.writ("bulk", "list").golden(t, "bulk_list")
	s.writ("bulk", "list", "-o", "json", "--limit", "1").want(t, exitOK)
	s.writ("audit").golden(t, "audit")
}

// A selection goes through a pipe, as it does from list.
func TestBulk_ofIDs(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	a, b := s.failed(), s.failed()
	r := call(t, a.String()+"\n\n"+b.String()+"\n", "--database", s.db.URL, "bulk", "plan", "cancel", "-", "--why", because, "-o", "json").want(t, exitOK, "nothing is decided yet")
	if !strings.Contains(r.stdout, `"total": 2`) {
		t.Errorf("planned %s; want 2", r.stdout)
	}
	bulk := s.planned("cancel", a.String())
	s.writ("bulk", "abort", bulk, "--why", "it is needed after all", "--actor", "ann").golden(t, "bulk_abort")
	s.writ("bulk", "run", bulk).want(t, exitNotAllowed, "was aborted by ann")
	if got := s.position(a); got != "error 1" {
		t.Errorf("the intent is %s; want it as it was", got)
	}
}

func TestBulk_refused(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.failed()
	missing := "019a3c5e-8f5c-7a10-9d54-0b6f9e3d2c11"
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"bulk", exitUsage, "say which: abort, list, plan, run, show"},
		{"bulk plan", exitUsage, "takes VERB"},
		{"bulk plan retry --why " + missing, exitUsage, "say which intents"},
		{"bulk plan retry --all", exitUsage, "--why is missing"},
		{"bulk plan explode --all --why " + missing, exitUsage, "not one"},
		{"bulk plan retry 7 --why " + missing, exitUsage, "not an id"},
		{"bulk plan retry --since yesterday --why " + missing, exitUsage, "how long ago"},
		{"bulk plan cancel --all --new-key --why " + missing, exitUsage, "retry alone"},
		{"bulk plan retry --kind no.such.kind --why " + missing, exitNotFound, "no intent matches"},
		{"bulk run " + missing, exitNotFound, "no bulk"},
		{"bulk run " + missing + " --rate -1", exitUsage, "positive"},
		{"bulk run " + missing + " --rate NaN", exitUsage, "positive"},
		{"bulk run " + missing + " --rate Inf", exitUsage, "positive"},
		{"bulk plan cancel --all --merge {} --why " + missing, exitUsage, "retry alone"},
		{"bulk plan retry --all --merge {} --why " + missing, exitUsage, "at least one member"},
		{"bulk plan retry --all --merge { --why " + missing, exitUsage, "--merge"},
		{"bulk plan retry - --merge - --why " + missing, exitUsage, "standard input"},
		{"bulk plan retry --all --evidence - --merge - --why " + missing, exitUsage, "standard input"},
		{"bulk abort " + missing + " --why " + missing, exitNotFound, "no bulk"},
		{"bulk show " + missing, exitNotFound, "no bulk"},
		{"bulk show " + missing + " --rows", exitNotFound, "no bulk"},
		{"note " + missing, exitUsage, "takes ID TEXT"},
		{"note " + missing + " text", exitNotFound, "no intent"},
		{"audit --format xml", exitUsage, "csv"},
		{"audit --id 7", exitUsage, "not an id"},
	} {
		t.Run(c.args, func(t *testing.T) { s.writ(strings.Fields(c.args)...).want(t, c.code, c.says) })
	}
}

// A patch changes the arguments of all: the plan shows before and after of an example of each group, and the log keeps both.
func TestBulk_merge(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	first := s.failed()
	s.failed()
	s.writ("bulk", "plan", "retry", "--status", "error", "--merge", `{"sender": "billing@example.com\u001b[2J"}`, "--why", because, "--actor", "ann@desk").golden(t, "bulk_merge")
	bulk := s.planned("retry", "--status", "error", "--merge", `{"sender": "billing@example.com"}`)
	if r := s.writ("bulk", "run", bulk).want(t, exitOK); !strings.Contains(r.stdout, "2 of 2 done") {
		t.Errorf("run says %s", r.stdout)
	}
	const both = "SELECT evidence -> 'new_args' ->> 'sender' = 'billing@example.com' AND evidence -> 'old_args' ->> 'sender' IS NULL FROM writ.log WHERE intent_id = $1 AND event = 'retry'"
	if !testkit.Value[bool](t, s.db, both, first) {
		t.Error("the log does not have the arguments before and after")
	}
	if r := s.writ("timeline", first.String()).want(t, exitOK); !strings.Contains(r.stdout, "billing@example.com") {
		t.Errorf("the timeline says %s", r.stdout)
	}
}

// Many are decided only by somebody who says that he means it.
func TestBulk_asksAboveAHundred(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.db.Run(t, "INSERT INTO writ.intents (kind) SELECT $1 FROM generate_series(1, 101)", kindName)
	bulk := s.planned("cancel", "--kind", kindName)
	s.writ("bulk", "run", bulk).want(t, exitUsage, "decides 101 intents", "--yes")
	s.writ("bulk", "run", bulk, "--limit", "1").want(t, exitOK)
	s.writ("bulk", "run", bulk).want(t, exitOK) // a hundred are left
	if n := testkit.Value[int](t, s.db, "SELECT count(*) FROM writ.intents WHERE state = 'cancelled'"); n != 101 {
		t.Errorf("%d are cancelled; want 101", n)
	}
}

// A terminal that dies in the middle leaves nothing half done; another goes on, or ends it.
func TestBulk_killed(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.db.Run(t, "INSERT INTO writ.intents (kind) SELECT $1 FROM generate_series(1, 500)", kindName)
	bulk := s.planned("cancel", "--kind", kindName)
	count := func(sql string) int { return testkit.Value[int](t, s.db, "SELECT count(*) FROM writ."+sql) }
	for round, rate := range []string{"200", "100"} {
		terminal := exec.Command(os.Args[0], "--database", s.db.URL, "bulk", "run", bulk, "--rate", rate, "--yes")
		terminal.Env = append(os.Environ(), asProgram+"=1")
		if err := terminal.Start(); err != nil {
			t.Fatal(err)
		}
		testkit.Until(t, 30*time.Second, "it has decided some", func() (bool, string) {
			n := count("bulk_rows WHERE result = 'done'")
			return n >= 80*(round+1), fmt.Sprint(n)
		})
		if err := terminal.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = terminal.Wait() // it was killed
		testkit.Until(t, 30*time.Second, "its session has ended", func() (bool, string) {
			left := testkit.Value[int](t, s.db, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'writ'")
			return left == 0, fmt.Sprint(left)
		})
		done, cancelled, logged := count("bulk_rows WHERE result = 'done'"), count("intents WHERE state = 'cancelled'"), count("log WHERE event = 'cancel'")
		hints := count("outbox")
		if done != cancelled || done != logged || hints != 500-done || done >= 500 {
			t.Fatalf("%d results, %d cancelled, %d in the log, %d hints; want the same, and hints for the rest", done, cancelled, logged, hints)
		}
	}
	s.writ("bulk", "abort", bulk, "--why", "that is enough of them", "--actor", "eve").want(t, exitOK)
	before := count("log WHERE event = 'cancel'")
	s.writ("bulk", "run", bulk, "--yes").want(t, exitNotAllowed, "aborted by eve")
	rest := s.planned("cancel", "--kind", kindName)
	s.writ("bulk", "run", rest, "--yes").want(t, exitOK)
	if n := count("log WHERE event = 'cancel'"); n != 500 || before >= 500 {
		t.Errorf("%d were cancelled after %d before the abort; want 500, each once", n, before)
	}
}

func TestNote(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	id := s.failed()
	s.writ("note", id.String(), "asked the bank,\nticket \x1b[31m4711", "--actor", "ann@desk").golden(t, "note")
	s.writ("note", id.String(), " ").want(t, exitUsage, "empty")
	s.writ("note", id.String(), strings.Repeat("x", 9000)).want(t, exitUsage, "limit")
	s.writ("note", id.String(), "x", "--actor", "reconciler").want(t, exitUsage, "part of the engine")
	s.writ("get", id.String()).golden(t, "note_get")
	if r := s.writ("timeline", id.String()).want(t, exitOK); !strings.Contains(r.stdout, "asked the bank, ticket [31m4711") {
		t.Errorf("the timeline lacks the note:\n%s", r.stdout)
	}
	if got := s.position(id); got != "error 1" {
		t.Errorf("the intent is %s; a note changes nothing", got)
	}
}

func TestAudit(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	id := s.failed()
	s.writ("retry", id.String(), "--why", "=cmd|' /C calc'!A0 is a formula", "--actor", "ann@desk").want(t, exitOK)
	for n := range 3 {
		s.writ("note", s.failed().String(), fmt.Sprint("note ", n), "--actor", "bob@desk").want(t, exitOK)
	}
	user := testkit.Value[string](t, s.db, "SELECT session_user")
	csv := s.writ("audit", "--format", "csv").want(t, exitOK).stdout
	if lines := strings.Split(strings.TrimSpace(csv), "\n"); len(lines) != 5 || !strings.HasPrefix(lines[0], "entry,at,intent_id,") ||
		!strings.Contains(lines[1], ","+id.String()+",1,retry,ann@desk,"+user+",'=cmd|' /C calc'!A0 is a formula,") {
		t.Errorf("csv:\n%s", csv)
	}
	if again := s.writ("audit", "--format", "csv").want(t, exitOK).stdout; again != csv {
		t.Errorf("the same export differs:\n%s\n%s", csv, again)
	}
	var acts []map[string]any
	if err := json.Unmarshal([]byte(s.writ("audit", "--format", "json").want(t, exitOK).stdout), &acts); err != nil || len(acts) != 4 {
		t.Errorf("json: %d acts, %v", len(acts), err)
	}
	for _, c := range []struct {
		args string
		want int
	}{
		{"", 4},
		{"--actor bob@desk", 3},
		{"--actor bob@desk,ann@desk", 4},
		{"--actor nobody", 0},
		{"--id " + id.String(), 1},
		{"--since 1h", 4},
		{"--until 1h", 0},
		{"--since 2020-01-01T00:00:00Z --until 2100-01-01T00:00:00Z", 4},
	} {
		r := s.writ(strings.Fields("audit -o jsonl "+c.args)...).want(t, exitOK)
		if n := strings.Count(r.stdout, "\n"); n != c.want {
			t.Errorf("audit %s: %d acts; want %d", c.args, n, c.want)
		}
	}
	if r := s.writ("audit", "-o", "json", "--actor", "nobody").want(t, exitOK); strings.TrimSpace(r.stdout) != "[]" {
		t.Errorf("none: %q; want an empty array", r.stdout)
	}
}
