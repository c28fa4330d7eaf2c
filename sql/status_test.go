package sql_test

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
	writsql "github.com/writhq/writ/sql"
)

var update = flag.Bool("update", false, "rewrite golden files")

// scene is one row in a situation that an operator meets.
type scene struct {
	name   string
	status string // the derived word
	make   func(t *testing.T, b *bench) uuid.UUID
}

// flag brings a row to ambiguous for a reason, by a worker, with its deadline passed or not.
func (b *bench) flag(t *testing.T, worker uuid.UUID, timeout time.Duration, reason, message string) uuid.UUID {
	t.Helper()
	id := b.insert(t, kind)
	c := b.claim(t, id, timeout)
	b.finish(t, c, store.Outcome{Event: store.Flagged, Why: reason, Error: message})
	b.Run(t, "UPDATE writ.intents SET worker_id = $2 WHERE id = $1", id, worker)
	return id
}

func (b *bench) retried(t *testing.T, delay time.Duration) uuid.UUID {
	t.Helper()
	id := b.insert(t, kind)
	b.finish(t, b.claim(t, id, time.Minute), store.Outcome{Event: store.Retried, Why: "not done", Error: "dial tcp: connection refused", Delay: delay})
	return id
}

// scenes all stand in one database with: a live worker web-1 for blog.comment.notify, a dead one, a paused kind, a kind
// without workers, and a kind that nobody declared.
func scenes(dead uuid.UUID) []scene {
	with := func(position string) func(*testing.T, *bench) uuid.UUID {
		return func(t *testing.T, b *bench) uuid.UUID { t.Helper(); return b.at(t, kind, position) }
	}
	after := func(make func(*testing.T, *bench) uuid.UUID, statements ...string) func(*testing.T, *bench) uuid.UUID {
		return func(t *testing.T, b *bench) uuid.UUID {
			t.Helper()
			id := make(t, b)
			for _, sql := range statements {
				b.Run(t, sql, id)
			}
			return id
		}
	}
	of := func(kind string) func(*testing.T, *bench) uuid.UUID {
		return func(t *testing.T, b *bench) uuid.UUID { t.Helper(); return b.insert(t, kind) }
	}
	flagged := func(worker *uuid.UUID, timeout time.Duration, reason, message string) func(*testing.T, *bench) uuid.UUID {
		return func(t *testing.T, b *bench) uuid.UUID {
			t.Helper()
			w := b.worker
			if worker != nil {
				w = *worker
			}
			return b.flag(t, w, timeout, reason, message)
		}
	}
	const published = "DELETE FROM writ.outbox WHERE intent_id = $1"
	running := func(t *testing.T, b *bench) uuid.UUID {
		t.Helper()
		id := b.insert(t, kind)
		b.claim(t, id, time.Minute)
		return id
	}
	return append(moreScenes(after, flagged, with, running), []scene{
		{"scheduled", "scheduled", func(t *testing.T, b *bench) uuid.UUID {
			t.Helper()
			return testkit.Value[uuid.UUID](t, b.DB, "INSERT INTO writ.intents (kind, run_at) VALUES ($1, now() + interval '2 h') RETURNING id", kind)
		}},
		{"scheduled, moved by hand", "scheduled", after(with("pending"), "UPDATE writ.intents SET run_at = now() + interval '2 h' WHERE id = $1")},
		{"waiting for one", "waiting", after(with("pending"), "UPDATE writ.intents SET waiting_on = 1 WHERE id = $1")},
		{"waiting for three", "waiting", after(with("pending"), "UPDATE writ.intents SET waiting_on = 3 WHERE id = $1")},
		{"ready, in the outbox", "ready", with("pending")},
		{"ready, with the broker", "ready", after(with("pending"), published)},
		{"ready, sent again", "ready", after(with("pending"), published, "UPDATE writ.intents SET requeues = 2 WHERE id = $1")},
		{"ready, put back", "ready", after(with("pending"), "UPDATE writ.outbox SET due_at = now() + interval '30 s' WHERE intent_id = $1")},
		{"ready, second attempt", "ready", func(t *testing.T, b *bench) uuid.UUID { t.Helper(); return b.retried(t, -time.Minute) }},
		{"ready, kind paused", "ready", of("mail.letter.send")},
		{"ready, no workers", "ready", of("shop.order.ship")},
		{"ready, never declared, refused", "ready", after(of("who.knows.this"), "UPDATE writ.outbox SET failures = 3, last_error = 'NO_ROUTE: no such queue', due_at = now() + interval '20 s' WHERE intent_id = $1")},
		{"running", "running", running},
		{"running, past its deadline", "running", with("sending")},
		{"running, worker dead", "running", after(running, "UPDATE writ.intents SET worker_id = '"+dead.String()+"' WHERE id = $1")},
		{"running, worker forgotten", "running", after(running, "UPDATE writ.intents SET worker_id = writ.uuid_v7() WHERE id = $1")},
		{"retrying", "retrying", func(t *testing.T, b *bench) uuid.UUID { t.Helper(); return b.retried(t, time.Hour) }},
		{"ambiguous, unknown", "ambiguous", flagged(nil, -time.Hour, "unknown", "read tcp: connection reset by peer")},
		{"ambiguous, may still land", "ambiguous", flagged(nil, time.Minute, "timeout", "context deadline exceeded")},
		{"ambiguous, panic", "ambiguous", flagged(nil, -time.Hour, "panic", "panic: index out of range [3]")},
		{"ambiguous, stopped", "ambiguous", flagged(nil, -time.Hour, "cancelled", "context canceled")},
		{"ambiguous, overdue", "ambiguous", flagged(nil, -time.Minute, "overdue", "")},
		{"ambiguous, worker died", "ambiguous", flagged(&dead, -time.Hour, "worker-died", "")},
		{"ambiguous, worker back", "ambiguous", flagged(nil, -time.Hour, "worker-died", "")},
		{"ambiguous, worker forgotten", "ambiguous", flagged(&uuid.UUID{1}, -time.Hour, "worker-died", "")},
		{"ambiguous, hook failed", "ambiguous", flagged(nil, -time.Hour, "hook-failed", `relation "receipts" does not exist`)},
		{"ambiguous, by hand", "ambiguous", after(running, "UPDATE writ.intents SET flagged_at = now() WHERE id = $1")},
		{"ambiguous, to be probed", "ambiguous", after(flagged(nil, -time.Hour, "worker-died", ""), "UPDATE writ.intents SET probe_at = now() WHERE id = $1")},
		{"ambiguous, probed and again", "ambiguous", after(flagged(nil, -time.Hour, "worker-died", ""),
			"UPDATE writ.intents SET probe_at = now() + interval '2 min 30 s', probes = 1 WHERE id = $1",
			"INSERT INTO writ.log (intent_id, epoch, event, actor, why) VALUES ($1, 1, 'probed', 'probe', 'the provider answers 503')")},
		{"ambiguous, probed in vain", "ambiguous", after(flagged(nil, -time.Hour, "worker-died", ""),
			"UPDATE writ.intents SET probes = 5 WHERE id = $1",
			"INSERT INTO writ.log (intent_id, epoch, event, actor, why) VALUES ($1, 1, 'probed', 'probe', 'the provider answers 503')")},
		{"sent, its worker confirms", "sent", after(flagged(nil, -time.Hour, "unknown", "reset"),
			"SELECT writ.happened($1, 'sending', 1, 'ann', 'the customer has the mail')",
			"INSERT INTO writ.log (intent_id, epoch, event, actor, why, evidence) VALUES ($1, 1, 'late-report', 'worker', 'succeeded', '{\"meaning\": \"confirms\"}')")},
		{"error, its worker contradicts", "error", after(flagged(nil, -time.Hour, "unknown", "reset"),
			"SELECT writ.give_up($1, 'sending', 1, 'ann', 'nobody can tell any more')",
			"INSERT INTO writ.log (intent_id, epoch, event, actor, why, evidence) VALUES ($1, 1, 'late-report', 'worker', 'succeeded', '{\"meaning\": \"contradicts\"}')")},
		{"sent", "sent", with("sent")},
		{"sent, a person says", "sent", after(with("error"), "SELECT writ.happened($1, 'error', 1, 'ann', 'the customer has the mail')")},
		{"error, stopped", "error", with("error")},
		{"error, no text", "error", func(t *testing.T, b *bench) uuid.UUID {
			t.Helper()
			id := b.insert(t, kind)
			b.finish(t, b.claim(t, id, time.Minute), store.Outcome{Event: store.Failed, Why: "attempts spent; the last one: not done"})
			return id
		}},
		{"error, given up", "error", after(with("flagged"), "SELECT writ.give_up($1, 'sending', 1, 'ann', 'nobody can tell any more')")},
		{"error, recovery owed", "error", after(with("error"), "UPDATE writ.intents SET probe_at = now() WHERE id = $1")},
		{"cancelled", "cancelled", with("cancelled")},
		{"cancelled by hand", "cancelled", after(with("pending"), "UPDATE writ.intents SET state = 'cancelled' WHERE id = $1")},
	}...)
}

// stage is a database with all scenes; ids are by their names.
func stage(t *testing.T) (*bench, map[string]uuid.UUID) {
	t.Helper()
	b := setup(t)
	dead := uuid.New()
	b.Run(t, "UPDATE writ.workers SET kinds = ARRAY[$1, 'bank.transfer.send']", kind)
	b.beat(t, dead, -time.Minute, kind)
	furnish(t, b)
	b.Run(t, `INSERT INTO writ.kinds (name, queue, class, paused_at, paused_by, paused_why) VALUES
		('blog.comment.notify', 'mails', 'manual', NULL, NULL, NULL), ('shop.order.ship', 'shop.order.ship', 'manual', NULL, NULL, NULL),
		('mail.letter.send', 'mails', 'manual', now(), 'eve', 'the printer is out of paper')`)
	b.Run(t, "INSERT INTO writ.relay (queue, ready) VALUES ('mails', 7)")
	ids := map[string]uuid.UUID{}
	for _, s := range scenes(dead) {
		ids[s.name] = s.make(t, b)
	}
	// All of it was some time ago. Nobody moves a time.
	b.Run(t, "ALTER TABLE writ.intents DISABLE TRIGGER intents_guard")
	b.Run(t, `UPDATE writ.intents SET requested_at = requested_at - interval '3 h',
		run_at = CASE WHEN run_at > now() OR state = 'sending' OR state = 'pending' AND waiting_on > 0 THEN run_at ELSE run_at - interval '2 h' END, started_at = started_at - interval '1 h'`)
	b.Run(t, "ALTER TABLE writ.intents ENABLE TRIGGER intents_guard")
	b.Run(t, "UPDATE writ.outbox o SET due_at = o.due_at - interval '2 h' FROM writ.intents i WHERE i.id = o.intent_id AND i.state = 'pending' AND o.due_at < now()")
	b.Run(t, `DELETE FROM writ.outbox WHERE intent_id = ANY ($1)`, []uuid.UUID{ids["ready, with the broker"], ids["ready, sent again"]})
	b.Run(t, "UPDATE writ.intents SET requeues = 2 WHERE id = $1", ids["ready, sent again"])
	b.Run(t, "UPDATE writ.outbox SET due_at = now() + interval '30 s' WHERE intent_id = $1", ids["ready, put back"])
	b.Run(t, "UPDATE writ.outbox SET failures = 3, last_error = 'NO_ROUTE: no such queue', due_at = now() + interval '20 s' WHERE intent_id = $1", ids["ready, never declared, refused"])
	return b, ids
}

func TestStatus(t *testing.T) {
	t.Parallel()
	b, ids := stage(t)
	seen := map[string]bool{}
	for _, s := range scenes(uuid.Nil) {
		got := testkit.Value[string](t, b.DB, "SELECT status FROM writ.status WHERE id = $1", ids[s.name])
		if got != s.status {
			t.Errorf("%s: status = %q; want %q", s.name, got, s.status)
		}
		seen[got] = true
	}
	for _, word := range intent.Statuses() {
		if !seen[word] && word != "pending" && word != "sending" {
			t.Errorf("no scene is %s", word)
		}
	}
}

var volatile = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}`), "ID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+`), "TIME"},
	{regexp.MustCompile(`\b\d+ ms\b|\b\d+ s\b`), "SECONDS"},
	{regexp.MustCompile(`\b(\d+ [dhm]) \d+ [hms]\b`), "$1 …"},
	{regexp.MustCompile(`\b\d+ m …`), "MINUTES"},
}

// TestWhy keeps the words of writ.why for each situation in testdata/why.golden.
func TestWhy(t *testing.T) {
	t.Parallel()
	const file = "testdata/why.golden"
	b, ids := stage(t)
	var got strings.Builder
	for _, s := range scenes(uuid.Nil) {
		line := testkit.Value[string](t, b.DB, "SELECT writ.why($1)", ids[s.name])
		if !strings.HasPrefix(line, s.status+":") || strings.Contains(line, "\n") {
			t.Errorf("%s: %q does not begin with %q, or is no single line", s.name, line, s.status+":")
		}
		line = steady(line)
		fmt.Fprintf(&got, "# %s\n%s\n\n", s.name, line)
	}
	got.WriteString(otherWorlds(t, b, ids))
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// column runs a documented query and returns one column as text.
func column(t *testing.T, b *bench, query, column string) []string {
	t.Helper()
	rows, err := b.Query(ctx, asked(query))
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToMap)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, row := range all {
		switch v := row[column].(type) {
		case [16]byte:
			out = append(out, uuid.UUID(v).String())
		default:
			out = append(out, fmt.Sprint(v))
		}
	}
	return out
}

func TestQueries(t *testing.T) {
	t.Parallel()
	b, ids := stage(t)
	for name := range writsql.Queries() {
		if _, err := b.Exec(ctx, asked(name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// named lists the scenes of ids.
	named := func(rows []string) (names []string) {
		for name, id := range ids {
			if slices.Contains(rows, id.String()) {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return names
	}
	of := func(words ...string) (names []string) {
		for _, s := range scenes(uuid.Nil) {
			if slices.Contains(words, s.status) {
				names = append(names, s.name)
			}
		}
		slices.Sort(names)
		return names
	}
	for query, want := range map[string][]string{
		"needs_decision": of("ambiguous", "error"),
		"stale":          of("ready"),
	} {
		if diff := cmp.Diff(want, named(column(t, b, query, "id"))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
	}
	open := of("scheduled", "waiting", "ready", "running", "retrying", "ambiguous")
	if got := column(t, b, "oldest_open", "id"); len(got) != min(20, len(open)) {
		t.Errorf("oldest_open has %d rows; want %d", len(got), min(20, len(open)))
	}
	if got := column(t, b, "needs_decision", "status"); got[0] != "ambiguous" || got[len(got)-1] != "error" {
		t.Errorf("needs_decision = %v; want the ambiguous first", got)
	}
	counts := map[string]int{}
	for i, status := range column(t, b, "by_kind_and_state", "status") {
		n := 0
		if _, err := fmt.Sscan(column(t, b, "by_kind_and_state", "count")[i], &n); err != nil {
			t.Fatal(err)
		}
		counts[status] += n
	}
	want := map[string]int{}
	for _, s := range scenes(uuid.Nil) {
		want[s.status]++
	}
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Errorf("by_kind_and_state (-want +got):\n%s", diff)
	}
}
