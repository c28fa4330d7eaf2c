package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	writsql "github.com/writhq/writ/sql"
)

// Note adds a note to an intent's log.
func Note(ctx context.Context, q Querier, id uuid.UUID, actor, text string) error {
	_, err := one[int64](q.Query(ctx, writsql.Statement("Note"), id, actor, text))
	return err
}

// BulkStart begins a planned bulk, or goes on with it. It and the other calls on a bulk return it as JSON.
func BulkStart(ctx context.Context, q Querier, id uuid.UUID, actor string, rate *float64) (json.RawMessage, error) {
	return one[json.RawMessage](q.Query(ctx, writsql.Statement("BulkStart"), id, actor, rate))
}

// BulkStep decides up to most of its rows, in one transaction if q is a pool.
func BulkStep(ctx context.Context, q Querier, id uuid.UUID, most int) (json.RawMessage, error) {
	return one[json.RawMessage](q.Query(ctx, writsql.Statement("BulkStep"), id, most))
}

// BulkAbort ends it.
func BulkAbort(ctx context.Context, q Querier, id uuid.UUID, actor, why string) (json.RawMessage, error) {
	return one[json.RawMessage](q.Query(ctx, writsql.Statement("BulkAbort"), id, actor, why))
}

// ReadBulk reads one; nil: there is none.
func ReadBulk(ctx context.Context, q Querier, id uuid.UUID) (json.RawMessage, error) {
	return one[json.RawMessage](q.Query(ctx, writsql.Statement("Bulk"), id))
}

// Bulks reads the newest.
func Bulks(ctx context.Context, q Querier, limit int) ([]json.RawMessage, error) {
	return many(pgx.RowTo[json.RawMessage])(q.Query(ctx, writsql.Statement("Bulks"), limit))
}

// BulkGroup is a part of a frozen set whose rows stand alike.
type BulkGroup struct {
	Kind, Status, FlagReason string
	N, Moved, NeedOverride   int64
	Example                  uuid.UUID
	Changed                  int64           // rows whose arguments change
	Before, After            json.RawMessage // arguments of the example, if they do
}

// BulkPreview says what a frozen set is made of.
func BulkPreview(ctx context.Context, q Querier, id uuid.UUID) ([]BulkGroup, error) {
	return many(pgx.RowToStructByPos[BulkGroup])(q.Query(ctx, writsql.Statement("BulkPreview"), id))
}

// BulkResult is a part of a set that met the same fate.
type BulkResult struct {
	Result, Code, Message string
	N                     int64
	Example               uuid.UUID
}

// BulkResults says what became of a set.
func BulkResults(ctx context.Context, q Querier, id uuid.UUID) ([]BulkResult, error) {
	return many(pgx.RowToStructByPos[BulkResult])(q.Query(ctx, writsql.Statement("BulkResults"), id))
}

// BulkRow is one intent of a set.
type BulkRow struct {
	ID                    uuid.UUID
	State                 string // as seen
	Epoch                 int32  // as seen
	At                    *time.Time
	Result, Code, Message string
	Now                   json.RawMessage
}

// BulkRows reads them one by one, in the order in which they are decided, until each returns an error.
func BulkRows(ctx context.Context, q Querier, id uuid.UUID, each func(BulkRow) error) error {
	rows, err := q.Query(ctx, writsql.Statement("BulkRows"), id)
	return stream(rows, err, each)
}

// Act is a log row of a person's.
type Act struct {
	Entry    int64
	At       time.Time
	IntentID uuid.UUID
	Epoch    int32
	Event    string
	Actor    string
	DBUser   string
	Why      string
	Evidence json.RawMessage
}

// AuditFilter narrows an audit. Zero fields do not.
type AuditFilter struct {
	Since, Until *time.Time // since included, until not
	Actors       []string   // nil: all
	IntentID     *uuid.UUID
}

// Audit reads what people did, one by one, in the order of time, until each returns an error.
func Audit(ctx context.Context, q Querier, f AuditFilter, each func(Act) error) error {
	rows, err := q.Query(ctx, writsql.Statement("Audit"), f.Since, f.Until, f.Actors, f.IntentID)
	return stream(rows, err, each)
}

// stream hands over row by row; no more than one is held.
func stream[T any](rows pgx.Rows, err error, each func(T) error) error {
	if err != nil {
		return Explain(err)
	}
	defer rows.Close()
	for rows.Next() {
		v, err := pgx.RowToStructByPos[T](rows)
		if err != nil {
			return err
		}
		if err := each(v); err != nil {
			return err
		}
	}
	return Explain(rows.Err())
}

// many returns all rows.
func many[T any](to pgx.RowToFunc[T]) func(pgx.Rows, error) ([]T, error) {
	return func(rows pgx.Rows, err error) ([]T, error) {
		if err != nil {
			return nil, Explain(err)
		}
		out, err := pgx.CollectRows(rows, to)
		return out, Explain(err)
	}
}

// KnownKinds lists the kinds that are declared, or have rows among the newest.
func KnownKinds(ctx context.Context, q Querier) ([]string, error) {
	return many(pgx.RowTo[string])(q.Query(ctx, writsql.Statement("KnownKinds")))
}

// SyncedKind is the typed view of a kind and what became of it.
type SyncedKind struct{ View, Did string }

// SyncKind makes the typed view of a kind, or brings it up to date.
func SyncKind(ctx context.Context, q Querier, kind string) (SyncedKind, error) {
	rows, err := q.Query(ctx, writsql.Statement("SyncKind"), kind)
	if err != nil {
		return SyncedKind{}, Explain(err)
	}
	out, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[SyncedKind])
	return out, Explain(err)
}
