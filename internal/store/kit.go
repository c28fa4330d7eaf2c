package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	writsql "github.com/writhq/writ/sql"
)

// What package intent/intenttest asks of a test database.

// KitCreated returns what was created of a kind, as JSON objects; here: in this transaction only. Their arguments are
// compared with args.
func KitCreated(ctx context.Context, q Querier, kind string, here bool, args []byte) ([]string, error) {
	rows, err := q.Query(ctx, writsql.Statement("KitCreated"), kind, here, text(args))
	if err != nil {
		return nil, Explain(err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, Explain(rows.Err())
}

// KitElapse lets time pass for all that is open.
func (s *Store) KitElapse(ctx context.Context, d time.Duration) error {
	_, err := s.pool.Exec(ctx, writsql.Statement("KitElapse"), d)
	return err
}

// KitNext returns how long it is until the next hint of these kinds is due; false: there is none.
func (s *Store) KitNext(ctx context.Context, kinds []string) (time.Duration, bool, error) {
	var next *time.Duration
	if err := s.pool.QueryRow(ctx, writsql.Statement("KitNext"), kinds).Scan(&next); err != nil {
		return 0, false, fmt.Errorf("when is the next hint due: %w", err)
	}
	if next == nil {
		return 0, false, nil
	}
	return *next, true, nil
}

// KitBury removes a worker's row and settles what it held, as the reconciler does with a dead worker's.
func (s *Store) KitBury(ctx context.Context, conn *pgx.Conn, worker Beat, h Hint) (Settled, error) {
	if err := Depart(ctx, conn, worker.ID); err != nil {
		return Settled{}, err
	}
	seen, err := s.Observe(ctx)
	if err != nil {
		return Settled{}, err
	}
	return s.SettleOrphan(ctx, h, Observed{Since: seen.Started, Last: seen.At, Fresh: time.Minute}, 0)
}

// KitTake takes the due hints of these kinds out of the outbox.
func KitTake(ctx context.Context, conn *pgx.Conn, kinds []string) ([]Hint, error) {
	rows, err := conn.Query(ctx, writsql.Statement("KitTake"), kinds)
	if err != nil {
		return nil, Explain(err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (h Hint, err error) {
		err = row.Scan((*uuidTarget)(&h.ID), &h.Epoch, &h.Kind, &h.Op)
		return h, err
	})
}
