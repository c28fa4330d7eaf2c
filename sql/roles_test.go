package sql_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
	writsql "github.com/writhq/writ/sql"
)

const denied = "42501"

// login makes a login role with one of Writ's roles, and returns a pool of its sessions. The role is gone with the test.
func login(t *testing.T, db *testkit.DB, role string) *pgxpool.Pool {
	t.Helper()
	name := "writ_test_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	db.Run(t, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD 'secret' IN ROLE %s", name, role))
	config := db.Config().Copy()
	config.ConnConfig.User, config.ConnConfig.Password = name, "secret"
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		pool.Close()
		db.Run(t, "DROP ROLE "+name)
	})
	return pool
}

// must fails the test at the first error of a role's own work.
func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// inConn runs do on one connection of the pool.
func inConn(t *testing.T, pool *pgxpool.Pool, do func(*pgx.Conn)) {
	t.Helper()
	conn, err := pool.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	do(conn.Conn())
}

func TestRole_creator(t *testing.T) {
	t.Parallel()
	b := setup(t)
	pool := login(t, b.DB, "writ_creator")
	k := intent.Kind[map[string]int]{Name: kind}
	var ids []intent.Created
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		one, err := k.Create(ctx, tx, map[string]int{"n": 1}, intent.Opts{Subjects: []string{"comment:1"}, Meta: map[string]any{"a": 1}})
		if err != nil {
			return fmt.Errorf("Create: %w", err)
		}
		keyed, err := k.Create(ctx, tx, map[string]int{"n": 2}, intent.Opts{Key: "n2"})
		if err != nil {
			return fmt.Errorf("Create with a key: %w", err)
		}
		again, err := k.Create(ctx, tx, map[string]int{"n": 2}, intent.Opts{Key: "n2"})
		if err != nil || again.ID != keyed.ID {
			return fmt.Errorf("Create again: %v, %w", again, err)
		}
		_, err = k.CreateMany(ctx, tx, []intent.One[map[string]int]{{Opts: intent.Opts{Key: "m"}}, {}, {Opts: intent.Opts{ID: one.ID}, Args: map[string]int{"n": 1}}})
		if err != nil {
			return fmt.Errorf("CreateMany: %w", err)
		}
		ids = []intent.Created{one, keyed}
		return nil
	})
	must(t, "create", err)
	_, err = pool.Exec(ctx, `INSERT INTO writ.intents (kind, args, run_at) VALUES ($1, '{}', now())`, kind)
	must(t, "insert by hand", err)
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT writ.inherit($1)", ids[0].ID); err != nil {
			return fmt.Errorf("inherit: %w", err)
		}
		if _, err := tx.Exec(ctx, `INSERT INTO writ.intents (kind, parent_id) VALUES ($1, $2)`, kind, ids[0].ID); err != nil {
			return fmt.Errorf("insert a child: %w", err)
		}
		if _, err := k.Create(ctx, tx, nil, intent.Opts{Parent: ids[0].ID}); err != nil {
			return fmt.Errorf("create a child: %w", err)
		}
		_, err := intent.Event[int]{Name: "comment.added"}.Publish(ctx, tx, 1, intent.EventOpts{})
		return err
	})
	must(t, "inherit and publish", err)
	_, err = intent.Cancel(ctx, pool, intent.Verdict{
		ID: ids[0].ID, Seen: intent.Position{State: "pending"}, Actor: "blog", Why: "the comment was deleted",
	})
	must(t, "cancel", err)
	var state string
	must(t, "read", pool.QueryRow(ctx, "SELECT state FROM writ.intents WHERE id = $1", ids[0].ID).Scan(&state))
	checkDenied(t, pool, b.at(t, kind, "error"),
		"UPDATE writ.intents SET state = 'cancelled'", "DELETE FROM writ.intents", "TRUNCATE writ.intents", "UPDATE writ.keys SET key = 'x'",
		"INSERT INTO writ.intents (kind, waiting_on) VALUES ('a.b.c', 1)", "INSERT INTO writ.intents (kind, generation) VALUES ('a.b.c', 1)",
		"SELECT * FROM writ.outbox", "DELETE FROM writ.outbox", "SELECT * FROM writ.workers", "SELECT * FROM writ.log", "INSERT INTO writ.log (intent_id, epoch, event, actor) VALUES (writ.uuid_v7(), 0, 'x', 'x')",
		"UPDATE writ.kinds SET max_args = 1", "UPDATE writ.settings SET paused_at = NULL", "CREATE TABLE writ.mine ()",
		"SELECT * FROM writ.inbox", "SELECT writ.own('blog')", "SELECT writ.decide_event('drop', 's', 'a', 'e', 'blog', 'it would like to')",
		"SELECT writ.retry($1, 'error', 1, 'blog', 'it would like to')", "SELECT writ.happened($1, 'error', 1, 'blog', 'it would like to')",
		"SELECT writ.give_up($1, 'error', 1, 'blog', 'it would like to')", "SELECT writ.adopt('blog', 'it would like to')", "SELECT writ.quarantine(now(), 'blog', 'it would like to')", "SELECT writ.pause('blog', 'it would like to')",
		"SELECT writ.decide($1, 'sent', 'error', 1, 'blog', 'it would like to', NULL)", "SET ROLE writ_owner")
}

// checkDenied runs statements that the role must not be let through with; $1 is an error row.
func checkDenied(t *testing.T, pool *pgxpool.Pool, id uuid.UUID, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		var args []any
		if strings.Contains(sql, "$1") {
			args = []any{id}
		}
		_, err := pool.Exec(ctx, sql, args...)
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || pgErr.Code != denied {
			t.Errorf("%s: %v; want permission denied", sql, err)
		}
	}
}

func TestRole_worker(t *testing.T) {
	t.Parallel()
	b := setup(t)
	pool := login(t, b.DB, "writ_worker")
	s, me := store.New(pool), uuid.New()
	_, err := s.Settings(ctx)
	must(t, "Settings", err)
	declaration := store.Declaration{
		Name: kind, Queue: kind, Class: "manual", Timeout: time.Minute, MaxAttempts: 10, BackoffMin: time.Second, BackoffMax: time.Hour,
		BackoffFactor: 2, MaxArgs: 100, ArgsVersion: 1, Recovers: true, Completes: true, MaxProbes: 5,
	}
	must(t, "Own", s.Own(ctx, "blog"))
	must(t, "Own again", s.Own(ctx, "blog"))
	for _, sql := range []string{"SELECT writ.own('shop')", "SELECT writ.own(NULL)", "SELECT writ.own(NULL, 'blog', 'it would like to')", "SELECT writ.set_owner(NULL, 'blog', 'it would like to')"} {
		if _, err := pool.Exec(ctx, sql); err == nil {
			t.Errorf("a worker may %s", sql)
		}
	}
	b.Run(t, "SELECT writ.own(NULL, 'ann', 'the kinds of this test are of several')")
	must(t, "Declare", s.Declare(ctx, []store.Declaration{declaration}))
	declaration.MaxArgs = 65536
	must(t, "Declare again", s.Declare(ctx, []store.Declaration{declaration}))
	inConn(t, pool, func(conn *pgx.Conn) {
		beat := store.Beat{ID: me, Host: "h", PID: 1, Version: "v", Kinds: []string{kind}, Slots: 1, TTL: time.Hour}
		for _, what := range []string{"SendBeat", "SendBeat again"} {
			_, err := store.SendBeat(ctx, conn, beat)
			must(t, what, err)
		}
		must(t, "NoteRun", store.NoteRun(ctx, conn, kind, time.Millisecond))
		_, err := store.PausedKinds(ctx, conn)
		must(t, "PausedKinds", err)
	})

	outcomes := []store.Outcome{
		{Event: store.Succeeded},
		{Event: store.Retried, Why: "not done", Error: "refused", Delay: time.Hour},
		{Event: store.Retried, Why: "snoozed", Free: true},
		{Event: store.Failed, Why: "stopped", Error: "no such customer"},
		{Event: store.Flagged, Why: "unknown", Error: "reset", Probe: true},
	}
	for _, single := range []string{"FinishBatch", "FinishOne"} {
		for _, o := range outcomes {
			id := b.insert(t, kind)
			got, err := s.Claim(ctx, me, []store.Group{{Timeout: time.Minute, IDs: []uuid.UUID{id}}})
			if err != nil || len(got) != 1 {
				t.Fatalf("Claim: %v, %v", got, err)
			}
			o.ID, o.Epoch = id, 1
			if single == "FinishBatch" {
				left, err := s.FinishBatch(ctx, me, []store.Outcome{o})
				if err != nil || len(left) > 0 {
					t.Errorf("FinishBatch %s: left %v, %v", o.Event, left, err)
				}
				continue
			}
			if o.Event == store.Succeeded { // the receipt, and what a job creates
				o.Hook = func(ctx context.Context, tx pgx.Tx) error {
					_, err := intent.Kind[int]{Name: kind}.Create(ctx, tx, 1, intent.Opts{Key: "child", Parent: id})
					return err
				}
			}
			if fate, err := s.FinishOne(ctx, me, o); err != nil || fate.Late {
				t.Errorf("FinishOne %s: %+v, %v", o.Event, fate, err)
			}
		}
	}

	id := b.insert(t, kind)
	c, err := s.ClaimAgain(ctx, me, store.Hint{ID: id, Kind: kind}, time.Minute)
	if err != nil || c == nil {
		t.Fatalf("ClaimAgain: %v, %v", c, err)
	}
	doubtful := testkit.Value[uuid.UUID](t, b.DB, "SELECT id FROM writ.intents WHERE probe_at IS NOT NULL AND state = 'sending' LIMIT 1")
	testkit.Value[string](t, b.DB, "INSERT INTO writ.kinds AS k (name, queue, class) VALUES ($1, 'q', 'probed') ON CONFLICT (name) DO UPDATE SET class = 'probed' RETURNING name", kind)
	asking, err := s.TakeProbe(ctx, store.Hint{ID: doubtful, Epoch: 1, Kind: kind}, time.Minute)
	if err != nil || asking == nil {
		t.Fatalf("TakeProbe: %v, %v", asking, err)
	}
	result, err := s.AnswerProbe(ctx, me, asking, store.Answer{Finding: store.FoundDone, Why: "it is in the ledger"})
	if err != nil || result != "happened" {
		t.Errorf("AnswerProbe: %q, %v", result, err)
	}
	_, err = s.Standings(ctx, []uuid.UUID{id})
	must(t, "Standings", err)
	must(t, "PutBack", s.PutBack(ctx, []store.Back{{Hint: store.Hint{ID: id, Kind: kind, Op: "run"}, Delay: time.Second}}))
	b.finishAs(t, me, *c, store.Outcome{Event: store.Flagged, Why: "unknown"})
	b.Run(t, "SELECT writ.give_up($1, 'sending', 1, 'ann', 'nobody can tell any more')", id)
	fate, err := s.FinishOne(ctx, me, store.Outcome{ID: id, Epoch: 1, Event: store.Succeeded})
	if err != nil || !fate.Late || fate.State != "error" {
		t.Errorf("late report: %+v, %v", fate, err)
	}
	owed, err := s.Recover(ctx, me, store.Hint{ID: id, Epoch: 2, Kind: kind}, []string{store.StateError}, func(context.Context, pgx.Tx, store.Owed) error { return nil })
	if err != nil || !owed {
		t.Errorf("Recover: %v, %v", owed, err)
	}
	done := b.insert(t, kind)
	b.claimAs(t, me, done, time.Minute)
	b.Run(t, "UPDATE writ.intents SET flagged_at = now(), flag_reason = 'unknown' WHERE id = $1", done)
	b.Run(t, "SELECT writ.happened($1, 'sending', 1, 'ann', 'the charge is in their list')", done)
	locked := errors.New("the orders are locked")
	owed, err = s.Recover(ctx, me, store.Hint{ID: done, Epoch: 2, Kind: kind}, []string{store.StateSent}, func(context.Context, pgx.Tx, store.Owed) error { return locked })
	if !errors.Is(err, locked) || !owed || !strings.Contains(testkit.Value[string](t, b.DB, "SELECT writ.why($1)", done), locked.Error()) {
		t.Errorf("Recover what happened: %v, %v", owed, err)
	}
	receive(t, s)
	_, err = s.Counts(ctx)
	must(t, "Counts", err)
	_, _, err = s.OutboxAge(ctx)
	must(t, "OutboxAge", err)
	inConn(t, pool, func(conn *pgx.Conn) { must(t, "Depart", store.Depart(ctx, conn, me)) })

	// A refusal of the guard is one of the guard, with the ways out, not one of the rights.
	refused(t, pool, store.CodeIllegal, "UPDATE writ.intents SET state = 'sent', event = 'succeeded' WHERE id = $1", id)
	checkDenied(t, pool, b.at(t, kind, "error"),
		"DELETE FROM writ.intents", "TRUNCATE writ.intents", "DELETE FROM writ.outbox", "UPDATE writ.outbox SET due_at = now()",
		"DELETE FROM writ.kinds", "UPDATE writ.settings SET paused_at = NULL", "DELETE FROM writ.log", "UPDATE writ.log SET why = ''",
		"DELETE FROM writ.inbox", "SELECT writ.decide_event('drop', 's', 'a', 'e', 'job', 'it would like to')",
		"DELETE FROM writ.keys", "SELECT * FROM writ.leader", "UPDATE writ.relay SET ready = 0", "CREATE TABLE writ.mine ()",
		"SELECT writ.retry($1, 'error', 1, 'job', 'it would like to')", "SELECT writ.happened($1, 'error', 1, 'job', 'it would like to')",
		"SELECT writ.adopt('job', 'it would like to')", "SELECT writ.quarantine(now(), 'job', 'it would like to')", "SELECT writ.pause('job', 'it would like to')", "SELECT writ.decide($1, 'sent', 'error', 1, 'job', 'it would like to', NULL)")
}

// receive is a subscription's work: an event that is taken, and one that fails, twice, and then is taken.
func receive(t *testing.T, s *store.Store) {
	t.Helper()
	must(t, "Own", s.Own(ctx, strings.Split(kind, ".")[0]))
	must(t, "DeclareSubscriptions", s.DeclareSubscriptions(ctx, []store.Subscription{{Name: "s", Event: "a.b", Queue: "q"}}))
	fine := store.Arrival{Subscription: "s", Source: "api", EventID: "e1"}
	failing := store.Arrival{Subscription: "s", Source: "api", EventID: "e2", Headers: []byte(`{"id": "e2"}`), Payload: []byte{0xff}}
	for i, fresh := range []int{1, 0} {
		got := 0
		err := s.Settle(ctx, []store.Arrival{fine, fine}, func(ctx context.Context, tx pgx.Tx, which []int) error {
			got = len(which)
			_, err := intent.Kind[int]{Name: kind}.Create(ctx, tx, 1, intent.Opts{})
			return err
		})
		must(t, "Settle", err)
		if got != fresh {
			t.Errorf("Settle, time %d: %d are new; want %d", i+1, got, fresh)
		}
	}
	soon := time.Duration(0)
	for range 2 { // the second time it is a repeat by the broker, and changes nothing
		must(t, "Fail", s.Fail(ctx, failing, "not yet", &soon))
	}
	for failures := int32(1); failures <= 2; failures++ {
		due, err := s.DueArrivals(ctx, []string{"s"}, []int32{5}, time.Minute)
		if err != nil || len(due) != 1 || due[0].Failures != failures || string(due[0].Payload) != "\xff" {
			t.Fatalf("DueArrivals: %+v, %v; want one that failed %d times", due, err, failures)
		}
		again, err := s.DueArrivals(ctx, []string{"s"}, []int32{5}, time.Minute)
		if err != nil || len(again) != 0 {
			t.Errorf("taken again: %v, %v", again, err)
		}
		if failures == 1 {
			must(t, "Fail again", s.Fail(ctx, due[0], "not yet", &soon))
			must(t, "Fail late", s.Fail(ctx, due[0], "not yet", &soon)) // whose answer was lost
			continue
		}
		taken := 0
		for range 2 {
			must(t, "Settle", s.Settle(ctx, due, func(context.Context, pgx.Tx, []int) error { taken++; return nil }))
		}
		if taken != 1 {
			t.Errorf("a retry was taken %d times", taken)
		}
	}
	_, err := s.InboxCounts(ctx)
	must(t, "InboxCounts", err)
}

func TestRole_relay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	pool := login(t, b.DB, "writ_relay")
	s, me := store.New(pool), uuid.New()
	b.Run(t, "INSERT INTO writ.kinds (name, queue, class, retention_sent) VALUES ($1, 'q', 'manual', '0')", kind)
	b.insert(t, kind)
	inConn(t, pool, func(conn *pgx.Conn) { relayWork(t, store.NewOutbox(conn)) })
	reconcile(t, b, s, me)
	checkDenied(t, pool, b.at(t, kind, "error"),
		"INSERT INTO writ.intents (kind) VALUES ('a.b.c')", "TRUNCATE writ.outbox", "UPDATE writ.kinds SET max_args = 1", "INSERT INTO writ.keys VALUES ('a.b.c', 'k', writ.uuid_v7())",
		"UPDATE writ.log SET why = ''", "UPDATE writ.settings SET paused_at = NULL", "INSERT INTO writ.workers (id, host, pid, version, kinds, slots, ttl) VALUES (writ.uuid_v7(), '', 1, '', '{}', 1, '1 s')",
		"SELECT writ.cancel($1, 'error', 1, 'relay', 'it would like to')", "SELECT writ.retry($1, 'error', 1, 'relay', 'it would like to')",
		"SELECT writ.adopt('relay', 'it would like to')", "SELECT writ.quarantine(now(), 'relay', 'it would like to')", "SELECT writ.pause('relay', 'it would like to')", "CREATE TABLE writ.mine ()")
}

func relayWork(t *testing.T, o *store.Outbox) {
	t.Helper()
	due, err := o.Peek(ctx)
	if err != nil || !due {
		t.Errorf("Peek: %v, %v", due, err)
	}
	_, _, err = o.Routes(ctx)
	must(t, "Routes", err)
	taken, err := o.Take(ctx, time.Unix(0, 0), time.Now().Add(time.Hour), 10)
	if err != nil || len(taken.Rows) != 1 {
		t.Fatalf("Take: %v, %v", taken, err)
	}
	must(t, "Finish, refused", taken.Finish(ctx, nil, []store.Refusal{{Refs: []pgtype.TID{taken.Rows[0].Ref}, Why: "no such queue"}}))
	must(t, "Revive", o.Revive(ctx, []string{kind}))
	taken, err = o.Take(ctx, time.Unix(0, 0), time.Now().Add(time.Hour), 10)
	if err != nil || len(taken.Rows) != 1 {
		t.Fatalf("Take after Revive: %v, %v", taken, err)
	}
	must(t, "Finish", taken.Finish(ctx, []pgtype.TID{taken.Rows[0].Ref}, nil))
	for what, ask := range map[string]func(context.Context) (bool, error){"Seat": o.Seat, "Sleep": o.Sleep} {
		if yes, err := ask(ctx); err != nil || !yes {
			t.Errorf("%s: %v, %v", what, yes, err)
		}
	}
	must(t, "Wake", o.Wake(ctx))
	must(t, "NoteDepths", o.NoteDepths(ctx, map[string]int{"q": 3, "r": -1}))
	must(t, "NoteDepths again", o.NoteDepths(ctx, map[string]int{"q": 4}))
}

func reconcile(t *testing.T, b *bench, s *store.Store, me uuid.UUID) {
	t.Helper()
	for range 2 {
		if leads, err := s.Lead(ctx, "reconciler", me, time.Minute); err != nil || !leads {
			t.Fatalf("Lead: %v, %v", leads, err)
		}
	}
	seen, err := s.Observe(ctx)
	must(t, "Observe", err)
	w, err := s.StalePending(ctx, store.Place{RunAt: time.Unix(0, 0)}, -time.Minute, 10)
	if err != nil || len(w.Stale) != 1 {
		t.Fatalf("StalePending: %+v, %v", w, err)
	}
	if done, err := s.Requeue(ctx, w.Stale); err != nil || len(done) != 1 {
		t.Errorf("Requeue: %d, %v", len(done), err)
	}

	// Each class of a dead worker's rows.
	b.Run(t, `INSERT INTO writ.kinds (name, queue, class, max_attempts, recovers) VALUES
		('dead.idem.again', 'q', 'idempotent', 10, false), ('dead.idem.spent', 'q', 'idempotent', 1, true), ('dead.kind.probed', 'q', 'probed', 10, false)`)
	dead := uuid.New()
	b.beat(t, dead, time.Hour)
	for _, k := range []string{kind, "dead.idem.again", "dead.idem.spent", "dead.kind.probed"} {
		b.claimAs(t, dead, b.insert(t, k), time.Minute)
	}
	b.Run(t, "UPDATE writ.workers SET ttl = '-1 s' WHERE id = $1", dead)
	workers, err := s.DeadWorkers(ctx)
	if err != nil || len(workers) != 1 {
		t.Fatalf("DeadWorkers: %v, %v", workers, err)
	}
	orphans, err := s.Orphans(ctx, workers, 10)
	if err != nil || len(orphans) != 4 {
		t.Fatalf("Orphans: %v, %v", orphans, err)
	}
	for _, o := range orphans {
		if class, err := s.SettleOrphan(ctx, o, store.Observed{Last: seen.At, Fresh: time.Hour}, -time.Hour); err != nil || class.Class == "" {
			t.Errorf("SettleOrphan: %q, %v", class, err)
		}
	}
	must(t, "Swept", s.Swept(ctx, workers))
	b.Run(t, "UPDATE writ.workers SET swept_at = now() - interval '2 h' WHERE id = $1", dead)
	must(t, "ForgetWorkers", s.ForgetWorkers(ctx))
	b.Run(t, "UPDATE writ.intents SET probe_at = now() - interval '1 h' WHERE kind = 'dead.idem.spent'")
	if done, err := s.RequeueOwed(ctx); err != nil || len(done) != 1 {
		t.Errorf("RequeueOwed: %d, %v", len(done), err)
	}
	b.Run(t, "INSERT INTO writ.kinds (name, queue, class) VALUES ('dead.probe.ask', 'q', 'probed'), ('dead.probe.plan', 'q', 'probed')")
	for of, look := range map[string]func(context.Context) ([]store.Requeued, error){"dead.probe.ask": s.HintProbesDue, "dead.probe.plan": s.HintProbesMissing} {
		id := b.insert(t, of)
		b.claim(t, id, time.Minute)
		b.Run(t, "UPDATE writ.intents SET flagged_at = now(), probe_at = CASE kind WHEN 'dead.probe.ask' THEN now() - interval '1 h' END WHERE id = $1", id)
		if done, err := look(ctx); err != nil || len(done) != 1 {
			t.Errorf("%s: %v, %v", of, done, err)
		}
	}

	id := b.at(t, kind, "flagged")
	b.Run(t, "INSERT INTO writ.keys VALUES ($1, 'k', $2)", kind, id)
	b.Run(t, "SELECT writ.happened($1, 'sending', 1, 'ann', 'seen in the mail log')", id)
	expiries, err := s.Expiries(ctx)
	must(t, "Expiries", err)
	pruned := 0
	for _, e := range expiries {
		n, err := s.Prune(ctx, e, 100)
		must(t, "Prune", err)
		pruned += len(n)
	}
	if left := len(entries(t, b.Pool, id)); pruned != 1 || left != 0 {
		t.Errorf("pruned %d rows and left %d of its log; want 1 and 0", pruned, left)
	}
	_, err = s.Counts(ctx)
	must(t, "Counts", err)
	_, _, err = s.OutboxAge(ctx)
	must(t, "OutboxAge", err)
	_, err = s.PruneInbox(ctx, time.Hour, 10)
	must(t, "PruneInbox", err)
	must(t, "Resign", s.Resign(ctx, "reconciler", me))
}

func TestRole_viewer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.at(t, kind, "error")
	for role, decides := range map[string]bool{"writ_viewer": false, "writ_operator": true} {
		pool := login(t, b.DB, role)
		look(t, pool, id)
		settle := []string{
			"SELECT writ.retry($1, 'error', 1, 'eve', 'it would like to')", "SELECT writ.happened($1, 'error', 1, 'eve', 'it would like to')",
			"SELECT writ.give_up($1, 'error', 1, 'eve', 'it would like to')", "SELECT writ.cancel($1, 'error', 1, 'eve', 'it would like to')",
			"SELECT writ.adopt('eve', 'it would like to')", "SELECT writ.quarantine(now(), 'eve', 'it would like to')", "SELECT writ.pause('eve', 'it would like to')",
		}
		if decides {
			settle = nil
		}
		checkDenied(t, pool, id, append(settle,
			"UPDATE writ.intents SET state = 'cancelled' WHERE id = $1", "INSERT INTO writ.intents (kind) VALUES ('a.b.c')", "DELETE FROM writ.intents",
			"DELETE FROM writ.outbox", "DELETE FROM writ.log", "UPDATE writ.kinds SET max_args = 1", "UPDATE writ.settings SET paused_at = NULL",
			"DELETE FROM writ.workers", "TRUNCATE writ.intents", "SELECT writ.decide($1, 'sent', 'error', 1, 'eve', 'it would like to', NULL)",
			"CREATE TABLE writ.mine ()", "SELECT writ.ring()")...)
	}
}

// look reads all that a viewer may read.
func look(t *testing.T, pool *pgxpool.Pool, id uuid.UUID) {
	t.Helper()
	for _, position := range []string{"intents", "outbox", "workers", "kinds", "log", "keys", "settings", "relay", "leader", "bulks", "bulk_rows", "inbox", "subscriptions", "unsettled", "error_groups", "status", "repeatable", "schema_version"} {
		_, err := pool.Exec(ctx, "SELECT * FROM writ."+position)
		must(t, "read "+position, err)
	}
	for name := range writsql.Queries() {
		_, err := pool.Exec(ctx, asked(name))
		must(t, "query "+name, err)
	}
	_, err := intent.Get(ctx, pool, id)
	must(t, "Get", err)
	_, err = intent.List(ctx, pool, intent.Filter{})
	must(t, "List", err)
	_, err = intent.Why(ctx, pool, id)
	must(t, "Why", err)
	_, err = intent.Timeline(ctx, pool, id)
	must(t, "Timeline", err)
	_, err = intent.Tree(ctx, pool, id)
	must(t, "Tree", err)
	_, err = intent.ListUnsettled(ctx, pool, intent.UnsettledFilter{Error: "x", Limit: 10})
	must(t, "ListUnsettled", err)
	_, err = store.New(pool).Settings(ctx)
	must(t, "Settings", err)
	_, err = store.New(pool).Counts(ctx)
	must(t, "Counts", err)
}

func TestRole_operator(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.settled(t)
	pool := login(t, b.DB, "writ_operator")
	type verb = func(context.Context, intent.DB, intent.Verdict) (intent.Position, error)
	for name, tt := range map[string]struct {
		from string
		do   verb
	}{
		"Happened": {"flagged", intent.Happened}, "Retry": {"flagged", intent.Retry},
		"GiveUp": {"flagged", intent.GiveUp}, "Cancel": {"error", intent.Cancel},
	} {
		id := b.at(t, kind, tt.from)
		row := read(t, b.Pool, id)
		_, err := tt.do(ctx, pool, intent.Verdict{ID: id, Seen: intent.Position{State: row.State, Epoch: row.Epoch}, Actor: "ann", Why: "seen in the mail log"})
		must(t, name, err)
		log := entries(t, b.Pool, id)
		if user := log[len(log)-1].DBUser; user != pool.Config().ConnConfig.User {
			t.Errorf("%s: db_user in the log is %s; want the login role", name, user)
		}
	}
	b.Run(t, "UPDATE writ.settings SET fingerprint = 'elsewhere'")
	word := intent.Word{Actor: "ann", Why: "this is the real one now"}
	_, err := intent.Quarantine(ctx, pool, time.Now().Add(-time.Minute), word, nil)
	must(t, "quarantine", err)
	_, err = pool.Exec(ctx, "SELECT writ.adopt('ann', 'this is the real one now')")
	must(t, "adopt", err)
	b.Run(t, "INSERT INTO writ.inbox (subscription, source, event_id, dead_at) VALUES ('s', 'api', 'e1', now())")
	event := intent.Unsettled{Subscription: "s", Source: "api", EventID: "e1"}
	must(t, "RetryEvent", intent.RetryEvent(ctx, pool, event, word))
	must(t, "DropEvent", intent.DropEvent(ctx, pool, event, word))
	must(t, "pause", intent.Pause(ctx, pool, "", word))
	must(t, "resume", intent.Resume(ctx, pool, "", word))
}
