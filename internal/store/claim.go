package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/fsm"
	writsql "github.com/writhq/writ/sql"
)

// Claimed is an intent that a worker holds: what its handler needs.
type Claimed struct {
	ID          uuid.UUID
	Kind        string
	Epoch       int32 // of this attempt: the hint's + 1
	Attempt     int32
	Generation  int32
	Args        []byte
	ArgsVersion int32
	TID         uuid.UUID
	ParentID    *uuid.UUID
	Subjects    []string
	RequestedAt time.Time
	Trace       *string
	Meta        []byte
}

func (c *Claimed) targets() []any {
	return []any{
		(*uuidTarget)(&c.ID), &wordTarget{into: &c.Kind}, &c.Epoch, &c.Attempt, &c.Generation, &c.Args, &c.ArgsVersion, (*uuidTarget)(&c.TID), &c.ParentID,
		&c.Subjects, &c.RequestedAt, &c.Trace, &c.Meta,
	}
}

// Group is a set of intents to claim with one statement: same epoch, kinds of the same timeout.
type Group struct {
	Epoch   int32
	Timeout time.Duration
	Kinds   []string    // what the hints say; a row of any other kind is left alone. Nil: any
	IDs     []uuid.UUID // sorted
}

// Claim claims all groups in one transaction and one round trip, committed synchronously whatever the session says: an
// effect must not outrun its claim. Rows that are not returned were not claimed. On an error for which [Unknown] is
// true, each of them may or may not have been.
func (s *Store) Claim(ctx context.Context, worker uuid.UUID, groups []Group) ([]Claimed, error) {
	most := 0
	for _, g := range groups {
		most += len(g.IDs)
	}
	out := make([]Claimed, 0, most)
	b := begin()
	for _, g := range groups {
		b.Queue(writsql.Statement("Claim"), UUIDs(g.IDs), g.Epoch, worker, g.Timeout, g.Kinds).Query(func(rows pgx.Rows) error {
			var c Claimed
			_, err := pgx.ForEachRow(rows, c.targets(), func() error {
				out = append(out, c)
				c = Claimed{}
				return nil
			})
			return err
		})
	}
	b.Queue("COMMIT")
	if err := s.send(ctx, b); err != nil {
		return nil, fmt.Errorf("claim: %w", err)
	}
	return out, nil
}

// ErrUndecided means that a claim was refused for a reason that may pass, while its row still stands pending at the
// hint's epoch: not due, the installation closed, or the worker's heartbeat stale.
var ErrUndecided = errors.New("refused for now; an earlier claim may still be applied")

// ClaimAgain sends a claim whose answer was lost once more, waiting for the row's lock, and then looks whether the lost
// one was applied. It returns nil if this worker does not hold the intent at epoch + 1, and then never will by that claim;
// as long as that one may still be applied it returns [ErrUndecided], for nobody would know of what it took.
func (s *Store) ClaimAgain(ctx context.Context, worker uuid.UUID, h Hint, timeout time.Duration) (*Claimed, error) {
	var c Claimed
	var got, open bool
	scan := func(rows pgx.Rows) error {
		for rows.Next() {
			got = true
			if err := rows.Scan(c.targets()...); err != nil {
				return err
			}
		}
		return rows.Err()
	}
	b := begin()
	b.Queue(writsql.Statement("ClaimWaiting"), h.ID, h.Epoch, worker, timeout, []string{h.Kind}).Query(scan)
	b.Queue(writsql.Statement("ReadMine"), h.ID, h.Epoch+1, worker).Query(scan)
	b.Queue(writsql.Statement("ReadHinted"), UUIDs{h.ID}).Query(func(rows pgx.Rows) error {
		return eachStanding(rows, func(s Standing) {
			open = s.Kind == h.Kind && s.State == string(fsm.Pending) && s.Epoch == h.Epoch
		})
	})
	b.Queue("COMMIT")
	if err := s.send(ctx, b); err != nil {
		return nil, fmt.Errorf("claim again: %w", err)
	}
	if !got && open {
		return nil, fmt.Errorf("claim again: %w", ErrUndecided)
	}
	if !got {
		return nil, nil
	}
	return &c, nil
}

// Standing is how a hinted row stands that was not claimed.
type Standing struct {
	ID        uuid.UUID
	Kind      string
	State     string
	Epoch     int32
	RunAt     time.Time
	Due       bool
	WaitingOn int32
}

// Standings reads rows that a claim left out; missing ones are missing from the answer.
func (s *Store) Standings(ctx context.Context, ids []uuid.UUID) (map[uuid.UUID]Standing, error) {
	out := make(map[uuid.UUID]Standing, len(ids))
	b := begin()
	b.Queue(writsql.Statement("ReadHinted"), UUIDs(ids)).Query(func(rows pgx.Rows) error {
		return eachStanding(rows, func(s Standing) { out[s.ID] = s })
	})
	b.Queue("COMMIT")
	if err := s.send(ctx, b); err != nil {
		return nil, fmt.Errorf("read hinted rows: %w", err)
	}
	return out, nil
}

func eachStanding(rows pgx.Rows, do func(Standing)) error {
	var s Standing
	_, err := pgx.ForEachRow(rows, []any{(*uuidTarget)(&s.ID), &s.Kind, &s.State, &s.Epoch, &s.RunAt, &s.Due, &s.WaitingOn}, func() error {
		do(s)
		return nil
	})
	return err
}

// Back is a hint that goes back to the outbox.
type Back struct {
	Hint
	Delay time.Duration
	RunAt time.Time // not before this; zero: no matter
	Why   string    // nobody here could do anything with it; empty: it only comes too early, or too often
}

// PutBack writes hints back to the outbox; the relay sends them again when they are due.
func (s *Store) PutBack(ctx context.Context, backs []Back) error {
	n := len(backs)
	id, kind, epoch := make([]uuid.UUID, n), make([]string, n), make([]int32, n)
	op, delay, runAt, why := make([]string, n), make([]time.Duration, n), make([]*time.Time, n), make([]string, n)
	for i, b := range backs {
		id[i], kind[i], epoch[i], op[i], delay[i], why[i] = b.ID, b.Kind, b.Epoch, b.Op, b.Delay, b.Why
		if !b.RunAt.IsZero() {
			runAt[i] = &b.RunAt
		}
	}
	if _, err := s.pool.Exec(ctx, writsql.Statement("PutBack"), UUIDs(id), kind, epoch, op, delay, runAt, why); err != nil {
		return fmt.Errorf("put hints back: %w", err)
	}
	return nil
}

// begin starts a pipelined engine transaction: the batch carries BEGIN, its statements and, as the last one the caller
// queues, COMMIT, so that the whole unit is one round trip.
func begin() *pgx.Batch {
	b := &pgx.Batch{}
	b.BeginTx(readCommitted)
	b.Queue(writsql.Statement("EngineTransaction"))
	return b
}

// send runs such a batch on a connection of the pool.
func (s *Store) send(ctx context.Context, b *pgx.Batch) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	return send(ctx, conn.Conn(), b)
}

// send runs such a batch. After an error nothing is left open on the connection.
func send(ctx context.Context, conn *pgx.Conn, b *pgx.Batch) error {
	err := conn.SendBatch(ctx, b).Close()
	if err != nil && !conn.IsClosed() && conn.PgConn().TxStatus() != 'I' {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if _, rollbackErr := conn.Exec(ending, "ROLLBACK"); rollbackErr != nil {
			conn.Close(ending) // a pool discards it
		}
	}
	return err
}
