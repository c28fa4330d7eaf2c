package sql_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

// The log is append-only for everybody, the owner of the tables and superusers included.
func TestLog_appendOnly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.at(t, kind, "error")
	b.Run(t, "SELECT writ.note($1, 'ann', 'asked the provider')", id)
	owner := login(t, b.DB, "writ_owner")
	for _, q := range []querier{b.Pool, owner} {
		refused(t, q, store.CodeIllegal, "UPDATE writ.log SET why = 'it was otherwise'")
		refused(t, q, store.CodeIllegal, "DELETE FROM writ.log WHERE intent_id = $1", id)
		refused(t, q, store.CodeIllegal, "TRUNCATE writ.log")
	}
	n := len(entries(t, b.Pool, id))
	// The intent is gone: only the role that prunes may take its log.
	b.Run(t, "SELECT writ.cancel($1, 'error', 1, 'ann', 'not wanted any more')", id)
	b.Run(t, "DELETE FROM writ.intents WHERE id = $1", id)
	refused(t, owner, store.CodeIllegal, "DELETE FROM writ.log WHERE intent_id = $1", id)
	if got := len(entries(t, b.Pool, id)); got != n+1 {
		t.Errorf("%d log rows; want all %d", got, n+1)
	}
	prune := login(t, b.DB, "writ_relay")
	if tag, err := prune.Exec(ctx, "DELETE FROM writ.log WHERE intent_id = $1", id); err != nil || tag.RowsAffected() != int64(n+1) {
		t.Errorf("pruned %d, %v; want %d", tag.RowsAffected(), err, n+1)
	}
	refused(t, prune, denied, "UPDATE writ.log SET why = 'it was otherwise'")
	refused(t, prune, store.CodeIllegal, "DELETE FROM writ.log WHERE intent_id = $1", b.at(t, kind, "error"))
}

// Who was logged in, and when, is nobody's to choose.
func TestLog_namesTheUser(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, role := range []string{"writ_worker", "writ_relay"} {
		pool := login(t, b.DB, role)
		refused(t, pool, denied, "INSERT INTO writ.log (intent_id, epoch, event, actor, db_user) VALUES (writ.uuid_v7(), 0, 'note', 'ann', 'ann')")
		refused(t, pool, denied, "INSERT INTO writ.log (intent_id, epoch, event, actor, at) VALUES (writ.uuid_v7(), 0, 'note', 'ann', now() - interval '1 d')")
	}
	// Nobody hides from the audit behind a name of the engine.
	id := b.at(t, kind, "error")
	operator := login(t, b.DB, "writ_operator")
	for _, name := range []string{"worker", "reconciler", "probe", "relay", "application", " worker "} {
		refused(t, operator, store.CodeInvalid, "SELECT writ.cancel($1, 'error', 1, $2, 'not wanted any more')", id, name)
		refused(t, operator, store.CodeInvalid, "SELECT writ.note($1, $2, 'not wanted any more')", id, name)
	}
	b.Run(t, "BEGIN; SET LOCAL writ.actor = 'worker'; UPDATE writ.intents SET state = 'cancelled' WHERE id = '"+id.String()+"'; COMMIT")
	log := entries(t, b.Pool, id)
	if last := log[len(log)-1]; last.Actor != "database user "+last.DBUser {
		t.Errorf("actor = %q; want the database user", last.Actor)
	}
}

// Nobody forges another's act, and none of a person's is silent: what a worker's or a relay's login writes by hand is in the log,
// whatever it sets, and pausing is not theirs.
func TestLog_isSigned(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, role := range []string{"writ_worker", "writ_relay"} {
		pool := login(t, b.DB, role)
		for event, actor := range map[string]string{"happened": "ann", "flagged": "ann", "note": "worker", "paused": "reconciler", "retry": "relay"} {
			refused(t, pool, denied, "INSERT INTO writ.log (intent_id, epoch, event, actor) VALUES (writ.uuid_v7(), 1, $1, $2)", event, actor)
		}
		refused(t, pool, denied, "UPDATE writ.kinds SET paused_at = now(), paused_by = 'ann'")
		id := b.at(t, kind, "sending")
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SET LOCAL writ.engine = 'on'"); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "UPDATE writ.intents SET flagged_at = now(), flag_reason = 'unknown' WHERE id = $1", id)
			return err
		})
		must(t, "flag by hand", err)
		if log := entries(t, b.Pool, id); len(log) != 1 || log[0].Event != "flagged" || log[0].Actor != pool.Config().ConnConfig.User {
			t.Errorf("%s: the log says %+v; want the flag, by that login", role, log)
		}
	}
	pool := login(t, b.DB, "writ_worker")
	refused(t, pool, denied, "INSERT INTO writ.kinds (name, queue, class, paused_by) VALUES ('a.b.c', 'q', 'manual', 'ann')")
}

// A time that is moved by hand is an act, too.
func TestLog_hasMovedTimes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.insert(t, kind)
	b.Run(t, "UPDATE writ.intents SET run_at = run_at + interval '1 h' WHERE id = $1", id)
	log := entries(t, b.Pool, id)
	if len(log) != 1 || log[0].Event != "moved" || log[0].Evidence["was"] == nil || log[0].Actor != log[0].DBUser {
		t.Errorf("log = %+v; want the move, by the database user", log)
	}
}

// So is a flag that is set by hand; those of the engine come with their log, and are not told twice.
func TestLog_hasFlags(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.at(t, kind, "sending")
	before := len(entries(t, b.Pool, id))
	b.Run(t, "UPDATE writ.intents SET flagged_at = now(), flag_reason = 'looks odd' WHERE id = $1", id)
	b.Run(t, "UPDATE writ.intents SET flagged_at = now(), flag_reason = 'looks odder' WHERE id = $1", id) // flagged already
	log := entries(t, b.Pool, id)[before:]
	if len(log) != 1 || log[0].Event != "flagged" || text(log[0].Why) != "looks odd" || log[0].Actor != log[0].DBUser || log[0].Epoch != 1 {
		t.Errorf("log = %+v; want the flag, by the database user", log)
	}

	id = b.at(t, kind, "sending")
	before = len(entries(t, b.Pool, id))
	err := pgx.BeginFunc(ctx, b.Pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "SELECT set_config('writ.actor', 'ann', true), set_config('writ.why', 'the provider was down then', true)")
		if err == nil {
			_, err = tx.Exec(ctx, "UPDATE writ.intents SET flagged_at = now() WHERE id = $1", id)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	log = entries(t, b.Pool, id)[before:]
	if len(log) != 1 || log[0].Actor != "ann" || text(log[0].Why) != "the provider was down then" {
		t.Errorf("log = %+v; want it by ann, with her reason", log)
	}

	id = b.at(t, kind, "sending")
	before = len(entries(t, b.Pool, id))
	worker := testkit.Value[uuid.UUID](t, b.DB, "SELECT worker_id FROM writ.intents WHERE id = $1", id)
	if _, err := store.New(b.Pool).FinishOne(ctx, worker, store.Outcome{ID: id, Epoch: 1, Event: store.Flagged, Why: "unknown"}); err != nil {
		t.Fatal(err)
	}
	log = entries(t, b.Pool, id)[before:]
	if len(log) != 1 || log[0].Actor != "worker" {
		t.Errorf("log = %+v; want the worker's flag, once", log)
	}
}

func TestNote(t *testing.T) {
	t.Parallel()
	b := setup(t)
	pool := login(t, b.DB, "writ_operator")
	for _, position := range []string{"pending", "sending", "flagged", "sent", "error", "cancelled"} {
		id := b.at(t, kind, position)
		before := read(t, b.Pool, id)
		if _, err := pool.Exec(ctx, "SELECT writ.note($1, ' ann ', '  asked the provider ')", id); err != nil {
			t.Fatalf("%s: %v", position, err)
		}
		log := entries(t, b.Pool, id)
		last := log[len(log)-1]
		if last.Event != "note" || last.Actor != "ann" || text(last.Why) != "asked the provider" || last.Epoch != before.Epoch || last.DBUser != pool.Config().ConnConfig.User {
			t.Errorf("%s: log = %+v", position, last)
		}
		after := read(t, b.Pool, id)
		if before.State != after.State || before.Epoch != after.Epoch {
			t.Errorf("%s: a note changed %+v to %+v", position, before, after)
		}
	}
	refused(t, pool, store.CodeNotFound, "SELECT writ.note($1, 'ann', 'asked the provider')", uuid.New())
	id := b.insert(t, kind)
	refused(t, pool, store.CodeInvalid, "SELECT writ.note($1, '', 'asked the provider')", id)
	refused(t, pool, store.CodeInvalid, "SELECT writ.note($1, 'ann', NULL)", id)
	refused(t, pool, store.CodeInvalid, "SELECT writ.note($1, 'ann', $2)", id, strings.Repeat("x", 8193))
	refused(t, login(t, b.DB, "writ_viewer"), denied, "SELECT writ.note($1, 'ann', 'asked the provider')", id)
}

// A plan is made from SQL, too; the set is as given, each id once.
func TestBulk_bySQL(t *testing.T) {
	t.Parallel()
	b := setup(t)
	pool := login(t, b.DB, "writ_operator")
	first, second := b.at(t, kind, "error"), b.at(t, kind, "error")
	plan := func(what string) uuid.UUID {
		var bulk uuid.UUID
		err := pool.QueryRow(ctx, "SELECT writ.bulk_plan('cancel', "+what+", 'ann', 'not wanted any more')").Scan(&bulk)
		must(t, "plan", err)
		return bulk
	}
	var bulk uuid.UUID
	err := pool.QueryRow(ctx, "SELECT writ.bulk_plan('cancel', array_agg(id), array_agg(state), array_agg(epoch), 'ann', 'not wanted any more') FROM writ.intents WHERE state = 'error'").Scan(&bulk)
	must(t, "plan", err)
	twice := plan("ARRAY['" + first.String() + "', '" + first.String() + "']::uuid[], '{error,error}', '{1,1}'")
	if n := testkit.Value[int](t, b.DB, "SELECT total FROM writ.bulks WHERE id = $1", twice); n != 1 {
		t.Errorf("an id given twice counts %d times", n)
	}
	refused(t, pool, store.CodeIllegal, "SELECT writ.bulk_step($1, 10)", bulk)
	_, err = pool.Exec(ctx, "SELECT writ.bulk_start($1, 'bob')", bulk)
	must(t, "start", err)
	_, err = pool.Exec(ctx, "SELECT writ.bulk_step($1, 10)", bulk)
	must(t, "step", err)
	for _, id := range []uuid.UUID{first, second} {
		if got := read(t, b.Pool, id); got.State != "cancelled" {
			t.Errorf("%s is %s", id, got.State)
		}
	}
	for _, bad := range []string{"'{}', '{}', '{}'", "NULL, NULL, NULL"} {
		refused(t, pool, store.CodeNotFound, "SELECT writ.bulk_plan('cancel', "+bad+", 'ann', 'not wanted any more')")
	}
	id := "'{" + first.String() + "}'"
	for _, bad := range []string{id + ", '{}', '{1}'", id + ", '{error}', '{1,2}'", id + ", '{NULL}', '{1}'", "'{NULL}', '{error}', '{1}'", id + ", NULL, NULL"} {
		refused(t, pool, store.CodeInvalid, "SELECT writ.bulk_plan('cancel', "+bad+", 'ann', 'not wanted any more')")
	}
	checkDenied(t, pool, first, "INSERT INTO writ.bulk_rows (bulk_id, n, intent_id, state, epoch) VALUES (writ.uuid_v7(), 1, $1, 'error', 1)",
		"UPDATE writ.bulks SET verb = 'retry'", "DELETE FROM writ.bulk_rows", "SELECT writ.bulk_lock($1)")
	checkDenied(t, login(t, b.DB, "writ_viewer"), bulk, "SELECT writ.bulk_plan('cancel', ARRAY[$1::uuid], '{error}', '{1}', 'eve', 'it would like to')",
		"SELECT writ.bulk_start($1, 'eve')", "SELECT writ.bulk_step($1, 1)", "SELECT writ.bulk_abort($1, 'eve', 'it would like to')")
}

// Old bulks go when another is planned, those that are still to be gone on with do not.
func TestBulk_forgetsOldOnes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.at(t, kind, "error")
	plan := func() uuid.UUID {
		return testkit.Value[uuid.UUID](t, b.DB, "SELECT writ.bulk_plan('cancel', ARRAY[$1::uuid], '{error}', '{1}', 'ann', 'not wanted any more')", id)
	}
	never, begun := plan(), plan()
	b.Run(t, "SELECT writ.bulk_start($1, 'ann')", begun)
	b.Run(t, "UPDATE writ.bulks SET planned_at = $1", time.Now().Add(-91*24*time.Hour))
	last := plan()
	got := testkit.Value[[]uuid.UUID](t, b.DB, "SELECT array_agg(id ORDER BY id) FROM writ.bulks")
	if len(got) != 2 || got[0] != begun || got[1] != last {
		t.Errorf("bulks = %v; want %s gone, %s and %s kept", got, never, begun, last)
	}
	if n := testkit.Value[int](t, b.DB, "SELECT count(*) FROM writ.bulk_rows"); n != 2 {
		t.Errorf("%d rows are left; want 2", n)
	}
}
