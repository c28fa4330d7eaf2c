package intent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/internal/backoff"
	"github.com/writhq/writ/internal/store"
)

// Autocommit is a handle whose statements are transactions of their own: a pgxpool.Pool, or a pgx.Conn that is in no
// transaction, but not a pgx.Tx.
type Autocommit interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Ping(ctx context.Context) error
}

// aloneTries is how often CreateAlone asks again after a lost answer.
const aloneTries = 5

// CreateAlone creates an intent in a transaction of its own, in one round trip. It is for intents that belong to no other
// write of the application, like a tick of its own scheduler; wherever rows are written too, use Create in their
// transaction, or one of the two may be lost.
//
// An answer that was lost is asked for again with the same id, which creates nothing twice. If there is still none the
// error comes with the id of the intent that may or may not exist: to find out, create it again with Opts.ID. With an
// Opts.ID of the caller's, Existed is also true where an earlier try of this call made it. It blocks until the database
// has answered, or ctx ends. Errors as for Create. Safe for concurrent use with a pool.
func (k Kind[T]) CreateAlone(ctx context.Context, db Autocommit, args T, opts Opts) (Created, error) {
	opts, err := caused(ctx, alone{db}, k.Name, opts)
	if err != nil {
		return Created{}, err
	}
	r, err := k.request(args, opts)
	if err != nil {
		return Created{}, err
	}
	if err := ctx.Err(); err != nil {
		return Created{}, fmt.Errorf("create %s: %w", k.Name, err)
	}
	ours, applied := r.Fresh, false
	pause := backoff.New(20*time.Millisecond, time.Second)
	for try := 1; ; try++ {
		created, err := k.create(ctx, alone{db}, r)
		if err == nil {
			if ours && created.ID == r.ID {
				created.Existed = false // an earlier try made it
			}
			return created, nil
		}
		again := store.Transient(err)
		applied = applied || store.Unknown(err) && (again || errors.Is(err, context.Canceled)) // perhaps
		if again && try < aloneTries && pause.Wait(ctx) {
			r.Fresh = false
			continue
		}
		if applied {
			return Created{ID: r.ID}, fmt.Errorf("%w (the answer was lost; it may exist as %s)", err, r.ID)
		}
		return Created{}, err
	}
}

// alone is a Tx without one: each statement is its own.
type alone struct{ Autocommit }

func (alone) Commit(context.Context) error   { return nil }
func (alone) Rollback(context.Context) error { return nil }
