package store

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	writsql "github.com/writhq/writ/sql"
)

// The states of a circuit breaker.
const (
	BreakerClosed   = "closed"
	BreakerOpen     = "open"
	BreakerHalfOpen = "half-open"
)

// Breaker is how a kind's circuit breaker stands, for all workers together.
type Breaker struct {
	State      string
	Generation int32 // +1 with each change
	Due        bool  // somebody should try one intent
	Mine       bool  // half-open, and this worker may try
}

// Flow is what holds a kind back.
type Flow struct {
	Kind    string
	Paused  bool
	Breaker Breaker
}

// Flows lists the kinds that something holds back, or whose breaker was ever used.
func Flows(ctx context.Context, q Querier, worker uuid.UUID) ([]Flow, error) {
	rows, err := q.Query(ctx, writsql.Statement("Flow"), worker)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (f Flow, err error) {
		return f, row.Scan(&f.Kind, &f.Paused, &f.Breaker.State, &f.Breaker.Generation, &f.Breaker.Due, &f.Breaker.Mine)
	})
}

// BreakerReport is what a worker has to say of a kind's breaker.
type BreakerReport struct {
	Kind            string
	Seen            int32  // the generation that all of it is about
	Calls, Failures int    // attempts that ended since the last report
	Verdict         string // of the intent that was tried: done, failed, or empty
	Willing         bool   // it would try one
}

// ReportBreaker says it on the caller's connection, and returns how the breaker stands then. lease is for how long the worker
// may try, if it is the one. A verdict may be said again, counts may not.
func ReportBreaker(ctx context.Context, conn *pgx.Conn, worker uuid.UUID, r BreakerReport, lease time.Duration) (b Breaker, err error) {
	var verdict *string
	if r.Verdict != "" {
		verdict = &r.Verdict
	}
	err = conn.QueryRow(ctx, writsql.Statement("BreakerReport"), r.Kind, worker, r.Seen, r.Calls, r.Failures, verdict, r.Willing, lease).
		Scan(&b.State, &b.Generation, &b.Mine)
	return b, err
}
