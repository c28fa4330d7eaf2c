package sql_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
	writsql "github.com/writhq/writ/sql"
)

var variable = regexp.MustCompile(`:'(\w+)'`)

// values of the variables that the documented queries take from psql.
var values = map[string]string{"subject": "account:7", "running": "cloud.instance.terminate", "pending": "cloud.instance.provision"}

// asked is a documented query as psql sends it.
func asked(name string) string {
	return variable.ReplaceAllStringFunc(writsql.Queries()[name], func(v string) string {
		return "'" + values[v[2:len(v)-1]] + "'"
	})
}

func TestFingerprint(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for want, texts := range map[string][]string{
		"order # is closed":        {"order 17 is closed", "order 18 is closed", "order #19 is closed", "order  4.711,5 is closed"},
		"request # failed":         {"request " + uuid.NewString() + " failed", "request 7 failed", `request "a b" failed`, "request 'a b' failed", "request `x` failed"},
		"dial tcp #: refused":      {"dial tcp 10.0.0.1:5432: refused", "dial tcp [::1]:5432: refused", "dial tcp [2001:db8::7]:80: refused"},
		"no route to #":            {"no route to 2001:db8::7", "no route to fe80:1:2:3:4:5:6:7", "no route to 10.0.0.1"},
		"no mailbox #":             {"no mailbox ann@example.org", "no mailbox bob.b+x@mail.example.co.uk"},
		"nil pointer at #":         {"nil pointer at 0xc000123abc", "nil pointer at 0x0"},
		"commit # is unknown":      {"commit 98857e0a1b is unknown", "commit 3f9b552deadbeef0123 is unknown"},
		"charge # was declined":    {"charge ch_3MmlLrLkdIwHu7ix0snN0B15 was declined", "charge tok-0123456789abcdef was declined"},
		"at # on #":                {"at 12:30:45 on 2026-11-22", "at 01:02:03.5 on 2025-01-02"},
		"can't find the user's":    {"can't find the user's"},
		"std::out is not x::y":     {"std::out is not x::y"},
		"no such customer":         {"no such customer", " no  such\ncustomer "},
		"connection reset by peer": {"connection reset by peer"},
		"":                         {"", " "},
	} {
		for _, text := range texts {
			if got := testkit.Value[string](t, b.DB, "SELECT writ.fingerprint($1)", text); got != want {
				t.Errorf("fingerprint(%q) = %q; want %q", text, got, want)
			}
		}
		if got := testkit.Value[string](t, b.DB, "SELECT writ.fingerprint($1)", want); got != want {
			t.Errorf("fingerprint(%q) = %q; want it to be its own", want, got)
		}
	}
	if got := testkit.Value[*string](t, b.DB, "SELECT writ.fingerprint(NULL)"); got != nil {
		t.Errorf("fingerprint(null) = %q", *got)
	}
}

func TestQueries_foldErrors(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, message := range []string{"order 17 is closed", "order 18 is closed", "no such customer", "request " + uuid.NewString() + " failed"} {
		b.finish(t, b.claim(t, b.insert(t, kind), time.Minute), store.Outcome{Event: store.Failed, Why: "stopped", Error: message})
	}
	b.finish(t, b.claim(t, b.insert(t, kind), time.Minute), store.Outcome{Event: store.Flagged, Why: "unknown", Error: "order 3 is closed"})
	got := map[string]string{}
	for i, message := range column(t, b, "errors", "error") {
		got[column(t, b, "errors", "status")[i]+": "+message] = column(t, b, "errors", "count")[i]
	}
	want := map[string]string{"error: order # is closed": "2", "error: no such customer": "1", "error: request # failed": "1", "ambiguous: order # is closed": "1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
}

// The queries about an application's own things find what they say.
func TestQueries_ofTheApplication(t *testing.T) {
	t.Parallel()
	b := setup(t)
	about := func(kind, subject, position string) uuid.UUID {
		id := b.at(t, kind, position)
		b.Run(t, "UPDATE writ.intents SET subjects = ARRAY[$2, 'region:1'] WHERE id = $1", id, subject)
		return id
	}
	done, failed := about(kind, "account:7", "sent"), about(kind, "account:7", "error")
	waiting, other, old := about(kind, "account:7", "pending"), about(kind, "account:8", "sent"), about(kind, "account:7", "sent")
	b.Run(t, "UPDATE writ.intents SET started_at = now() - interval '25 h' WHERE id = $1", old)
	terminate, provision := about("cloud.instance.terminate", "instance:1", "sending"), about("cloud.instance.provision", "instance:1", "pending")
	b.Run(t, "UPDATE writ.intents SET subjects = '{instance:1}' WHERE id = ANY ($1)", []uuid.UUID{terminate, provision})
	about("cloud.instance.provision", "instance:2", "pending")
	want := map[string][]uuid.UUID{
		"by_subject": {old, waiting, failed, done}, "ran_lately": {failed, done}, "running_while_pending": {terminate},
	}
	for query, ids := range want {
		name := map[string]string{"running_while_pending": "running"}[query]
		if name == "" {
			name = "id"
		}
		var texts []string
		for _, id := range ids {
			texts = append(texts, id.String())
		}
		if diff := cmp.Diff(texts, column(t, b, query, name)); diff != "" {
			t.Errorf("%s (-want +got; %s is another account's):\n%s", query, other, diff)
		}
	}
	if got := column(t, b, "running_while_pending", "pending"); len(got) != 1 || got[0] != provision.String() {
		t.Errorf("running_while_pending: %v is pending; want %s", got, provision)
	}
	b.Run(t, "INSERT INTO writ.kinds (name, queue, class) VALUES ($1, 'q', 'manual')", kind)
	sum := map[string]int{}
	for _, what := range []string{"requested", "sent", "error", "cancelled"} {
		for _, n := range column(t, b, "throughput", what) {
			k := 0
			if _, err := fmt.Sscan(n, &k); err != nil {
				t.Fatal(err)
			}
			sum[what] += k
		}
	}
	if diff := cmp.Diff(map[string]int{"requested": 8, "sent": 3, "error": 1, "cancelled": 0}, sum); diff != "" {
		t.Errorf("throughput (-want +got):\n%s", diff)
	}
	if minutes := column(t, b, "throughput", "minute"); len(minutes) != 60 {
		t.Errorf("throughput of %d minutes; want 60", len(minutes))
	}
}

func TestQueries_stuck(t *testing.T) {
	t.Parallel()
	b, ids := stage(t)
	got := column(t, b, "stuck", "id")
	stuck := map[string]bool{}
	for name, id := range ids {
		for _, one := range got {
			if one == id.String() {
				stuck[name] = true
			}
		}
	}
	for name, want := range map[string]bool{
		"running, past its deadline": true, "running, worker dead": true, "running, worker forgotten": true, "ready, hint lost": true,
		"running": false, "scheduled": false, "retrying": false, "ambiguous, unknown": false, "sent": false, "error, stopped": false,
	} {
		if stuck[name] != want {
			t.Errorf("stuck has %q: %v; want %v", name, stuck[name], want)
		}
	}
}

// TestQueries_onAMillionRows: on a large table in operation each query reads only what it is about. What a million finished
// rows cost it is counted in pages, which do not depend on the machine.
func TestQueries_onAMillionRows(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Run(t, "ALTER TABLE writ.intents SET (autovacuum_enabled = off)")
	b.Run(t, "INSERT INTO writ.kinds (name, queue, class) SELECT 'plan.kind.k' || g, 'q', 'manual' FROM generate_series(1, 10) g")
	b.Run(t, "ALTER TABLE writ.intents DISABLE TRIGGER USER")
	// A month of a million, the younger half of the last day; then 20,000 waiting, errors, ambiguous and running ones.
	b.Run(t, `INSERT INTO writ.intents (id, tid, kind, event, state, epoch, requested_at, run_at, started_at, finished_at, subjects)
		SELECT id, id, 'plan.kind.k' || 1 + g % 10, 'succeeded', 'sent', 1, at, at, at, at, CASE WHEN g % 5 = 0 THEN ARRAY['account:' || g % 5000] END
		FROM (SELECT g, at, (left(writ.uuid_at(at)::text, 15) || right(gen_random_uuid()::text, 21))::uuid AS id
			FROM (SELECT g, now() - (1000000 - g) * interval '2.6 s' AS at FROM generate_series(1, 1000000) g) t OFFSET 0) s`)
	b.Run(t, `INSERT INTO writ.intents (id, tid, kind, run_at, subjects) SELECT id, id, CASE WHEN g % 100 = 0 THEN 'cloud.instance.provision' ELSE 'plan.kind.k1' END,
		now() + (g - 10000) * interval '1 s', ARRAY['account:' || g % 5000] FROM (SELECT g, writ.uuid_v7() AS id FROM generate_series(1, 20000) g OFFSET 0) s`)
	b.Run(t, `INSERT INTO writ.intents (id, tid, kind, event, state, epoch, started_at, finished_at, failed_at, error)
		SELECT id, id, 'plan.kind.k2', 'failed', 'error', 1, now(), now(), now(), 'order ' || g || ' is closed: ' || g % 7 FROM (SELECT g, writ.uuid_v7() AS id FROM generate_series(1, 2000) g OFFSET 0) s`)
	b.Run(t, `INSERT INTO writ.intents (id, tid, kind, event, state, epoch, started_at, deadline_at, flagged_at, flag_reason, worker_id, subjects)
		SELECT id, id, 'cloud.instance.terminate', 'attempted', 'sending', 1, now(), now() + interval '1 min', CASE WHEN g % 2 = 0 THEN now() END, CASE WHEN g % 2 = 0 THEN 'unknown' END,
			$1, ARRAY['account:' || g] FROM (SELECT g, writ.uuid_v7() AS id FROM generate_series(1, 500) g OFFSET 0) s`, b.worker)
	b.Run(t, "ALTER TABLE writ.intents ENABLE TRIGGER USER")
	b.Run(t, "ANALYZE writ.intents")
	table := testkit.Value[int](t, b.DB, "SELECT relpages FROM pg_class WHERE oid = 'writ.intents'::regclass")
	list := map[string]string{ // what writ list, writ bulk plan and the typed views ask, by the same million
		"list by flag reason": "SELECT to_jsonb(s) FROM writ.status s WHERE flagged_at IS NOT NULL AND flag_reason = 'unknown' ORDER BY id DESC LIMIT 50",
		"bulk by error": `SELECT count(*) FROM writ.status WHERE error IS NOT NULL AND writ.fingerprint(error) = writ.fingerprint('order 1 is closed: 3')
			AND (flagged_at IS NOT NULL OR failed_at IS NOT NULL)`,
		"bulk cancel by kind": "SELECT count(*) FROM writ.status WHERE kind = 'plan.kind.k1' AND (failed_at IS NOT NULL OR (state = 'pending' AND finished_at IS NULL))",
		"error groups":        "SELECT * FROM writ.error_groups",
	}
	for name := range writsql.Queries() {
		if name != "by_kind_and_state" { // which says that it reads all
			list[name] = asked(name)
		}
	}
	for name, query := range list {
		plan, pages, took := explain(t, b, query)
		t.Logf("%-22s %6d pages of %d, %v", name, pages, table, took)
		if pages > table*3/4 {
			t.Errorf("%s read %d pages; the table has %d:\n%s", name, pages, table, plan)
		}
		if strings.Contains(plan, `"Node Type": "Seq Scan"`) && regexp.MustCompile(`(?s)"Node Type": "Seq Scan",[^{}]*"Relation Name": "intents"`).MatchString(plan) {
			t.Errorf("%s reads the whole table:\n%s", name, plan)
		}
	}
}

// explain runs a query and returns its plan as JSON, the pages that it read and how long it took.
func explain(t *testing.T, b *bench, query string) (plan string, pages int, took time.Duration) {
	t.Helper()
	rows, err := b.Query(ctx, "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) "+query)
	if err != nil {
		t.Fatal(err)
	}
	plan, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	var read []struct {
		Plan struct {
			Hit  int `json:"Shared Hit Blocks"`
			Read int `json:"Shared Read Blocks"`
		}
		Took float64 `json:"Execution Time"`
	}
	if err := json.Unmarshal([]byte(plan), &read); err != nil {
		t.Fatal(err)
	}
	return plan, read[0].Plan.Hit + read[0].Plan.Read, time.Duration(read[0].Took * float64(time.Millisecond)).Round(time.Millisecond)
}
