package intent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	writsql "github.com/writhq/writ/sql"
)

// Word is what a person has to say who overrules the engine; both are required and recorded.
type Word struct {
	Actor string // who
	Why   string // the reason, at least 10 characters
}

func (w Word) check() error {
	return errors.Join(checkText("actor", w.Actor, 255), checkText("why", w.Why, maxReason))
}

// Pause stops everything, or, if kind is not empty, that kind, until [Resume]. Nothing new is begun; running handlers go
// on, and intents can still be created: their messages wait in the broker. Pausing what is paused replaces who and why.
// Errors: ErrInvalid, ErrNotFound (nobody ever declared the kind), or the database's.
func Pause(ctx context.Context, db DB, kind string, w Word) error {
	return w.say(ctx, db, "Pause", optional(kind), nil)
}

// Resume ends a pause. It adopts nothing: a copied database stays closed. Errors: ErrInvalid, ErrIllegal (it is not
// paused), or the database's.
func Resume(ctx context.Context, db DB, kind string, w Word) error {
	return w.say(ctx, db, "Resume", optional(kind), nil)
}

// PauseQueue is Pause for all kinds of one queue, those that are declared later included.
func PauseQueue(ctx context.Context, db DB, queue string, w Word) error {
	return w.say(ctx, db, "Pause", nil, &queue)
}

// ResumeQueue ends a pause of a queue. Kinds of it that are paused by themselves stay so. Errors as Resume's.
func ResumeQueue(ctx context.Context, db DB, queue string, w Word) error {
	return w.say(ctx, db, "Resume", nil, &queue)
}

// OpenBreaker opens the circuit breaker of a kind by hand, for pause, or if that is 0 for as long as it would stay open by
// itself; then one intent is tried. Errors: ErrInvalid, ErrNotFound (nobody ever declared the kind), ErrIllegal (its code
// declares no breaker), or the database's.
func OpenBreaker(ctx context.Context, db DB, kind string, pause time.Duration, w Word) error {
	var span *time.Duration
	if pause != 0 {
		span = &pause
	}
	return w.tell(ctx, db, "OpenBreaker", kind, w.Actor, w.Why, span)
}

// CloseBreaker closes it without a trial. Errors as OpenBreaker's, and ErrIllegal where it is closed.
func CloseBreaker(ctx context.Context, db DB, kind string, w Word) error {
	return w.tell(ctx, db, "CloseBreaker", kind, w.Actor, w.Why)
}

func (w Word) say(ctx context.Context, db DB, statement string, kind, queue *string) error {
	return w.tell(ctx, db, statement, w.Actor, w.Why, kind, queue)
}

func (w Word) tell(ctx context.Context, db DB, statement string, args ...any) error {
	if err := w.check(); err != nil {
		return err
	}
	rows, err := db.Query(ctx, writsql.Statement(statement), args...)
	if err == nil {
		rows.Close()
		err = rows.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", statement, explain(err, nil))
	}
	return nil
}

func optional(name string) *string {
	if name == "" {
		return nil
	}
	return &name
}

// KindState is what holds a declared kind back, or does not.
type KindState struct {
	Kind       string     `json:"kind"`
	Queue      string     `json:"queue"`
	Class      string     `json:"class"`
	Paused     bool       `json:"paused"`
	PauseWhy   string     `json:"pause_why,omitempty"`   // what is paused, by whom and why
	HasBreaker bool       `json:"has_breaker"`           // its code declares one
	Breaker    string     `json:"breaker"`               // closed, open or half-open
	Until      *time.Time `json:"until,omitempty"`       // an open breaker is not tried before
	BreakerWhy string     `json:"breaker_why,omitempty"` // of its last change
	Workers    int64      `json:"workers"`               // live ones that take it
	Waiting    *int64     `json:"waiting"`               // messages in its queue, as the relay saw them last; nil: not known, or no queue
}

// Kinds returns all kinds that workers ever declared, by name.
func Kinds(ctx context.Context, db DB) ([]KindState, error) {
	rows, err := db.Query(ctx, writsql.Statement("Kinds"))
	if err != nil {
		return nil, fmt.Errorf("kinds: %w", explain(err, nil))
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[KindState])
	if err != nil {
		return nil, fmt.Errorf("kinds: %w", explain(err, nil))
	}
	return all, nil
}

// Quarantined is what a quarantine did.
type Quarantined struct {
	Flagged int64 `json:"flagged"` // intents that may have been run: sending and ambiguous now, without a holder
	Fenced  int64 `json:"fenced"`  // intents that cannot have been run, or may be run again: only their epoch was raised
	Errors  int64 `json:"errors"`  // intents in error, which stand as they were; somebody may have retried them in what is lost
}

// Quarantine is for a database that lost what happened after since, though its effects stand in the outside world: a
// restore from a backup, an unclean failover. Every open intent that is due, of a kind that is not idempotent, may have
// been run in what is lost: it becomes ambiguous, to be settled by its probe or a person. The epochs of all open intents
// are raised by 1000, so that hints and workers that are left from then find nothing. since is the moment that the
// database went back to, rather too early than too late; it is recorded with each intent.
//
// It is one transaction, in which all open rows are locked, and blocks for about 80 s for each million of them (on
// two shared cores, of which it uses one). Done twice it does no harm. Errors: ErrIllegal if work goes on in this database
// (pause it, or let it be unadopted), ErrInvalid, or the database's.
func Quarantine(ctx context.Context, db DB, since time.Time, w Word, evidence json.RawMessage) (q Quarantined, err error) {
	if err := w.check(); err != nil {
		return q, err
	}
	if evidence != nil {
		if _, err := encode("evidence", evidence, 1<<20); err != nil {
			return q, err
		}
	}
	rows, err := db.Query(ctx, writsql.Statement("Quarantine"), since, w.Actor, w.Why, evidence)
	if err == nil {
		q, err = pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Quarantined])
	}
	if err != nil {
		return q, fmt.Errorf("quarantine: %w", explain(err, nil))
	}
	return q, nil
}
