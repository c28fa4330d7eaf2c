package intent

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/fsm"
	"github.com/writhq/writ/internal/store"
)

// DB is whatever can query: a pgx pool, connection or transaction.
type DB interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Intent is a row as the view writ.status shows it. Times are the database's.
type Intent struct {
	ID             ID              `json:"id"`
	Kind           string          `json:"kind"`
	Status         string          `json:"status"` // derived: scheduled, waiting, ready, running, retrying, ambiguous, sent, error, cancelled
	State          fsm.State       `json:"state"`
	Epoch          int32           `json:"epoch"`
	Attempt        int32           `json:"attempt"`
	MaxAttempts    int32           `json:"max_attempts"`
	Class          string          `json:"class"` // idempotent, probed, manual; undeclared if no worker knows the kind
	IdempotencyKey string          `json:"idempotency_key"`
	RequestedAt    time.Time       `json:"requested_at"`
	RunAt          time.Time       `json:"run_at"`
	StartedAt      *time.Time      `json:"started_at"`
	DeadlineAt     *time.Time      `json:"deadline_at"`
	FinishedAt     *time.Time      `json:"finished_at"`
	FlaggedAt      *time.Time      `json:"flagged_at"`
	FlagReason     *string         `json:"flag_reason"`
	WorkerID       *uuid.UUID      `json:"worker_id"`
	Host           *string         `json:"host"`
	PID            *int            `json:"pid"`
	HeartbeatAt    *time.Time      `json:"heartbeat_at"`
	WorkerAlive    bool            `json:"worker_alive"`
	Subjects       []string        `json:"subjects"`
	TID            ID              `json:"tid"`
	ParentID       *ID             `json:"parent_id"`
	Error          *string         `json:"error"`
	Args           json.RawMessage `json:"args"`
	Meta           json.RawMessage `json:"meta"`
	Result         json.RawMessage `json:"result"`   // what the handler left with its outcome; null: nothing
	Progress       json.RawMessage `json:"progress"` // what the last safe point of any attempt left; null: there was none
}

// Position is where the intent stands, to be named in a [Verdict].
func (i Intent) Position() Position {
	return Position{State: string(i.State), Epoch: i.Epoch, Flagged: i.FlaggedAt != nil}
}

// Get reads one intent. Errors: ErrNotFound, ErrNoSchema, or the database's.
func Get(ctx context.Context, db DB, id ID) (Intent, error) {
	var out Intent
	row, err := store.Get(ctx, db, id)
	if err != nil {
		return out, fmt.Errorf("get: %w", err)
	}
	if row == nil {
		return out, &refusal{ErrNotFound, fmt.Sprintf("writ: there is no intent %s", id)}
	}
	if err := json.Unmarshal(row, &out); err != nil {
		return out, fmt.Errorf("get: %w", err)
	}
	return out, nil
}

// Why says in one line why an intent is not done yet, or how it ended. Errors: ErrNotFound, with what is known of the id;
// ErrNoSchema, or the database's.
func Why(ctx context.Context, db DB, id ID) (string, error) {
	line, err := store.Why(ctx, db, id)
	if err != nil {
		return "", fmt.Errorf("why: %w", err)
	}
	if line != "" {
		return line, nil
	}
	if line, err = store.WhyMissing(ctx, db, id); err != nil {
		return "", fmt.Errorf("why: %w", err)
	}
	return "", &refusal{ErrNotFound, "writ: " + line}
}

// Entry is one line of an intent's timeline.
type Entry struct {
	At       time.Time       `json:"at"`
	Event    string          `json:"event"`
	Actor    string          `json:"actor"`
	Epoch    int32           `json:"epoch"`
	Why      string          `json:"why,omitempty"`
	Evidence json.RawMessage `json:"evidence,omitempty"`
	DBUser   string          `json:"db_user,omitempty"` // of what stands in the log: who was logged in
}

// Timeline returns all that is recorded of an intent, in order. Errors: ErrNotFound, ErrNoSchema, or the database's.
func Timeline(ctx context.Context, db DB, id ID) ([]Entry, error) {
	entries, err := store.Timeline(ctx, db, id)
	if err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		return nil, &refusal{ErrNotFound, fmt.Sprintf("writ: there is no intent %s", id)}
	}
	out := make([]Entry, len(entries))
	for i, e := range entries {
		out[i] = Entry(e)
	}
	return out, nil
}
