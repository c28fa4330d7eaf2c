package sql_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ctx = context.Background()

// bench is a database with one living worker.
type bench struct {
	*testkit.DB
	store  *store.Store
	worker uuid.UUID
}

func setup(t *testing.T) *bench {
	t.Helper()
	db := testkit.Database(t)
	b := &bench{DB: db, store: store.New(db.Pool), worker: uuid.New()}
	b.beat(t, b.worker, time.Hour)
	return b
}

func (b *bench) beat(t *testing.T, worker uuid.UUID, ttl time.Duration, kinds ...string) {
	t.Helper()
	conn, err := b.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	_, err = store.SendBeat(ctx, conn.Conn(), store.Beat{
		ID: worker, Host: "web-1", PID: 4711, Version: "test", Kinds: append([]string{}, kinds...), Slots: 1, TTL: ttl,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// row is what the tests look at of an intent.
type row struct {
	ID         uuid.UUID
	State      string
	Event      *string
	Epoch      int32
	Attempt    int32
	Generation int32
	Args       string
	Error      *string
	RunAt      time.Time
	FinishedAt *time.Time
	FailedAt   *time.Time
	FlaggedAt  *time.Time
	FlagReason *string
	ProbeAt    *time.Time
	Requeues   int32
}

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

func read(t *testing.T, q querier, id uuid.UUID) row {
	t.Helper()
	rows, err := q.Query(ctx, `SELECT id, state, event, epoch, attempt, generation, args::text, error, run_at, finished_at, failed_at,
		flagged_at, flag_reason, probe_at, requeues FROM writ.intents WHERE id = $1`, id)
	if err != nil {
		t.Fatal(err)
	}
	r, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[row])
	if err != nil {
		t.Fatalf("read intent %s: %v", id, err)
	}
	return r
}

// hint is an outbox row of an intent.
type hint struct {
	DueAt time.Time
	Kind  string
	Epoch int32
	Op    string
}

func hints(t *testing.T, q querier, id uuid.UUID) []hint {
	t.Helper()
	rows, err := q.Query(ctx, "SELECT due_at, kind, epoch, op FROM writ.outbox WHERE intent_id = $1 ORDER BY oid", id)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowToStructByPos[hint])
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// entry is a log row.
type entry struct {
	Epoch    int32
	Event    string
	Actor    string
	DBUser   string
	Why      *string
	Evidence map[string]any
}

func entries(t *testing.T, q querier, id uuid.UUID) []entry {
	t.Helper()
	rows, err := q.Query(ctx, "SELECT epoch, event, actor, db_user, why, coalesce(evidence, '{}') FROM writ.log WHERE intent_id = $1 ORDER BY id", id)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowToStructByPos[entry])
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// insert creates an intent as a person at psql does.
func (b *bench) insert(t *testing.T, kind string) uuid.UUID {
	t.Helper()
	return testkit.Value[uuid.UUID](t, b.DB, `INSERT INTO writ.intents (kind, args) VALUES ($1, '{"n": 1}') RETURNING id`, kind)
}

// claim takes an intent whose attempt has that long; a negative time makes one whose deadline has passed.
func (b *bench) claim(t *testing.T, id uuid.UUID, timeout time.Duration) store.Claimed {
	t.Helper()
	return b.claimAs(t, b.worker, id, timeout)
}

func (b *bench) claimAs(t *testing.T, worker, id uuid.UUID, timeout time.Duration) store.Claimed {
	t.Helper()
	epoch := read(t, b.Pool, id).Epoch
	got, err := b.store.Claim(ctx, worker, []store.Group{{Epoch: epoch, Timeout: timeout, IDs: []uuid.UUID{id}}})
	if err != nil || len(got) != 1 {
		t.Fatalf("claim %s: %d rows, %v", id, len(got), err)
	}
	b.Run(t, "DELETE FROM writ.outbox WHERE intent_id = $1", id) // its hint has been published
	return got[0]
}

func (b *bench) finish(t *testing.T, c store.Claimed, o store.Outcome) {
	t.Helper()
	b.finishAs(t, b.worker, c, o)
}

func (b *bench) finishAs(t *testing.T, worker uuid.UUID, c store.Claimed, o store.Outcome) {
	t.Helper()
	o.ID, o.Epoch = c.ID, c.Epoch
	if fate, err := b.store.FinishOne(ctx, worker, o); err != nil || fate.Late {
		t.Fatalf("finish %s: %+v, %v", c.ID, fate, err)
	}
}

// at brings a new intent to a position, the legal way: pending, sending, flagged, sent, error or cancelled.
func (b *bench) at(t *testing.T, kind, position string) uuid.UUID {
	t.Helper()
	id := b.insert(t, kind)
	switch position {
	case "pending":
	case "cancelled":
		b.Run(t, "SELECT writ.cancel($1, 'pending', 0, 'ann', 'not wanted any more')", id)
	default:
		c := b.claim(t, id, -time.Hour)
		switch position {
		case "flagged":
			b.finish(t, c, store.Outcome{Event: store.Flagged, Why: "unknown", Error: "connection reset by peer"})
		case "sent":
			b.finish(t, c, store.Outcome{Event: store.Succeeded})
		case "error":
			b.finish(t, c, store.Outcome{Event: store.Failed, Why: "stopped", Error: "no such customer"})
		}
	}
	return id
}

// pgError is the server's refusal, or fails the test.
func pgError(t *testing.T, err error) *pgconn.PgError {
	t.Helper()
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		t.Fatalf("error = %v; want one of the server", err)
	}
	return pgErr
}

// refused runs a statement that the server must refuse with a code.
func refused(t *testing.T, q querier, code, sql string, args ...any) *pgconn.PgError {
	t.Helper()
	_, err := q.Exec(ctx, sql, args...)
	if err == nil {
		t.Fatalf("%s: let through; want %s", sql, code)
	}
	pgErr := pgError(t, err)
	if pgErr.Code != code {
		t.Fatalf("%s: %s %s; want %s", sql, pgErr.Code, pgErr.Message, code)
	}
	return pgErr
}

// rollback runs do in a transaction that is rolled back.
func (b *bench) rollback(t *testing.T, do func(pgx.Tx)) {
	t.Helper()
	tx, err := b.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(ctx) }()
	do(tx)
}

// reopen is the bench on a new pool.
func reopen(t *testing.T, b *bench, url string) *bench {
	t.Helper()
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	return &bench{DB: &testkit.DB{Pool: pool, URL: url, Name: b.Name}, store: store.New(pool), worker: b.worker}
}
