package intent

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/writhq/writ/internal/store"
)

// What can go wrong, for errors.Is.
var (
	// ErrInvalid: the input cannot be taken; the *InvalidError around it says what, where and what to do.
	ErrInvalid = errors.New("invalid")
	// ErrConflict: something moved meanwhile, or a creation key is taken by another request.
	ErrConflict = errors.New("conflict")
	// ErrNotFound: there is no such intent.
	ErrNotFound = errors.New("not found")
	// ErrIllegal: the state machine has no such transition.
	ErrIllegal = errors.New("not a legal transition")
	// ErrNeedsOverride: retrying now may do it twice; say why it cannot land any more.
	ErrNeedsOverride = errors.New("needs an override")
	// ErrNoSchema: the database has no Writ schema, or one that is too old.
	ErrNoSchema = store.ErrNoSchema
)

// InvalidError says what is wrong with an input. Nothing was written.
type InvalidError struct {
	Field   string // which input: kind, args, run_at, …
	Problem string // what is wrong with it
	Fix     string // what to do instead
}

func (e *InvalidError) Error() string {
	s := fmt.Sprintf("writ: %s: %s", e.Field, e.Problem)
	if e.Fix != "" {
		s += " (" + e.Fix + ")"
	}
	return s
}

// Is makes errors.Is(err, ErrInvalid) true.
func (e *InvalidError) Is(target error) bool { return target == ErrInvalid }

// KeyConflictError says that a creation key, or an id, belongs to a request with other arguments.
type KeyConflictError struct {
	Kind string
	Key  string // empty: the id itself
	ID   ID     // the intent that has it
}

func (e *KeyConflictError) Error() string {
	if e.Key == "" {
		return fmt.Sprintf("writ: id %s exists already with another kind or other args; use a new id for a new request", e.ID)
	}
	return fmt.Sprintf("writ: creation key %q of %s belongs to intent %s, which has other args; use another key for another request",
		e.Key, e.Kind, e.ID)
}

// Is makes errors.Is(err, ErrConflict) true.
func (e *KeyConflictError) Is(target error) bool { return target == ErrConflict }

// ConflictError says that an intent has moved since it was looked at. Nothing was written.
type ConflictError struct {
	ID    ID
	Want  Position // as it was seen
	Got   Position // as it is
	cause string
}

// Position is where an intent stands; every verdict names the one it was decided on.
type Position struct {
	State   string `json:"state"`
	Epoch   int32  `json:"epoch"`
	Flagged bool   `json:"flagged"`
}

func (e *ConflictError) Error() string { return e.cause }

// Is makes errors.Is(err, ErrConflict) true.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// refusal is a server's refusal under one of the sentinels, with the server's own words.
type refusal struct {
	kind error
	text string
}

func (e *refusal) Error() string        { return e.text }
func (e *refusal) Is(target error) bool { return target == e.kind }

// explain turns the server's errors into this package's.
func explain(err error, d *Verdict) error {
	if err == nil {
		return nil
	}
	pgErr, ok := store.Code(err)
	if !ok {
		return err
	}
	if pgErr.Code == store.CodeCheck && pgErr.DataTypeName == "task" {
		return &refusal{ErrInvalid, fmt.Sprintf("writ: kind: is not %s, which this database belongs to (an application creates only its own tasks; publish an event that the other one subscribes to)", pgErr.ConstraintName)}
	}
	words := pgErr.Message
	if pgErr.Hint != "" {
		words += " (" + pgErr.Hint + ")"
	}
	switch pgErr.Code {
	case store.CodeMoved:
		conflict := &ConflictError{cause: words}
		if d != nil {
			conflict.ID, conflict.Want = d.ID, d.Seen
		}
		// The detail is written by sql/verbs.sql; if it cannot be read, the words still say it.
		_ = json.Unmarshal([]byte(pgErr.Detail), &conflict.Got)
		return conflict
	case store.CodeNotFound:
		return &refusal{ErrNotFound, words}
	case store.CodeIllegal:
		return &refusal{ErrIllegal, words}
	case store.CodeOverride:
		return &refusal{ErrNeedsOverride, words}
	case store.CodeInvalid:
		return &refusal{ErrInvalid, words}
	}
	return store.Explain(err)
}
