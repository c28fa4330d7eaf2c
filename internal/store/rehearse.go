package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// database is what the statements run on: a pool, or, in a rehearsal, one transaction of it.
type database interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error)
}

// rehearsal is a transaction whose parts take it for a database: their transactions are savepoints of it.
type rehearsal struct{ pgx.Tx }

// BeginTx ignores the options, which are those of the whole.
func (r rehearsal) BeginTx(ctx context.Context, _ pgx.TxOptions) (pgx.Tx, error) { return r.Begin(ctx) }

// errRehearsed rolls a rehearsal back.
var errRehearsed = errors.New("rehearsed")

// Rehearse runs do on a store whose writes are all rolled back at the end: what it did is what it would have done. Rows
// that it wrote stay locked for as long. In it the database's now() is the moment when it began.
func (s *Store) Rehearse(ctx context.Context, do func(*Store) error) error {
	err := pgx.BeginTxFunc(ctx, s.pool, readCommitted, func(tx pgx.Tx) error {
		if err := do(&Store{pool: s.pool, db: rehearsal{tx}}); err != nil {
			return err
		}
		return errRehearsed
	})
	if errors.Is(err, errRehearsed) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("rehearse: %w", err)
	}
	return nil
}
