package intent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/writhq/writ/internal/store"
)

// maxNote bounds a note, in bytes; sql/log.sql has the same rule.
const maxNote = 8 << 10

// Note adds a note to an intent, wherever it stands; nothing else changes. It is kept with the log and shown by [Timeline].
// Errors: ErrNotFound, ErrInvalid, or the database's.
func Note(ctx context.Context, db DB, id ID, actor, text string) error {
	if strings.TrimSpace(text) == "" {
		return &InvalidError{Field: "note", Problem: "is empty"}
	}
	if err := errors.Join(checkText("actor", actor, 255), checkText("note", text, maxNote)); err != nil {
		return err
	}
	if err := store.Note(ctx, db, id, actor, text); err != nil {
		return fmt.Errorf("note: %w", explain(err, nil))
	}
	return nil
}

// Act is something that a person, or a program in a person's place, did: a verdict, a note, a bulk, an adoption.
type Act struct {
	Entry    int64           `json:"entry"` // its place in the log
	At       time.Time       `json:"at"`
	IntentID ID              `json:"intent_id"` // zero: not about a single intent
	Epoch    int32           `json:"epoch"`
	Event    string          `json:"event"`
	Actor    string          `json:"actor"`
	DBUser   string          `json:"db_user"` // who was logged in; nobody can choose it
	Why      string          `json:"why"`
	Evidence json.RawMessage `json:"evidence,omitempty"`
}

// AuditFilter narrows an audit. Zero fields do not.
type AuditFilter struct {
	Since, Until time.Time // since included, until not
	Actors       []string
	Intent       ID
}

// Audit hands over what people did, one by one, in the order of time, until each returns an error, which is returned. The
// same range gives the same acts in the same order, but for those whose transactions were still open, and for those
// that were pruned with their intents since. It holds one row at a time and one of db's connections.
func Audit(ctx context.Context, db DB, f AuditFilter, each func(Act) error) error {
	filter := store.AuditFilter{Actors: f.Actors}
	if !f.Since.IsZero() {
		filter.Since = &f.Since
	}
	if !f.Until.IsZero() {
		filter.Until = &f.Until
	}
	if f.Intent != uuid.Nil {
		filter.IntentID = &f.Intent
	}
	if err := store.Audit(ctx, db, filter, func(a store.Act) error { return each(Act(a)) }); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}
