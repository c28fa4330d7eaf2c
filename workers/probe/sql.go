package probe

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/workers"
)

// SQLConfig is a question to the application's own tables.
type SQLConfig[T any] struct {
	// DB is asked: a pool of the primary server. Required. A standby may be behind, so its answer is no answer.
	DB Beginner

	// Query selects what the attempt left behind, if it did. It runs in a transaction of its own that may only read.
	// Required.
	Query string

	// Args are the query's parameters. Default: the idempotency key alone.
	Args func(a *workers.Attempt[T]) []any

	// Rows is what at least one row means, and NoRows what none means. Default: WasDone, CannotTell. No rows mean WasNotDone
	// only if the row is committed with the effect, as in one transaction; a transaction of the attempt that is still open has
	// ended by deadline + settle, or Kind.Settle is too short.
	Rows, NoRows workers.Finding
}

// Beginner begins transactions: a *pgxpool.Pool.
type Beginner interface {
	BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error)
}

// SQL returns a probe that asks the application's own tables. The first row is kept as evidence.
func SQL[T any](cfg SQLConfig[T]) (workers.Probe[T], error) {
	if cfg.DB == nil || cfg.Query == "" {
		return nil, errors.New("probe: SQLConfig needs DB and Query")
	}
	if cfg.Rows == cfg.NoRows && cfg.Rows != workers.CannotTell {
		return nil, errors.New("probe: SQLConfig.Rows and NoRows mean the same, so the query would be of no use")
	}
	if cfg.Rows == workers.CannotTell && cfg.NoRows != workers.WasDone {
		cfg.Rows = workers.WasDone
	}
	if cfg.Args == nil {
		cfg.Args = func(a *workers.Attempt[T]) []any { return []any{a.Key} }
	}
	return cfg.ask, nil
}

func (c SQLConfig[T]) ask(ctx context.Context, a *workers.Attempt[T]) (answer workers.Answer, err error) {
	options := pgx.TxOptions{AccessMode: pgx.ReadOnly, IsoLevel: pgx.ReadCommitted}
	err = pgx.BeginTxFunc(ctx, c.DB, options, func(tx pgx.Tx) error {
		var standby bool
		if err := tx.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&standby); err != nil {
			return err
		}
		if standby {
			return errors.New("the server is a standby, which may be behind")
		}
		rows, err := tx.Query(ctx, c.Query, c.Args(a)...)
		if err != nil {
			return err
		}
		found, err := pgx.CollectRows(first{rows, new(int)}, pgx.RowToMap)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			answer = workers.Answer{Finding: c.NoRows, Why: "the application's tables have nothing of it", Evidence: map[string]any{"rows": 0}}
			return nil
		}
		answer = workers.Answer{Finding: c.Rows, Why: "the application's tables have it", Evidence: map[string]any{"row": found[0]}}
		return nil
	})
	if err != nil {
		return workers.Answer{}, fmt.Errorf("ask the application's tables: %w", err)
	}
	return answer, nil
}

// first are rows of which only the first is read.
type first struct {
	pgx.Rows
	n *int
}

// Next ends after one row, and closes the others, so that an error behind it is seen.
func (f first) Next() bool {
	if *f.n++; *f.n > 1 {
		f.Close()
		return false
	}
	return f.Rows.Next()
}
