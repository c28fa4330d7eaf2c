package intent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/writhq/writ/fsm"
)

// ErrNoResult: the intent is sent, and its handler left no result.
var ErrNoResult = errors.New("no result")

// ErrNotDone: the intent is not sent, or not yet; the *StateError around it says how it stands.
var ErrNotDone = errors.New("not done")

// StateError says that an intent does not stand where a call expects it.
type StateError struct {
	ID        ID
	Want      fsm.State
	Status    string // as it stands: running, ambiguous, error, …
	LastError string // if there was one
}

func (e *StateError) Error() string {
	text := fmt.Sprintf("writ: intent %s is %s, not %s", e.ID, e.Status, e.Want)
	if e.LastError != "" {
		text += ": " + e.LastError
	}
	return text
}

// Is makes errors.Is(err, ErrNotDone) true.
func (e *StateError) Is(target error) bool { return target == ErrNotDone }

// Result reads what the handler of a sent intent left by Job.Result. Errors: ErrNotFound; ErrNotDone, a *StateError that says how the
// intent stands; ErrNoResult, if it was settled by somebody who left none; or one of decoding, or the database's.
func Result[T any](ctx context.Context, db DB, id ID) (T, error) {
	var out T
	i, err := Get(ctx, db, id)
	if err != nil {
		return out, err
	}
	if i.State != fsm.Sent {
		state := &StateError{ID: id, Want: fsm.Sent, Status: i.Status}
		if i.Error != nil {
			state.LastError = *i.Error
		}
		return out, state
	}
	if len(i.Result) == 0 || string(i.Result) == "null" {
		return out, &refusal{ErrNoResult, fmt.Sprintf("writ: intent %s is sent, and has no result: its handler, or the person who said that it happened, left none", id)}
	}
	if err := json.Unmarshal(i.Result, &out); err != nil {
		return out, fmt.Errorf("writ: the result of intent %s does not fit %T: %w", id, out, err)
	}
	return out, nil
}
