package contender

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Age is the kind of rows that Fill writes.
type Age int

// The ages.
const (
	Finished Age = iota // sent, over the last six days: younger than their retention
	Stale               // pending and due for two minutes, with their hints still in the outbox: a reconciler looks at each
	Due                 // pending and due now
	Future              // pending and due tomorrow
)

// fillChunk is how many rows one statement writes.
const fillChunk = 1_000_000

const fillFinished = `
	INSERT INTO writ.intents (id, tid, kind, state, event, epoch, attempt, args, worker_id, requested_at, run_at, started_at, deadline_at, finished_at)
	SELECT id, id, $1, 'sent', 'succeeded', 1, 1, $2, '01990000-0000-7000-8000-000000000001', at, at, at, at + interval '60 s', at
	FROM (SELECT writ.uuid_v7() AS id, now() - interval '6 days' * ($4 + n)::float8 / $5 AS at FROM generate_series(1, $3::int) n OFFSET 0) g`

const fillPending = `
	WITH i AS (
		INSERT INTO writ.intents (id, tid, kind, event, args, run_at) SELECT id, id, $1, 'requested', $2, now() + $4
		FROM (SELECT writ.uuid_v7() AS id FROM generate_series(1, $3::int) OFFSET 0) g RETURNING id, kind, run_at)
	INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) SELECT greatest(run_at, clock_timestamp()), kind, id, 0, 'run' FROM i`

// Fill writes rows faster than they could be created and carried out. Finished rows pass by the triggers, which would
// refuse a row that was never pending; for that the session plays a replica.
func (Writ) Fill(ctx context.Context, t Target, age Age, n int, args Args) error {
	text, err := json.Marshal(args)
	if err != nil {
		return err
	}
	ahead := map[Age]time.Duration{Stale: -2 * time.Minute, Future: 24 * time.Hour}[age]
	for done := 0; done < n; done += fillChunk {
		some := min(fillChunk, n-done)
		err := pgx.BeginFunc(ctx, t.Pool, func(tx pgx.Tx) error {
			if age != Finished {
				_, err := tx.Exec(ctx, fillPending, writKind(0).Name, string(text), some, ahead)
				return err
			}
			if _, err := tx.Exec(ctx, "SET LOCAL session_replication_role = replica"); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, fillFinished, writKind(0).Name, string(text), some, n-done-some, n)
			return err
		})
		if err != nil {
			return fmt.Errorf("fill with %d rows: %w", n, err)
		}
	}
	return nil
}

// Freshen makes all hints due just now. Where many are overdue for long, a reconciler takes the relay for late, and does not
// look for lost ones at all.
func (Writ) Freshen(ctx context.Context, t Target) error {
	for _, sql := range []string{"UPDATE writ.outbox SET due_at = clock_timestamp()", "VACUUM ANALYZE writ.outbox"} {
		if _, err := t.Pool.Exec(ctx, sql); err != nil {
			return fmt.Errorf("make the hints due now: %w", err)
		}
	}
	return nil
}

// Outbox reports how many rows wait to be published, counting no further than limit.
func (Writ) Outbox(ctx context.Context, t Target, limit int) (n int, err error) {
	err = t.Pool.QueryRow(ctx, "SELECT count(*) FROM (SELECT FROM writ.outbox LIMIT $1) o", limit).Scan(&n)
	return n, err
}
