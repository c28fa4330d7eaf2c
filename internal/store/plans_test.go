package store_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/internal/testkit"
	writsql "github.com/writhq/writ/sql"
)

// TestPlans: hot statements take one path (testdata/plans.txt), whatever the planner believes of the tables: never measured,
// measured while they were small, or when they had grown to a million rows. A claim once read the whole table on a plan
// from its first day.
func TestPlans(t *testing.T) {
	t.Parallel()
	const id = "'{01990000-0000-7000-8000-000000000001,01990000-0000-7000-8000-000000000002}'"
	const worker = "'01990000-0000-7000-8000-000000000003'"
	const one = "'01990000-0000-7000-8000-000000000001'"
	hot := map[string]string{
		"Claim":             id + ", 0, " + worker + ", '60 s', '{test.plan.turn}'",
		"ClaimWaiting":      one + ", 0, " + worker + ", '60 s', '{test.plan.turn}'",
		"ReadMine":          one + ", 1, " + worker,
		"ReadHinted":        id,
		"FinishSent":        id + ", 1, " + worker,
		"StandSent":         id + ", 1, " + worker,
		"FinishSentWaiting": one + ", 1, " + worker + ", NULL",
		"FinishRetried":     one + ", 1, " + worker + ", '1 s', 'x', 1, 'y'",
		"FinishFlagged":     one + ", 1, " + worker + ", 'unknown', 'x', false",
		"RelayTake":         "'2000-01-01', '9999-01-01', 1000",
		"RelayDelete":       "'{\"(0,1)\"}'",
		"RelayGlance":       "'2000-01-01', 32",
		"StalePending":      "'2000-01-01', " + one + ", '60 s', 20000",
		"Requeue":           id + ", '{0,0}'",
		"Orphans":           "NULL, 1000",
		"OrphanWindow":      "NULL, 10000, '2000-01-01', " + one,
		"SettleOrphan":      one + ", 1, now(), '5 s', '10 s', now()",
		"TakeProbe":         one + ", 1, 'test.plan.turn', '35 s'",
		"ProbesDue":         "",
		"ProbesMissing":     "",
	}
	ctx := context.Background()
	db := testkit.Database(t)
	db.Run(t, "ALTER TABLE writ.intents SET (autovacuum_enabled = off)")
	db.Run(t, "ALTER TABLE writ.outbox SET (autovacuum_enabled = off)")
	conns := map[string]*pgxpool.Conn{}
	for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
		conn, err := db.Acquire(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
		for name := range hot { // prepared once: a generic plan is made on the first day
			exec(t, conn.Conn(), "PREPARE "+name+" AS "+writsql.Statement(name))
		}
		exec(t, conn.Conn(), "SET plan_cache_mode = "+mode)
		conns[mode] = conn
	}
	grow := func(n int) string {
		return fmt.Sprintf(`WITH i AS (INSERT INTO writ.intents (id, tid, kind, event) SELECT id, id, 'test.plan.turn', 'requested'
			FROM (SELECT writ.uuid_v7() AS id FROM generate_series(1, %d) OFFSET 0) g RETURNING id, kind)
			INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) SELECT clock_timestamp(), kind, id, 0, 'run' FROM i`, n)
	}
	million := `ALTER TABLE writ.intents DISABLE TRIGGER USER;
		INSERT INTO writ.intents (id, tid, kind, event, state, epoch, finished_at)
			SELECT id, id, 'test.plan.turn', 'succeeded', 'sent', 1, now() FROM (SELECT writ.uuid_v7() AS id FROM generate_series(1, 1000000) OFFSET 0) g;
		ALTER TABLE writ.intents ENABLE TRIGGER USER`
	paths := map[string]map[string][]string{} // by statement: the path, and at which stages it was taken
	for _, stage := range []struct{ name, sql string }{
		{"empty, never measured", ""},
		{"small, never measured", grow(20)},
		{"small and measured", "ANALYZE writ.intents, writ.outbox"},
		{"grown, not measured again", grow(30_000)},
		{"grown and measured", "ANALYZE writ.intents, writ.outbox"},
		{"a million finished, not measured again", million},
		{"a million finished, measured", "ANALYZE writ.intents, writ.outbox"},
	} {
		exec(t, conns["force_custom_plan"].Conn(), stage.sql)
		for mode, conn := range conns {
			for name, args := range hot {
				path := path(explain(t, conn.Conn(), name, args))
				if paths[name] == nil {
					paths[name] = map[string][]string{}
				}
				paths[name][path] = append(paths[name][path], stage.name+", "+mode)
			}
		}
	}

	var got strings.Builder
	for _, name := range slices.Sorted(maps.Keys(hot)) {
		if len(paths[name]) > 1 {
			t.Errorf("the plan of %s turns:", name)
		}
		for path, stages := range paths[name] {
			if len(paths[name]) > 1 {
				t.Errorf("%s:\n%s", strings.Join(stages, "; "), path)
			}
			fmt.Fprintf(&got, "%s\n%s\n", name, path)
		}
	}
	const golden = "testdata/plans.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" && !t.Failed() {
		t.Errorf("plans (-%s +got; -update if that is meant):\n%s", golden, diff)
	}
}

// path is what a plan does to the tables that grow: how it reads them, and what it sorts. Tables of a few rows, like that
// of the kinds, may be read as the planner likes.
func path(plan string) string {
	var out strings.Builder
	for line := range strings.Lines(plan) {
		line, _, _ = strings.Cut(strings.TrimLeft(line, " ->"), "  (cost")
		if strings.Contains(line, " on intents") || strings.Contains(line, " on outbox") || strings.HasPrefix(line, "Sort") || strings.HasPrefix(line, "Gather") {
			fmt.Fprintf(&out, "    %s\n", strings.TrimSpace(line))
		}
	}
	return out.String()
}

func exec(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(context.Background(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// explain returns a prepared statement's plan in an engine transaction, without running it.
func explain(t *testing.T, conn *pgx.Conn, name, args string) string {
	t.Helper()
	ctx := context.Background()
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(ctx) }()
	exec(t, conn, writsql.Statement("EngineTransaction"))
	rows, err := tx.Query(ctx, "EXPLAIN EXECUTE "+name+strings.TrimSuffix("("+args+")", "()"), pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return strings.Join(lines, "\n")
}
