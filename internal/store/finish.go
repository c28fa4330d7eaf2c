package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	writsql "github.com/writhq/writ/sql"
)

// Outcome is what a worker has to say of an attempt that it holds.
type Outcome struct {
	ID    uuid.UUID
	Epoch int32
	Event string // succeeded, retried, failed or flagged
	Error string // of the handler; cleaned before it is written
	Why   string // retried, failed: in a word. Flagged: the reason

	Delay time.Duration // retried: until the next attempt
	Free  bool          // retried: no attempt spent (snoozed, or never begun)
	Probe bool          // flagged: the kind has a probe

	Result []byte // succeeded: JSON; nil: none

	// Hook is the application's share in the finishing transaction; nil for none. It runs after the guard, at most once
	// in a transaction that commits.
	Hook func(context.Context, pgx.Tx) error
}

// The events of an outcome.
const (
	Succeeded = succeeded
	Retried   = retried
	Failed    = failed
	Flagged   = flagged
)

// Fate is what became of an outcome that was written singly.
type Fate struct {
	Late    bool   // refused: a verdict came first; a late report was kept
	State   string // of the row now, if late
	Meaning string // of the report beside the verdict, if late: confirms, contradicts or neither
}

// FinishBatch writes outcomes that have no hook, in one transaction and one round trip; where some are missing, a second one
// reads which. It returns those that were not applied: refused, or locked by somebody else at that moment; [Store.FinishOne]
// tells which. A batch that was applied though its answer was lost may be written again: what stands as sent by this very
// attempt is not returned.
func (s *Store) FinishBatch(ctx context.Context, worker uuid.UUID, outcomes []Outcome) ([]Outcome, error) {
	type attempt struct {
		id    uuid.UUID
		epoch int32 // a late outcome of an earlier one may be among them
	}
	var done []attempt
	note := func(epoch int32) func(pgx.Rows) error {
		return func(rows pgx.Rows) error {
			a := attempt{epoch: epoch}
			_, err := pgx.ForEachRow(rows, []any{(*uuidTarget)(&a.id)}, func() error {
				done = append(done, a)
				return nil
			})
			return err
		}
	}
	b := begin()
	sent := map[int32]UUIDs{} // by epoch
	for _, o := range outcomes {
		if o.Event == Succeeded && o.Result == nil {
			if sent[o.Epoch] == nil {
				sent[o.Epoch] = make(UUIDs, 0, len(outcomes)) // nearly always all of them
			}
			sent[o.Epoch] = append(sent[o.Epoch], o.ID)
			continue
		}
		sql, args := single(worker, o)
		b.Queue(sql, args...).Query(note(o.Epoch))
	}
	together := 0
	short := map[int32]bool{} // epochs of which some were not applied
	for epoch, ids := range sent {
		Sort(ids)
		b.Queue(writsql.Statement("FinishSent"), ids, epoch, worker).Exec(func(tag pgconn.CommandTag) error {
			n := int(tag.RowsAffected())
			together += n
			short[epoch] = n < len(ids)
			return nil
		})
	}
	b.Queue("COMMIT")
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("finish: %w", err)
	}
	defer conn.Release()
	if err := send(ctx, conn.Conn(), b); err != nil {
		return nil, fmt.Errorf("finish: %w", err)
	}
	if together+len(done) == len(outcomes) {
		return nil, nil // as nearly always: that a list of them is not sent saves a tenth of writing them
	}
	b = begin()
	reads := 0
	for epoch, ids := range sent {
		if short[epoch] {
			b.Queue(writsql.Statement("StandSent"), ids, epoch, worker).Query(note(epoch))
			reads++
			continue
		}
		for _, id := range ids {
			done = append(done, attempt{id, epoch})
		}
	}
	if reads > 0 {
		b.Queue("COMMIT")
		if err := send(ctx, conn.Conn(), b); err != nil {
			return nil, fmt.Errorf("finish: read what was applied: %w", err)
		}
	}
	applied := make(map[attempt]bool, len(done))
	for _, a := range done {
		applied[a] = true
	}
	return slices.DeleteFunc(slices.Clone(outcomes), func(o Outcome) bool { return applied[attempt{o.ID, o.Epoch}] }), nil
}

// HookError is the error of a transaction in which the application's hook was called: its own, or one that the database
// had with it, up to the commit.
type HookError struct{ Err error }

func (e *HookError) Error() string { return "hook: " + e.Err.Error() }
func (e *HookError) Unwrap() error { return e.Err }

// FinishOne writes one outcome in a transaction of its own: the guard, waiting for the row's lock, then the hook. If the
// guard refuses, it compares with the row and its log: the same outcome applied before is fine, anything else becomes a
// late report in this same transaction. It may be called again with the same outcome after any error.
func (s *Store) FinishOne(ctx context.Context, worker uuid.UUID, o Outcome) (Fate, error) {
	var fate Fate
	err := s.shared(ctx, func(tx pgx.Tx, application share) error {
		sql, args := single(worker, o)
		tag, err := tx.Exec(ctx, sql, args...)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 1 {
			if o.Hook == nil {
				return nil
			}
			return application(o.Hook)
		}
		var applied bool
		if err := tx.QueryRow(ctx, writsql.Statement("LateReport"), o.ID, o.Epoch, worker, o.Event, clean(o.Error), o.Why, text(o.Result)).
			Scan(&applied, &fate.State, &fate.Meaning); err != nil {
			return err
		}
		fate.Late = !applied
		return nil
	})
	if err != nil {
		return Fate{}, fmt.Errorf("finish %s: %w", o.ID, err)
	}
	return fate, nil
}

// single is the waiting statement of one outcome, with its parameters.
func single(worker uuid.UUID, o Outcome) (string, []any) {
	switch o.Event {
	case Succeeded:
		return writsql.Statement("FinishSentWaiting"), []any{o.ID, o.Epoch, worker, text(o.Result)}
	case Retried:
		spent := 1
		if o.Free {
			spent = 0
		}
		return writsql.Statement("FinishRetried"), []any{o.ID, o.Epoch, worker, o.Delay, clean(o.Error), spent, o.Why}
	case Failed:
		return writsql.Statement("FinishFailed"), []any{o.ID, o.Epoch, worker, clean(o.Error), o.Why}
	case Flagged:
		return writsql.Statement("FinishFlagged"), []any{o.ID, o.Epoch, worker, o.Why, clean(o.Error), o.Probe}
	}
	panic(fmt.Sprintf("store: no such outcome %q", o.Event)) // the code's own constants
}

// Owed is an intent that a verdict ended, whose kind's share in that has still to run.
type Owed struct {
	Claimed
	Error string // its last one
	State string // error or sent
}

// The states that a verdict ends in with a share of the application.
const (
	StateError = "error"
	StateSent  = "sent"
)

// Recover runs the application's share in a verdict, in one transaction with the note that it was run. It reports false if
// nothing is owed any more in these states, and then hook was not called. Why the hook failed is noted in the log.
func (s *Store) Recover(ctx context.Context, worker uuid.UUID, h Hint, states []string, hook func(ctx context.Context, tx pgx.Tx, o Owed) error) (bool, error) {
	owed := false
	var said error // by the hook itself; where only the commit is not known it has not failed
	err := s.shared(ctx, func(tx pgx.Tx, application share) error {
		var o Owed
		err := tx.QueryRow(ctx, writsql.Statement("ReadRecovery"), h.ID, h.Epoch, h.Kind, states).Scan(append(o.targets(), &o.Error, &o.State)...)
		if err == pgx.ErrNoRows {
			return nil
		} else if err != nil {
			return err
		}
		owed = true
		err = application(func(ctx context.Context, tx pgx.Tx) error {
			said = hook(ctx, tx, o)
			return said
		})
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, writsql.Statement("Recovered"), h.ID, worker)
		return err
	})
	if said != nil && !Transient(said) {
		_, noted := s.pool.Exec(ctx, writsql.Statement("RecoveryFailed"), h.ID, h.Epoch, worker, clean(said.Error()))
		err = errors.Join(err, noted)
	}
	if err != nil {
		return owed, fmt.Errorf("recover %s: %w", h.ID, err)
	}
	return owed, nil
}

// Sort sorts ids as Postgres does, so that all statements lock rows in one order.
func Sort(ids []uuid.UUID) {
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
}

// maxError bounds an error text, in bytes.
const maxError = 8 << 10

// clean makes an outside error's text storable: no NUL, valid UTF-8, bounded. A text that Postgres refuses must not make
// a job look ambiguous that is done. Empty is null.
func clean(s string) *string {
	if s == "" {
		return nil
	}
	s = Storable(s)
	if len(s) > maxError {
		cut := maxError
		for !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return &s
}

// Storable is a text that Postgres can keep: no NUL, valid UTF-8.
func Storable(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}
