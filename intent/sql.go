package intent

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/internal/store"
)

// SQL adapts a database/sql transaction, of any Postgres driver, for creating intents in it. The caller commits tx as
// always; Writ never does.
func SQL(tx *sql.Tx) Tx { return &sqlTx{tx} }

type sqlTx struct{ tx *sql.Tx }

// Query sends every array as a literal and every id as text, which all drivers understand.
func (t *sqlTx) Query(ctx context.Context, query string, args ...any) (pgx.Rows, error) {
	plain := make([]any, len(args))
	for i, arg := range args {
		plain[i] = portable(arg)
	}
	rows, err := t.tx.QueryContext(ctx, query, plain...)
	if err != nil {
		return nil, err
	}
	return &sqlRows{rows: rows}, nil
}

func (t *sqlTx) Commit(context.Context) error   { return t.tx.Commit() }
func (t *sqlTx) Rollback(context.Context) error { return t.tx.Rollback() }

// portable turns the parameters of this package's statements into what database/sql carries.
func portable(arg any) any {
	switch v := arg.(type) {
	case uuid.UUID:
		return v.String()
	case *uuid.UUID:
		if v == nil {
			return nil
		}
		return v.String()
	case store.UUIDs:
		return store.ArrayLiteral(texts([]uuid.UUID(v), uuid.UUID.String))
	case store.NullableUUIDs:
		return store.NullableArrayLiteral(pointers([]*uuid.UUID(v), uuid.UUID.String))
	case []string:
		if v == nil {
			return nil
		}
		return store.ArrayLiteral(v)
	case []*string:
		return store.NullableArrayLiteral(v)
	case []int32:
		return store.ArrayLiteral(texts(v, func(n int32) string { return fmt.Sprint(n) }))
	case []*time.Time:
		return store.NullableArrayLiteral(pointers(v, func(t time.Time) string { return t.Format(time.RFC3339Nano) }))
	}
	return arg
}

func texts[T any](in []T, text func(T) string) []string {
	out := make([]string, len(in))
	for i, v := range in {
		out[i] = text(v)
	}
	return out
}

func pointers[T any](in []*T, text func(T) string) []*string {
	out := make([]*string, len(in))
	for i, v := range in {
		if v != nil {
			s := text(*v)
			out[i] = &s
		}
	}
	return out
}

// sqlRows lets sql.Rows be read as pgx.Rows, as far as this package reads them.
type sqlRows struct {
	rows     *sql.Rows
	pgx.Rows // nil: the methods that only pgx has are never called
	err      error
}

func (r *sqlRows) Close()                 { r.err = errors.Join(r.err, r.rows.Close()) }
func (r *sqlRows) Next() bool             { return r.rows.Next() }
func (r *sqlRows) Scan(dest ...any) error { return r.rows.Scan(dest...) }
func (r *sqlRows) Err() error             { return errors.Join(r.err, r.rows.Err()) }
