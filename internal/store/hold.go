package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	writsql "github.com/writhq/writ/sql"
)

// Hold is an attempt that a worker has claimed and has not finished.
type Hold struct {
	ID     uuid.UUID
	Epoch  int32
	Worker uuid.UUID
}

// Holding is the answer to what a handler at work says of its attempt.
type Holding struct {
	Held     bool   // what was said is written
	State    string // of the row now; empty: there is none
	Epoch    int32
	Flag     string // the reason, if it is flagged
	Progress []byte // JSON; nil: none
}

// SafePoint writes what the handler has behind it at its nth safe point of the attempt, committed synchronously: what it does
// next must not outrun it. It may be called again with the same after any error.
func (s *Store) SafePoint(ctx context.Context, h Hold, n int32, progress []byte) (Holding, error) {
	return s.hold(ctx, "SafePoint", h, n, text(progress))
}

// Extend moves the deadline of an attempt on to d from now, unless it lies later already. It may be called again after any error.
func (s *Store) Extend(ctx context.Context, h Hold, d time.Duration) (Holding, error) {
	return s.hold(ctx, "Extend", h, d)
}

// Progress reads what the last safe point left.
func (s *Store) Progress(ctx context.Context, h Hold) (Holding, error) {
	return s.hold(ctx, "Progress", h)
}

func (s *Store) hold(ctx context.Context, statement string, h Hold, args ...any) (out Holding, err error) {
	b := begin()
	b.Queue(writsql.Statement(statement), append([]any{h.ID, h.Epoch, h.Worker}, args...)...).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			if err := rows.Scan(&out.Held, &out.State, &out.Epoch, &out.Flag, &out.Progress); err != nil {
				return err
			}
		}
		return rows.Err()
	})
	b.Queue("COMMIT")
	if err := s.send(ctx, b); err != nil {
		return Holding{}, fmt.Errorf("%s of intent %s: %w", statement, h.ID, err)
	}
	return out, nil
}
