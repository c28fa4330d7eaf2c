package writ_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

// session is a person's at psql, logged in as a member of the owner: statements are sent as they are written.
func session(t *testing.T, db *testkit.DB) (*pgx.Conn, string) {
	t.Helper()
	ctx := context.Background()
	user := "writ_test_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	db.Run(t, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD 'secret' IN ROLE writ_owner", user))
	config := db.Config().ConnConfig.Copy()
	config.User, config.Password, config.DefaultQueryExecMode = user, "secret", pgx.QueryExecModeSimpleProtocol
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close(ctx)
		db.Run(t, "DROP ROLE "+user)
	})
	return conn, user
}

// Ten thousand errors sent back by one hand-written statement all run, once each, and the log knows who it was.
func TestRun_whatWasSentBackByHand(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	const n = 10_000
	// They failed earlier, at their first attempt.
	db.Run(t, "ALTER TABLE writ.intents DISABLE TRIGGER USER")
	db.Run(t, `INSERT INTO writ.intents (id, tid, kind, args, state, event, epoch, attempt, started_at, finished_at, failed_at, error)
		SELECT id, id, 'demo.guest.greet', jsonb_build_object('name', g::text), 'error', 'failed', 1, 1, now(), now(), now(), 'the hall was closed'
		FROM (SELECT g, writ.uuid_v7() AS id FROM generate_series(1, $1::int) g OFFSET 0) x`, n)
	db.Run(t, "ALTER TABLE writ.intents ENABLE TRIGGER USER")

	var starts, twice atomic.Int64
	var greeted sync.Map
	mux := workers.NewMux()
	workers.Handle(mux, greet, workers.Handler[greeting]{Do: func(_ context.Context, job *workers.Job[greeting]) error {
		starts.Add(1)
		if _, again := greeted.LoadOrStore(job.Args.Name, true); again {
			twice.Add(1)
		}
		return nil
	}})
	begin(t, db, mux)
	conn, user := session(t, db)
	tag, err := conn.Exec(context.Background(), "UPDATE writ.intents SET state='pending' WHERE state='error'")
	if err != nil || tag.RowsAffected() != n {
		t.Fatalf("%v, %v; want %d rows", tag, err, n)
	}
	testkit.Until(t, 2*time.Minute, "all are sent", func() (bool, string) {
		left := testkit.Value[int](t, db, "SELECT count(*) FROM writ.intents WHERE finished_at IS NULL")
		return left == 0, fmt.Sprint(left, " are open")
	})
	if sent := testkit.Value[int](t, db, "SELECT count(*) FROM writ.intents WHERE state = 'sent' AND epoch = 3"); sent != n || starts.Load() != n || twice.Load() != 0 {
		t.Errorf("%d are sent, %d handlers were started, %d twice; want %d, each once", sent, starts.Load(), twice.Load(), n)
	}
	logged := testkit.Value[int](t, db, "SELECT count(DISTINCT intent_id) FROM writ.log WHERE event = 'retry' AND actor = $1 AND db_user = $1 AND why = 'written by hand'", user)
	if logged != n {
		t.Errorf("the log names the user for %d; want %d", logged, n)
	}
}

// What a worker is at is not declared done by hand.
func TestRun_sentByHandIsRefused(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	begun, end := make(chan struct{}), make(chan struct{})
	mux := workers.NewMux()
	workers.Handle(mux, greet, workers.Handler[greeting]{Do: func(context.Context, *workers.Job[greeting]) error {
		close(begun)
		<-end
		return nil
	}})
	begin(t, db, mux)
	id := create(t, db, "ann")
	<-begun
	conn, _ := session(t, db)
	_, err := conn.Exec(context.Background(), "UPDATE writ.intents SET state='sent' WHERE id = '"+id.String()+"'")
	for _, part := range []string{"WR003", id.String(), "cannot go from sending to sent by hand"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error = %v; want a refusal with %q", err, part)
		}
	}
	close(end)
	awaitStatus(t, db, id, "sent")
}

// What simply goes well leaves no log, and its timeline is told all the same.
func TestRun_happyPathWritesNoLog(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	mux := workers.NewMux()
	workers.Handle(mux, greet, workers.Handler[greeting]{Do: func(_ context.Context, job *workers.Job[greeting]) error {
		return job.Done(func(context.Context, pgx.Tx) error { return nil })
	}})
	begin(t, db, mux)
	var ids []intent.ID
	for n := range 100 {
		ids = append(ids, create(t, db, fmt.Sprint(n)))
	}
	db.Run(t, `INSERT INTO writ.intents (kind, args) SELECT 'demo.guest.greet', '{"name": "by hand"}' FROM generate_series(1, 100)`)
	testkit.Until(t, time.Minute, "all are sent", func() (bool, string) {
		sent := testkit.Value[int](t, db, "SELECT count(*) FROM writ.intents WHERE state = 'sent'")
		return sent == 200, fmt.Sprint(sent)
	})
	if n := testkit.Value[int](t, db, "SELECT count(*) FROM writ.log"); n != 0 {
		t.Errorf("the log has %d rows; want none", n)
	}
	entries, err := intent.Timeline(context.Background(), db, ids[0])
	if err != nil || len(entries) != 3 || entries[0].Event != "requested" || entries[1].Event != "attempted" || entries[2].Event != "succeeded" {
		t.Errorf("timeline = %+v, %v", entries, err)
	}
}
