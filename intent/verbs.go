package intent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/writhq/writ/fsm"
	"github.com/writhq/writ/internal/store"
)

// Verdict is a decision on one intent, by a person or a program, on the position that was looked at. If the intent has
// moved since, nothing is changed and the error is a *ConflictError that says what changed.
type Verdict struct {
	ID       ID
	Seen     Position        // as it was shown
	Actor    string          // who decides; required
	Why      string          // the reason, at least 10 characters; required
	Evidence json.RawMessage // anything worth keeping with it; optional

	// For [Retry] only.
	Override string          // why the attempt cannot land any more; needed before deadline + settle or while its worker lives
	NewArgs  json.RawMessage // run with these arguments, under a new idempotency key; nil: as they are
	NewKey   Key             // whether the idempotency key changes
}

// Key says which idempotency key a retry uses towards the outside.
type Key int

// A kept key lets an outside system that keeps keys guard a wrong verdict. Some replay a stored failure under it: then
// only a new one helps.
const (
	SameKey Key = iota
	FreshKey
)

// Happened records that it was done: flagged sending or error → sent. Errors of all four verbs: ErrConflict,
// ErrNotFound, ErrIllegal, ErrInvalid (actor or reason missing), ErrNeedsOverride, or the database's. Each is one
// transaction if db is a pool, or part of the caller's.
func Happened(ctx context.Context, db DB, v Verdict) (Position, error) {
	return decide(ctx, db, fsm.Happened, v)
}

// Retry records that it was not done, and runs it again with attempts from 0: flagged sending or error → pending.
func Retry(ctx context.Context, db DB, v Verdict) (Position, error) {
	return decide(ctx, db, fsm.Retry, v)
}

// GiveUp stops here without a word on whether it was done: flagged sending → error.
func GiveUp(ctx context.Context, db DB, v Verdict) (Position, error) {
	return decide(ctx, db, fsm.GiveUp, v)
}

// Cancel says that it is never to be run: pending or error → cancelled.
func Cancel(ctx context.Context, db DB, v Verdict) (Position, error) {
	return decide(ctx, db, fsm.Cancel, v)
}

// maxReason bounds what a person writes, in bytes.
const maxReason = 8 << 10

func decide(ctx context.Context, db DB, verb fsm.Event, v Verdict) (Position, error) {
	if err := errors.Join(checkText("actor", v.Actor, 255), checkText("why", v.Why, maxReason), checkText("override", v.Override, maxReason)); err != nil {
		return Position{}, err
	}
	if v.Evidence != nil {
		if _, err := encode("evidence", v.Evidence, 1<<20); err != nil {
			return Position{}, err
		}
	}
	d := store.Decision{
		ID: v.ID, State: v.Seen.State, Epoch: v.Seen.Epoch, Actor: v.Actor, Why: v.Why, Evidence: v.Evidence,
		Override: v.Override, NewKey: v.NewKey == FreshKey,
	}
	if v.NewArgs != nil {
		args, err := encode("args", v.NewArgs, 1<<20)
		if err != nil {
			return Position{}, err
		}
		d.Args = args
	}
	state, epoch, err := store.Decide(ctx, db, string(verb), d)
	if err != nil {
		return Position{}, fmt.Errorf("%s: %w", verb, explain(err, &v))
	}
	return Position{State: state, Epoch: epoch}, nil
}
