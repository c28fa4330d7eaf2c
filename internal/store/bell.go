package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	writsql "github.com/writhq/writ/sql"
)

// Bell is the channel on which creations ring a relay that is asleep.
const Bell = "writ_outbox"

// Listener hears the bell, on a connection of its own that it does not close. Not safe for concurrent use.
type Listener struct{ conn *pgx.Conn }

// Listen subscribes conn to the bell.
func Listen(ctx context.Context, conn *pgx.Conn) (*Listener, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := conn.Exec(ctx, "LISTEN "+Bell)
	return &Listener{conn}, err
}

// Rung blocks until the bell rings, and returns the hint that came with it: a creation of one intent says which. The
// zero hint: it did not say. The error is the connection's, or what ended ctx; the connection is closed then.
func (l *Listener) Rung(ctx context.Context) (Hint, error) {
	n, err := l.conn.WaitForNotification(ctx)
	if err != nil {
		return Hint{}, err
	}
	text, kind, _ := strings.Cut(n.Payload, " ")
	id, err := uuid.Parse(text)
	if err != nil || kind == "" {
		return Hint{}, nil // whoever rings without a word, or with a strange one, wakes the relay all the same
	}
	return Hint{ID: id, Kind: kind, Op: "run"}, nil
}

// Seen is a hint in the outbox that nobody took by seeing it.
type Seen struct {
	OID   int64
	DueAt time.Time
	Hint
}

// glancing bounds a look: one that takes longer is of no use to anybody.
const glancing = time.Second

// Glance reads up to limit hints to run that are due, from a time on, or of the last second if that is later. It takes
// nothing; the engine transaction is for the plan: made anew for each time, at the edge of an index that is full of
// deleted rows, it costs twenty times as much as the look. When ctx ends it waits no longer for a connection of the pool; a
// look that has begun ends by itself, within a second, and its connection is kept.
func (s *Store) Glance(ctx context.Context, from time.Time, limit int) ([]Seen, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("glance at the outbox: %w", err)
	}
	defer conn.Release()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), glancing)
	defer cancel()
	var all []Seen
	b := begin()
	b.Queue(writsql.Statement("RelayGlance"), from, limit).Query(func(rows pgx.Rows) error {
		var one Seen
		_, err := pgx.ForEachRow(rows, []any{&one.OID, &one.DueAt, (*uuidTarget)(&one.ID), &one.Epoch, &one.Kind, &one.Op}, func() error {
			all = append(all, one)
			return nil
		})
		return err
	})
	b.Queue("COMMIT")
	if err := send(ctx, conn.Conn(), b); err != nil {
		return nil, fmt.Errorf("glance at the outbox: %w", Explain(err))
	}
	return all, nil
}
