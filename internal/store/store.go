// Package store runs the engine's statements: it is the only Go code that writes an intent's state. The statements are
// files in package sql; here are their parameters, their transactions and what their errors mean.
//
// All methods block until the database answered or the context ends, and are safe for concurrent use.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/fsm"
	writsql "github.com/writhq/writ/sql"
)

// Store runs the engine's statements on a pool that the caller owns and closes.
type Store struct {
	pool *pgxpool.Pool
	db   database // pool, but in a rehearsal
}

// CheckPool reports a pool that the engine's statements cannot run on: pgx must learn their parameter types from the
// server. Behind a pgbouncer in transaction mode that cannot keep prepared statements, cache_describe is the mode to use.
func CheckPool(pool *pgxpool.Pool) error {
	switch mode := pool.Config().ConnConfig.DefaultQueryExecMode; mode {
	case pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol:
		return fmt.Errorf("the pool's default_query_exec_mode is %v, which does not know parameter types; use cache_statement (the default), or cache_describe behind a pgbouncer in transaction mode", mode)
	}
	return nil
}

// New returns a store on pool.
func New(pool *pgxpool.Pool) *Store { return &Store{pool: pool, db: pool} }

// readCommitted is the isolation of every engine transaction, whatever the session's default: the compare-and-set
// statements rely on seeing rows as they are after a lock was waited for.
var readCommitted = pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: pgx.ReadWrite}

// transaction runs do in an engine transaction.
func (s *Store) transaction(ctx context.Context, do func(pgx.Tx) error) error {
	return s.shared(ctx, func(tx pgx.Tx, _ share) error { return do(tx) })
}

// share runs an application's part of an engine transaction, under the settings that the session had before.
type share func(part func(context.Context, pgx.Tx) error) error

// shared is transaction for a unit that an application has a part in.
func (s *Store) shared(ctx context.Context, do func(pgx.Tx, share) error) error {
	entered := false
	err := pgx.BeginTxFunc(ctx, s.db, readCommitted, func(tx pgx.Tx) error {
		var before [7]string
		b := &pgx.Batch{}
		b.Queue(writsql.Statement("ApplicationSettings")).QueryRow(func(row pgx.Row) error {
			return row.Scan(&before[0], &before[1], &before[2], &before[3], &before[4], &before[5], &before[6])
		})
		b.Queue(writsql.Statement("EngineTransaction"))
		if err := tx.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
		return do(tx, func(part func(context.Context, pgx.Tx) error) error {
			if _, err := tx.Exec(ctx, writsql.Statement("ApplicationShare"), before[0], before[1], before[2], before[3], before[4], before[5], before[6]); err != nil {
				return err
			}
			entered = true
			return part(ctx, tx)
		})
	})
	if err != nil && entered {
		return &HookError{err}
	}
	return err
}

// Hint is what a message says: look at this intent, if it is still at this epoch.
type Hint struct {
	ID    uuid.UUID
	Epoch int32
	Kind  string
	Op    string
}

// Settings is who this installation is and whether work may be done.
type Settings struct {
	Installation uuid.UUID
	Open         bool   // adopted and not paused
	Paused       bool   // by a person
	PausedWhy    string // their words
	Adopted      bool   // the database is the one that was adopted
}

// Reason says in words why nothing is to be done, or is empty.
func (s Settings) Reason() string {
	switch {
	case s.Open:
		return ""
	case !s.Adopted:
		return "this database is a copy that nobody adopted: if it is the real one now, writ adopt --help says what to do"
	default:
		return "paused: " + s.PausedWhy
	}
}

// Settings reads them.
func (s *Store) Settings(ctx context.Context) (Settings, error) { return ReadSettings(ctx, s.pool) }

// rower reads one row: a pool, a connection or a transaction.
type rower interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// ReadSettings reads them on the caller's connection: whoever connects asks where it has come to.
func ReadSettings(ctx context.Context, q rower) (Settings, error) {
	var out Settings
	err := q.QueryRow(ctx, writsql.Statement("Settings")).
		Scan(&out.Installation, &out.Open, &out.Paused, &out.PausedWhy, &out.Adopted)
	if err != nil {
		return out, fmt.Errorf("read settings: %w", Explain(err))
	}
	return out, nil
}

// ErrNoSchema means that the database has no Writ schema, or an older one than this code needs.
var ErrNoSchema = errors.New("the database has no Writ schema, or one that is too old: run writ migrate up")

// Explain turns the server's «no such table, column or function» into [ErrNoSchema] and leaves all else alone.
func Explain(err error) error {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && slices.Contains([]string{"42P01", "42703", "42883", "3F000"}, pgErr.Code) {
		return fmt.Errorf("%w (%s)", ErrNoSchema, pgErr.Message)
	}
	return err
}

// Unknown reports whether err leaves it open if the transaction was committed: the connection was lost, or the wait was
// cut, after the request may have been sent. An error that the server reported within a living session rolled it back.
func Unknown(err error) bool {
	if err == nil || pgconn.SafeToRetry(err) {
		return false
	}
	var connectErr *pgconn.ConnectError
	if errors.As(err, &connectErr) {
		return false // a refused login is a server's FATAL too
	}
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.SeverityUnlocalized == "FATAL" || pgErr.SeverityUnlocalized == "PANIC"
	}
	return true
}

// Down reports whether err says that the database cannot be reached, is starting, stopping or overloaded, or is a copy that
// nobody adopted, so that the same unit may be tried again later; other errors are about the statement and will come again.
func Down(err error) bool {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		return true
	}
	switch pgErr.Code[:2] {
	case "08", "53", "57", "58":
		return true
	}
	return pgErr.Code == CodeCopy || pgErr.Code == "40001" || pgErr.Code == "40P01" || pgErr.Code == "55P03" || pgErr.Code == "25006" ||
		pgErr.SeverityUnlocalized == "FATAL"
}

// Transient reports whether the same transaction may well succeed later: the server says so, or the connection was lost.
// An application's own error, or a commit that the server turned into a rollback, is not.
func Transient(err error) bool {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return Down(err)
	}
	var netErr net.Error
	return errors.As(err, &netErr) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// Locked reports whether err says that somebody else held a row's lock for too long.
func Locked(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == "55P03"
}

// Cancelled reports whether err says that the server broke a statement off: its time was up (statement_timeout), or
// somebody cancelled it.
func Cancelled(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == "57014"
}

// Declaration is what a worker's code says of a kind.
type Declaration struct {
	Name, Queue, Class          string
	Timeout, Settle             time.Duration
	MaxAttempts                 int
	BackoffMin, BackoffMax      time.Duration
	BackoffFactor               float64
	KeepSent, KeepErr, KeepCanc *time.Duration // nil: for ever
	MaxArgs, ArgsVersion        int
	Recovers, Completes         bool   // has a function for an error, or for what a verdict says was done
	Schema                      []byte // JSON Schema of the arguments; nil: not known
	MaxProbes                   int
	Breaker                     []byte // JSON; nil: none
	Limits                      []Limit
}

// Declare writes what the code says of its kinds, in one transaction and one round trip; unchanged ones are left alone.
func (s *Store) Declare(ctx context.Context, kinds []Declaration) error {
	b := &pgx.Batch{}
	b.BeginTx(readCommitted)
	declared := 0 // statements that were carried out
	queue := func(statement string, args ...any) {
		b.Queue(writsql.Statement(statement), args...).Exec(func(pgconn.CommandTag) error { declared++; return nil })
	}
	const each = 4
	for _, k := range kinds {
		queue("Declare", k.Name, k.Queue, k.Class, k.Timeout, k.Settle, k.MaxAttempts, k.BackoffMin, k.BackoffMax, k.BackoffFactor,
			k.KeepSent, k.KeepErr, k.KeepCanc, k.MaxArgs, k.ArgsVersion, k.Recovers, k.MaxProbes, k.Completes)
		queue("DeclareSchema", k.Name, text(k.Schema))
		queue("DeclareBreaker", k.Name, text(k.Breaker))
		queue("DeclareLimits", append([]any{k.Name}, limitColumns(k.Limits)...)...)
	}
	b.Queue("COMMIT")
	err := s.send(ctx, b)
	switch n := declared / each; {
	case err == nil:
		return nil
	case n < len(kinds):
		return fmt.Errorf("declare kind %s: %w", kinds[n].Name, Explain(err))
	}
	return fmt.Errorf("declare the kinds: %w", Explain(err))
}

// NoteRun writes the typical run time of a kind.
func NoteRun(ctx context.Context, conn *pgx.Conn, kind string, typical time.Duration) error {
	_, err := conn.Exec(ctx, writsql.Statement("NoteRun"), kind, float64(typical)/float64(time.Millisecond))
	return err
}

// PausedKinds lists the kinds that a person paused.
func PausedKinds(ctx context.Context, q Querier) ([]string, error) {
	rows, err := q.Query(ctx, writsql.Statement("PausedKinds"))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// Beat is a worker's sign of life.
type Beat struct {
	ID       uuid.UUID
	Host     string
	PID      int
	Version  string
	Kinds    []string
	Classes  []string // of which class it holds each of them; nil: as they are declared
	Slots    int
	Running  int
	Stuck    int
	TTL      time.Duration
	Draining bool
}

// SendBeat writes it, on a connection of the caller's: a busy pool must not make a worker look dead. It returns the
// database's clock.
func SendBeat(ctx context.Context, conn *pgx.Conn, b Beat) (at time.Time, err error) {
	err = conn.QueryRow(ctx, writsql.Statement("Beat"), b.ID, b.Host, b.PID, b.Version, b.Kinds, b.Slots, b.Running, b.Stuck, b.TTL, b.Draining, b.Classes).Scan(&at)
	return at, err
}

// Depart removes the row of a worker that holds nothing any more.
func Depart(ctx context.Context, conn *pgx.Conn, id uuid.UUID) error {
	_, err := conn.Exec(ctx, writsql.Statement("Depart"), id)
	return err
}

// Count is the number of rows of a kind in a state, or ambiguous, and the age of the oldest.
type Count struct {
	Kind   string
	State  string
	N      int64
	Oldest time.Duration
}

// Ambiguous is the derived state of a flagged sending row.
const Ambiguous = "ambiguous"

// Counts returns the open rows and errors by kind and state.
func (s *Store) Counts(ctx context.Context) ([]Count, error) {
	rows, err := s.pool.Query(ctx, writsql.Statement("Counts"))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (Count, error) {
		var c Count
		var seconds float64
		err := row.Scan(&c.Kind, &c.State, &c.N, &seconds)
		c.Oldest = time.Duration(seconds * float64(time.Second))
		return c, err
	})
}

// OutboxAge returns the number of due outbox rows (at most 100,000) and how long the oldest has been due.
func (s *Store) OutboxAge(ctx context.Context) (int64, time.Duration, error) {
	var n int64
	var seconds float64
	err := s.pool.QueryRow(ctx, writsql.Statement("OutboxAge")).Scan(&n, &seconds)
	return n, time.Duration(seconds * float64(time.Second)), err
}

// events that a worker writes, for the statements' log.
const (
	succeeded = string(fsm.Succeeded)
	retried   = string(fsm.Retried)
	failed    = string(fsm.Failed)
	flagged   = "flagged"
)
