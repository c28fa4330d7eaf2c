package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	writsql "github.com/writhq/writ/sql"
)

// Decision is a person's or a program's verdict on an intent.
type Decision struct {
	ID       uuid.UUID
	State    string // as seen
	Epoch    int32  // as seen
	Actor    string
	Why      string
	Evidence []byte // JSON or nil

	// Only for retry.
	Override string // why it cannot land any more; empty: none
	Args     []byte // JSON; nil: as they are
	NewKey   bool
}

// The SQLSTATEs of the verbs and guards in package sql.
const (
	CodeMoved    = "WR001"
	CodeNotFound = "WR002"
	CodeIllegal  = "WR003"
	CodeOverride = "WR004"
	CodeInvalid  = "WR005"
	CodeCopy     = "WR006" // this database is a copy that nobody adopted
	CodeCheck    = "23514" // of the server: a constraint is violated
)

// Decide runs one of the four verbs and returns the new state and epoch.
func Decide(ctx context.Context, q Querier, verb string, d Decision) (state string, epoch int32, err error) {
	args := []any{d.ID, d.State, d.Epoch, d.Actor, d.Why, text(d.Evidence)}
	name := map[string]string{"happened": "Happened", "retry": "Retry", "give-up": "GiveUp", "cancel": "Cancel"}[verb]
	if verb == "retry" {
		var override *string
		if d.Override != "" {
			override = &d.Override
		}
		args = append(args, override, text(d.Args), d.NewKey)
	}
	rows, err := q.Query(ctx, writsql.Statement(name), args...)
	if err != nil {
		return "", 0, err
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(&state, &epoch); err != nil {
			return "", 0, err
		}
	}
	return state, epoch, rows.Err()
}

// Get reads one intent as the view writ.status shows it, as JSON; nil: there is none.
func Get(ctx context.Context, q Querier, id uuid.UUID) (json.RawMessage, error) {
	return one[json.RawMessage](q.Query(ctx, writsql.Statement("Get"), id))
}

// Why says in one line why an intent is not done; empty: there is no such intent.
func Why(ctx context.Context, q Querier, id uuid.UUID) (string, error) {
	line, err := one[*string](q.Query(ctx, writsql.Statement("Why"), id))
	if err != nil || line == nil {
		return "", err
	}
	return *line, nil
}

// Entry is one line of a timeline.
type Entry struct {
	At       time.Time
	Event    string
	Actor    string
	Epoch    int32
	Why      string
	Evidence json.RawMessage
	DBUser   string
}

// Timeline reads what happened to an intent, in order.
func Timeline(ctx context.Context, q Querier, id uuid.UUID) ([]Entry, error) {
	rows, err := q.Query(ctx, writsql.Statement("Timeline"), id)
	if err != nil {
		return nil, fmt.Errorf("timeline: %w", Explain(err))
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Entry])
}

// WhyMissing says what is known of an id that names no intent.
func WhyMissing(ctx context.Context, q Querier, id uuid.UUID) (string, error) {
	return one[string](q.Query(ctx, writsql.Statement("WhyMissing"), id))
}

// one returns the only row's value, or the zero value if there is none.
func one[T any](rows pgx.Rows, err error) (T, error) {
	var zero T
	if err != nil {
		return zero, Explain(err)
	}
	v, err := pgx.CollectOneRow(rows, pgx.RowTo[T])
	if errors.Is(err, pgx.ErrNoRows) {
		return zero, nil
	}
	return v, Explain(err)
}

// Code returns the SQLSTATE, message, detail and hint of a server's error; ok is false for any other error.
func Code(err error) (pgErr *pgconn.PgError, ok bool) {
	ok = errors.As(err, &pgErr)
	return pgErr, ok
}
