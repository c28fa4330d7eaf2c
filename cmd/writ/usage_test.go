package main

import (
	"strings"
	"testing"
	"time"

	"github.com/writhq/writ/internal/testkit"
)

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, says string }{
		{"lst", "did you mean list"},
		{"frobnicate", "writ --help"},
		{"migrate", "say which: down, status, up"},
		{"migrate upp", "did you mean up"},
		{"dev strat", "writ dev"},
		{"dev exec", "no command given"},
		{"list --statu error", "did you mean --status?"},
		{"list --frobnicate", "unknown flag"},
		{"list --limit many", "--limit"},
		{"list -o yaml", "one of table, wide, json, jsonl"},
		{"list 7", "takes no arguments"},
		{"reconcile", "--once"},
		{"run --roles workers", "package workers"},
		{"run --roles king", "relay and reconciler"},
		{"run --schedule prune", "DUTY=WHEN"},
		{"run --schedule dance=never", "there is no such duty"},
		{"reconcile --once --limit -1", "--limit"},
	} {
		t.Run(c.args, func(t *testing.T) { call(t, "", strings.Fields(c.args)...).want(t, exitUsage, c.says) })
	}
	if r := call(t, ""); r.code != exitOK || !strings.Contains(r.stdout, "doctor") {
		t.Errorf("writ alone: %+v; want the help", r)
	}
	if r := call(t, "", "version"); r.code != exitOK || !strings.HasPrefix(r.stdout, "writ ") {
		t.Errorf("version: %+v", r)
	}
	call(t, "", "version", "-o", "json").want(t, exitOK)
}

// Not parallel: it moves to a directory without a development stack and empties the environment.
func TestConnect_FailsWhenNoDatabaseIsNamed(t *testing.T) {
	testkit.DatabaseURL(t)
	t.Setenv("DATABASE_URL", "")
	t.Setenv("AMQP_URL", "")
	t.Chdir(t.TempDir())
	call(t, "", "list").want(t, exitUsage, "set DATABASE_URL or --database", "writ dev up")
	r := call(t, "", "doctor").want(t, exitFindings)
	if !strings.Contains(r.stdout, "DATABASE_URL") || !strings.Contains(r.stdout, "AMQP_URL is not set") {
		t.Errorf("doctor: %s", r.stdout)
	}
}

func TestConnect_NeverPrintsAPassword(t *testing.T) {
	t.Parallel()
	const secret = "hunter2secret"
	for _, url := range []string{
		"postgres://ann:" + secret + "@127.0.0.1:1/shop",
		"postgres://ann:" + secret + "%zz@127.0.0.1:1/shop",
		"postgres://ann:" + secret + "/x@127.0.0.1:1/shop",
		"postgres://ann:" + secret + "@127.0.0.1:1/shop?sslmode=perhaps",
		"postgres://127.0.0.1:1/shop?user=ann&password=" + secret,
		"host=127.0.0.1 port=1 user=ann password=" + secret,
		"host=127.0.0.1 port=one password='" + secret + "'",
		secret,
	} {
		for _, verb := range [][]string{{"list"}, {"doctor"}, {"migrate", "status"}, {"migrate", "down"}, {"create", kindName}} {
			r := call(t, "", append([]string{"--database", url, "--amqp", "amqp://ann:" + secret + "@127.0.0.1:1/"}, verb...)...)
			if r.code == exitOK || strings.Contains(r.stdout+r.stderr, secret) {
				t.Errorf("%v with %s: exit code %d\n%s%s", verb, url, r.code, r.stdout, r.stderr)
			}
		}
	}
}

func TestClean(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a\x1b[31mb\x07\u009b2J": "a[31mb2J",
		"one\n\ttwo\r":           "one  two",
		"\u202eevil\u2066":       "evil",
		"bad \xff utf":           "bad \uFFFD utf",
		"Grüße, 世界":              "Grüße, 世界",
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q; want %q", in, got, want)
		}
	}
}

func TestSpan(t *testing.T) {
	t.Parallel()
	for in, want := range map[time.Duration]string{
		0: "0 ms", 999 * time.Millisecond: "999 ms", 59 * time.Second: "59 s", 61 * time.Second: "1 m 1 s",
		25 * time.Hour: "1 d 1 h", -90 * time.Minute: "1 h 30 m",
	} {
		if got := span(in); got != want {
			t.Errorf("span(%v) = %q; want %q", in, got, want)
		}
	}
}
