package intent_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ctx = context.Background()

type comment struct {
	ID int `json:"id"`
}

var notify = intent.Kind[comment]{Name: "blog.comment.notify"}

// inTx runs do in a committed transaction.
func inTx(t *testing.T, db *testkit.DB, do func(pgx.Tx) error) {
	t.Helper()
	if err := pgx.BeginFunc(ctx, db.Pool, do); err != nil {
		t.Fatal(err)
	}
}

// create makes one intent and commits.
func create(t *testing.T, db *testkit.DB, args comment, opts intent.Opts) intent.Created {
	t.Helper()
	var c intent.Created
	inTx(t, db, func(tx pgx.Tx) (err error) {
		c, err = notify.Create(ctx, tx, args, opts)
		return err
	})
	return c
}

// check compares the number of intents and of their outbox rows with what there must be.
func check(t *testing.T, db *testkit.DB, want int) {
	t.Helper()
	intents := testkit.Value[int](t, db, "SELECT count(*) FROM writ.intents")
	hinted := testkit.Value[int](t, db, "SELECT count(DISTINCT o.intent_id) FROM writ.outbox o JOIN writ.intents i ON i.id = o.intent_id AND i.epoch = o.epoch WHERE op = 'run'")
	outbox := testkit.Value[int](t, db, "SELECT count(*) FROM writ.outbox")
	if intents != want || hinted != want || outbox != want {
		t.Errorf("%d intents, %d of them with a hint, %d outbox rows; want %d of each", intents, hinted, outbox, want)
	}
}

// fail brings an intent to error, and flag to ambiguous with its deadline and settle time passed.
func fail(t *testing.T, db *testkit.DB, id intent.ID) { t.Helper(); attempt(t, db, id, store.Failed) }

func flag(t *testing.T, db *testkit.DB, id intent.ID) { t.Helper(); attempt(t, db, id, store.Flagged) }

func attempt(t *testing.T, db *testkit.DB, id intent.ID, event string) {
	t.Helper()
	s, worker := store.New(db.Pool), uuid.New()
	conn, err := db.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	_, err = store.SendBeat(ctx, conn.Conn(), store.Beat{ID: worker, Host: "web-1", PID: 1, Version: "v", Kinds: []string{}, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	claimed, err := s.Claim(ctx, worker, []store.Group{{Timeout: -time.Hour, IDs: []uuid.UUID{id}}})
	if err != nil || len(claimed) != 1 {
		t.Fatalf("claim: %v, %v", claimed, err)
	}
	fate, err := s.FinishOne(ctx, worker, store.Outcome{ID: id, Epoch: 1, Event: event, Why: "unknown", Error: "connection reset"})
	if err != nil || fate.Late {
		t.Fatalf("finish: %+v, %v", fate, err)
	}
}
