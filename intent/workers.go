package intent

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	writsql "github.com/writhq/writ/sql"
)

// Worker is a worker process as it last said of itself. Times are the database's.
type Worker struct {
	ID          uuid.UUID `json:"id"`
	Status      string    `json:"status"` // alive, draining (it is shutting down), dead (silent for longer than it is believed)
	Host        string    `json:"host"`
	PID         int       `json:"pid"`
	Version     string    `json:"version"`
	Kinds       []string  `json:"kinds"`
	Slots       int       `json:"slots"`
	Running     int       `json:"running"` // handlers
	Stuck       int       `json:"stuck"`   // of them, those past their deadline
	StartedAt   time.Time `json:"started_at"`
	HeartbeatAt time.Time `json:"heartbeat_at"`
}

// Workers lists the worker processes that have not signed off, by host and process id. Errors: ErrNoSchema, or the database's.
func Workers(ctx context.Context, db DB) ([]Worker, error) {
	rows, err := db.Query(ctx, writsql.Statement("Workers"))
	if err != nil {
		return nil, fmt.Errorf("list workers: %w", explain(err, nil))
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (w Worker, err error) {
		var raw []byte
		if err := row.Scan(&raw); err != nil {
			return w, err
		}
		return w, json.Unmarshal(raw, &w)
	})
	if err != nil {
		return nil, fmt.Errorf("list workers: %w", explain(err, nil))
	}
	return out, nil
}
