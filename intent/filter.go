package intent

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/fsm"
	"github.com/writhq/writ/internal/store"
)

// Filter chooses intents for [List] and [PlanBulk]. Zero fields choose all.
type Filter struct {
	Kind       string    `json:"kind,omitempty"`
	Status     string    `json:"status,omitempty"`      // a derived word or a state
	FlagReason string    `json:"flag_reason,omitempty"` // of an ambiguous one, such as worker-died
	Error      string    `json:"error,omitempty"`       // an error text, or its fingerprint: all that differ in numbers, ids and addresses only
	Worker     string    `json:"worker,omitempty"`      // who claimed it last: the id of a worker, or its host
	Subject    string    `json:"subject,omitempty"`
	TID        ID        `json:"tid,omitzero"`
	Since      time.Time `json:"since,omitzero"` // when it got where it stands: flagged or finished, else requested
	Until      time.Time `json:"until,omitzero"` // before this
	Limit      int       `json:"-"`              // for List; default 50
}

// search is the condition of a query being built.
type search struct {
	where []string
	args  []any
}

// and adds a condition on an argument, which stands as %d in it.
func (s *search) and(condition string, arg any) {
	s.args = append(s.args, arg)
	s.where = append(s.where, fmt.Sprintf(condition, len(s.args)))
}

func (s *search) condition() string {
	if len(s.where) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(s.where, " AND ")
}

// search makes the condition on the view writ.status.
func (f Filter) search() (*search, error) {
	s := &search{}
	if f.Kind != "" {
		s.and("kind = $%d", f.Kind)
	}
	if f.Status != "" {
		if !isStatus(f.Status) {
			return nil, &InvalidError{Field: "status", Problem: fmt.Sprintf("%q is not one", f.Status), Fix: "one of " + strings.Join(Statuses(), ", ")}
		}
		s.and("$%[1]d IN (status, state)", f.Status)
		// Implied by the word; said so that the small partial indexes serve.
		switch f.Status {
		case "ambiguous":
			s.where = append(s.where, "flagged_at IS NOT NULL")
		case "error":
			s.where = append(s.where, "failed_at IS NOT NULL")
		case "sent", "cancelled":
			s.where = append(s.where, "finished_at IS NOT NULL")
		default:
			s.where = append(s.where, "finished_at IS NULL")
		}
	}
	if f.FlagReason != "" {
		s.and("flagged_at IS NOT NULL AND flag_reason = $%d", f.FlagReason)
	}
	if f.Error != "" {
		s.and("error IS NOT NULL AND writ.fingerprint(error) = writ.fingerprint($%d)", f.Error)
	}
	if f.Worker != "" {
		s.and("$%[1]d IN (worker_id::text, host)", f.Worker)
	}
	if f.Subject != "" {
		s.and("subjects @> ARRAY[$%d::text]", f.Subject)
	}
	if f.TID != uuid.Nil {
		// tid <> id is said so that the partial index serves; the root is found by its id.
		s.and("(tid = $%[1]d AND tid <> id OR id = $%[1]d)", f.TID)
	}
	if !f.Since.IsZero() {
		s.and("coalesce(flagged_at, finished_at, requested_at) >= $%d", f.Since)
	}
	if !f.Until.IsZero() {
		s.and("coalesce(flagged_at, finished_at, requested_at) < $%d", f.Until)
	}
	return s, nil
}

// List returns intents, the newest first.
func List(ctx context.Context, db DB, f Filter) ([]Intent, error) {
	s, err := f.search()
	if err != nil {
		return nil, err
	}
	limit := f.Limit
	if limit <= 0 {
		limit = 50
	}
	query := "SELECT to_jsonb(s) FROM writ.status s" + s.condition() + fmt.Sprintf(" ORDER BY id DESC LIMIT %d", limit)
	rows, err := db.Query(ctx, query, s.args...)
	if err != nil {
		return nil, fmt.Errorf("list: %w", store.Explain(err))
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (i Intent, err error) {
		var raw json.RawMessage
		if err := row.Scan(&raw); err != nil {
			return i, err
		}
		return i, json.Unmarshal(raw, &i)
	})
	if err != nil {
		return nil, fmt.Errorf("list: %w", store.Explain(err))
	}
	return out, nil
}

// Statuses lists the words that [Filter.Status] takes.
func Statuses() []string {
	words := []string{"scheduled", "waiting", "ready", "running", "retrying", "ambiguous"}
	for _, s := range fsm.States() {
		words = append(words, string(s))
	}
	return words
}

func isStatus(word string) bool { return slices.Contains(Statuses(), word) }
