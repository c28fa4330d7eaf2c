package proof

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

//go:embed history.sql
var historySQL string

// DB is what the database's side of the evidence is read from: a pool or a connection.
type DB interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Begin(ctx context.Context) (pgx.Tx, error)
}

// SwitchOn makes the database keep its history from here on. Do it before the first intent is created. Done again, it
// changes nothing.
func SwitchOn(ctx context.Context, db DB) error {
	tx, err := db.Begin(ctx)
	if err != nil {
		return fmt.Errorf("proof: switch on the history: %w", err)
	}
	defer func() { _ = tx.Rollback(ctx) }() // after the commit there is nothing to roll back
	if _, err := tx.Exec(ctx, historySQL); err != nil {
		return fmt.Errorf("proof: switch on the history: %w", err)
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("proof: switch on the history: %w", err)
	}
	return nil
}

// Gather reads the database's part of the evidence, all as of one moment; the rest is for the caller to fill in.
func Gather(ctx context.Context, db DB) (Evidence, error) {
	var e Evidence
	tx, err := db.Begin(ctx)
	if err != nil {
		return e, fmt.Errorf("proof: gather: %w", err)
	}
	defer func() { _ = tx.Rollback(ctx) }() // it only reads
	if _, err := tx.Exec(ctx, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"); err != nil {
		return e, fmt.Errorf("proof: gather: %w", err)
	}
	for _, read := range []func(context.Context, pgx.Tx, *Evidence) error{readChanges, readLog, readRows, readKinds} {
		if err := read(ctx, tx, &e); err != nil {
			return e, fmt.Errorf("proof: gather: %w", err)
		}
	}
	return e, nil
}

func readChanges(ctx context.Context, tx pgx.Tx, e *Evidence) (err error) {
	rows, err := tx.Query(ctx, `SELECT seq, at, began_at, xid::text::bigint, application, synchronous, op, id, kind, coalesce(old_state, ''),
		coalesce(new_state, ''), coalesce(event, ''), event_set, coalesce(old_epoch, 0), coalesce(new_epoch, 0), coalesce(old_attempt, 0),
		coalesce(new_attempt, 0), coalesce(generation, 0), coalesce(worker_id, $1), coalesce(old_run_at, 'epoch'), coalesce(new_run_at, 'epoch'),
		coalesce(started_at, 'epoch'), coalesce(deadline_at, 'epoch'), coalesce(old_flag, ''), coalesce(new_flag, ''), coalesce(waiting_on, 0)
		FROM proof.history ORDER BY seq`, uuid.Nil)
	if err != nil {
		return err
	}
	e.Changes, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Change])
	return err
}

func readLog(ctx context.Context, tx pgx.Tx, e *Evidence) (err error) {
	rows, err := tx.Query(ctx, `SELECT id, at, intent_id, epoch, event, actor, coalesce(worker_id, $1), coalesce(why, ''), coalesce(evidence::text, '')
		FROM writ.log ORDER BY id`, uuid.Nil)
	if err != nil {
		return err
	}
	e.Log, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Entry])
	return err
}

func readRows(ctx context.Context, tx pgx.Tx, e *Evidence) (err error) {
	if err := tx.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&e.At); err != nil {
		return err
	}
	rows, err := tx.Query(ctx, `SELECT i.id, i.kind, i.state, coalesce(i.event, ''), i.epoch, i.attempt, coalesce(i.worker_id, $1),
		EXISTS (SELECT FROM writ.workers w WHERE w.id = i.worker_id AND w.heartbeat_at + w.ttl > clock_timestamp()), i.run_at,
		CASE WHEN i.flagged_at IS NOT NULL THEN coalesce(i.flag_reason, '?') ELSE '' END, i.probe_at IS NOT NULL, i.waiting_on
		FROM writ.intents i ORDER BY i.id`, uuid.Nil)
	if err != nil {
		return err
	}
	e.Rows, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Row])
	return err
}

func readKinds(ctx context.Context, tx pgx.Tx, e *Evidence) (err error) {
	rows, err := tx.Query(ctx, "SELECT name, class, max_attempts, settle FROM writ.kinds ORDER BY name")
	if err != nil {
		return err
	}
	e.Kinds, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Kind])
	return err
}
