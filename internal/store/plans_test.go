package store_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/internal/testkit"
	writsql "github.com/writhq/writ/sql"
)

// TestPlans: hot statements read along an index, whatever the planner believes of the tables: measured while they were
// small, never measured, or measured when they had grown. A claim once read the whole table on a plan from its first day.
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
		"FinishSent":        id + ", 1, " + worker + `, '{"(0,1)","(0,2)"}'`,
		"FinishSentWaiting": one + ", 1, " + worker,
		"FinishRetried":     one + ", 1, " + worker + ", '1 s', 'x', 1, 'y'",
		"FinishFlagged":     one + ", 1, " + worker + ", 'unknown', 'x', false",
		"RelayTake":         "'2000-01-01', '9999-01-01', 1000",
		"RelayDelete":       "'{\"(0,1)\"}'",
		"StalePending":      "'2000-01-01', " + one + ", '60 s', 20000",
		"Requeue":           id + ", '{0,0}'",
		"Orphans":           "NULL, 1000",
		"SettleOrphan":      one + ", 1, now(), '5 s', '10 s', now()",
	}
	stages := []struct{ name, sql string }{
		{"small and measured", "ANALYZE writ.intents, writ.outbox"},
		{"grown, not measured again", `WITH i AS (INSERT INTO writ.intents (id, tid, kind, event) SELECT id, id, 'test.plan.turn', 'requested'
			FROM (SELECT writ.uuid_v7() AS id FROM generate_series(1, 30000) OFFSET 0) g RETURNING id, kind)
			INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) SELECT clock_timestamp(), kind, id, 0, 'run' FROM i`},
		{"grown and measured", "ANALYZE writ.intents, writ.outbox"},
	}
	for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			db := testkit.Database(t)
			db.Run(t, "ALTER TABLE writ.intents SET (autovacuum_enabled = off)")
			db.Run(t, "ALTER TABLE writ.outbox SET (autovacuum_enabled = off)")
			db.Run(t, "INSERT INTO writ.intents (kind) SELECT 'test.plan.turn' FROM generate_series(1, 20)")
			conn, err := db.Acquire(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Release()
			for name := range hot { // prepared once: a generic plan is made on the first day
				exec(t, conn.Conn(), "PREPARE "+name+" AS "+writsql.Statement(name))
			}
			exec(t, conn.Conn(), "SET plan_cache_mode = "+mode)
			for _, stage := range stages {
				db.Run(t, stage.sql)
				for name, args := range hot {
					if plan := explain(t, conn.Conn(), name, args); strings.Contains(plan, "Seq Scan on intents") ||
						strings.Contains(plan, "Seq Scan on outbox") || strings.Contains(plan, "Sort ") {
						t.Errorf("%s, %s:\n%s", name, stage.name, plan)
					}
				}
			}
		})
	}
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
	rows, err := tx.Query(ctx, fmt.Sprintf("EXPLAIN EXECUTE %s(%s)", name, args), pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return strings.Join(lines, "\n")
}
