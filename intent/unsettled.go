package intent

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	writsql "github.com/writhq/writ/sql"
)

// Unsettled is an event that a subscription of this installation has received and not turned into intents: its code
// failed, or could not read it.
type Unsettled struct {
	Subscription string          `json:"subscription"` // application/event/name
	Source       string          `json:"source"`       // who published it
	EventID      string          `json:"event_id"`
	Status       string          `json:"status"` // retrying, or dead: no more tries until a person decides
	Failures     int             `json:"failures"`
	LastError    string          `json:"last_error"`
	ReceivedAt   time.Time       `json:"received_at"`
	DueAt        *time.Time      `json:"due_at"` // of the next try
	DeadAt       *time.Time      `json:"dead_at"`
	Headers      json.RawMessage `json:"headers"` // its CloudEvents attributes
	Data         string          `json:"data"`    // the body; empty if it is not UTF-8
}

// UnsettledFilter chooses among them. Zero fields do not narrow it.
type UnsettledFilter struct {
	Subscription string // application/event/name
	Type         string // the event's name
	Status       string // retrying or dead
	Error        string // an error text, or its fingerprint: all that differ in numbers, ids, addresses and quoted strings only
	Limit        int    // at most so many; zero: all
	KeysOnly     bool   // without Headers and Data
}

// ListUnsettled lists those that a filter chooses, the oldest first. Errors: ErrNoSchema, or the database's.
func ListUnsettled(ctx context.Context, db DB, f UnsettledFilter) ([]Unsettled, error) {
	var limit *int
	if f.Limit > 0 {
		limit = &f.Limit
	}
	rows, err := db.Query(ctx, writsql.Statement("Unsettled"), f.Subscription, f.Status, limit, f.Type, f.Error, f.KeysOnly)
	if err != nil {
		return nil, fmt.Errorf("list unsettled events: %w", explain(err, nil))
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (u Unsettled, err error) {
		var raw []byte
		if err := row.Scan(&raw); err != nil {
			return u, err
		}
		return u, json.Unmarshal(raw, &u)
	})
	if err != nil {
		return nil, fmt.Errorf("list unsettled events: %w", explain(err, nil))
	}
	return out, nil
}

// RetryEvent has an unsettled event tried again soon. Errors: ErrInvalid, ErrNotFound, ErrIllegal (it is settled), or the
// database's.
func RetryEvent(ctx context.Context, db DB, u Unsettled, w Word) error {
	return w.decideEvent(ctx, db, "retry", u)
}

// DropEvent settles an unsettled event without creating anything. Errors as for RetryEvent.
func DropEvent(ctx context.Context, db DB, u Unsettled, w Word) error {
	return w.decideEvent(ctx, db, "drop", u)
}

func (w Word) decideEvent(ctx context.Context, db DB, verb string, u Unsettled) error {
	if err := w.check(); err != nil {
		return err
	}
	rows, err := db.Query(ctx, writsql.Statement("DecideEvent"), verb, u.Subscription, u.Source, u.EventID, w.Actor, w.Why)
	if err == nil {
		rows.Close()
		err = rows.Err()
	}
	if err != nil {
		return fmt.Errorf("%s event: %w", verb, explain(err, nil))
	}
	return nil
}
