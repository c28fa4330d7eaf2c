package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	writsql "github.com/writhq/writ/sql"
)

// Lead takes or renews the lease name and reports whether holder has it now.
func (s *Store) Lead(ctx context.Context, name string, holder uuid.UUID, ttl time.Duration) (bool, error) {
	rows, err := s.db.Query(ctx, writsql.Statement("Lead"), name, holder, ttl)
	if err != nil {
		return false, fmt.Errorf("lease: %w", Explain(err))
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[bool])
	if err != nil {
		return false, fmt.Errorf("lease: %w", Explain(err))
	}
	return len(got) == 1, nil
}

// Resign gives the lease back.
func (s *Store) Resign(ctx context.Context, name string, holder uuid.UUID) error {
	_, err := s.db.Exec(ctx, writsql.Statement("Resign"), name, holder)
	return err
}

// DutiesDone returns how long ago each duty that keeps count was last done.
func (s *Store) DutiesDone(ctx context.Context) (map[string]time.Duration, error) {
	rows, err := s.db.Query(ctx, writsql.Statement("DutiesDone"))
	if err != nil {
		return nil, fmt.Errorf("read when duties were done: %w", Explain(err))
	}
	done := map[string]time.Duration{}
	var name string
	var ago time.Duration
	_, err = pgx.ForEachRow(rows, []any{&name, &ago}, func() error {
		done[name] = ago
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read when duties were done: %w", Explain(err))
	}
	return done, nil
}

// DutyDone notes that a turn of a duty which was begun so long ago was done to its end. The time is the database's: the
// next leader may have another clock.
func (s *Store) DutyDone(ctx context.Context, name string, ago time.Duration) error {
	if _, err := s.db.Exec(ctx, writsql.Statement("DutyDone"), name, ago); err != nil {
		return fmt.Errorf("note that %s was done: %w", name, Explain(err))
	}
	return nil
}

// Observation is a look at the database's clock.
type Observation struct {
	At      time.Time // the database's clock
	Started time.Time // when the server was started
	Open    bool      // adopted and not paused
}

// Observe makes one.
func (s *Store) Observe(ctx context.Context) (Observation, error) {
	var o Observation
	if err := s.db.QueryRow(ctx, writsql.Statement("Observe")).Scan(&o.At, &o.Started, &o.Open); err != nil {
		return o, fmt.Errorf("observe: %w", Explain(err))
	}
	return o, nil
}

// Place is a place in the order of open rows.
type Place struct {
	RunAt time.Time
	ID    uuid.UUID
}

// Window is a stretch of open rows in the order of run_at, looked at for stale ones.
type Window struct {
	More  bool    // the window was full: there may be more behind it
	Last  Place   // of its last row, if so
	Stale []Stale // rows that need a new hint

	// Suspended: nothing was looked at, because the relay is so far behind that lost cannot be told from late.
	Suspended bool
}

// Stale is an intent whose hint seems lost, and its place in the order.
type Stale struct {
	Hint
	Place Place
}

// StalePending looks at up to limit open rows after a place that have been due for longer than threshold.
func (s *Store) StalePending(ctx context.Context, after Place, threshold time.Duration, limit int) (Window, error) {
	var w Window
	err := s.transaction(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, writsql.Statement("StalePending"), after.RunAt, after.ID, threshold, limit)
		if err != nil {
			return err
		}
		var h Hint
		var at time.Time
		var id *uuid.UUID
		var stale, last bool
		_, err = pgx.ForEachRow(rows, []any{&at, &id, &h.Kind, &h.Epoch, &stale, &last}, func() error {
			if id == nil {
				w.Suspended = true
				return nil
			}
			h.ID = *id
			place := Place{RunAt: at, ID: h.ID}
			if stale {
				w.Stale = append(w.Stale, Stale{h, place})
			}
			if last {
				w.More, w.Last = true, place
			}
			return nil
		})
		return err
	})
	if err != nil {
		return w, fmt.Errorf("look for stale pending: %w", err)
	}
	return w, nil
}

// Requeued is a row that got a new hint.
type Requeued struct {
	Hint
	Requeues int32 // hints written again so far; 0 for a recovery
}

// Requeue writes new hints for rows that are still as read, and returns those.
func (s *Store) Requeue(ctx context.Context, hints []Stale) (done []Requeued, err error) {
	ids, epochs := make(UUIDs, len(hints)), make([]int32, len(hints))
	for i, h := range hints {
		ids[i], epochs[i] = h.ID, h.Epoch
	}
	err = s.transaction(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, writsql.Statement("Requeue"), ids, epochs)
		if err != nil {
			return err
		}
		done, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r Requeued, err error) {
			return r, row.Scan(&r.ID, &r.Kind, &r.Epoch, &r.Requeues)
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("requeue: %w", err)
	}
	return done, nil
}

// LongestTTL returns the longest TTL of the workers that seem to have died.
func (s *Store) LongestTTL(ctx context.Context) (longest time.Duration, err error) {
	err = s.db.QueryRow(ctx, writsql.Statement("LongestTTL")).Scan(&longest)
	return longest, err
}

// DeadWorkers lists workers whose heartbeat is too old and that were not looked at since.
func (s *Store) DeadWorkers(ctx context.Context) ([]uuid.UUID, error) {
	return s.ids(ctx, "DeadWorkers")
}

// Orphans lists sending rows of the given workers that have no living worker; nil: of any worker.
func (s *Store) Orphans(ctx context.Context, workers []uuid.UUID, limit int) ([]Hint, error) {
	var found []Hint
	err := s.transaction(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, writsql.Statement("Orphans"), workers, limit)
		if err != nil {
			return err
		}
		found, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (h Hint, err error) {
			err = row.Scan(&h.ID, &h.Epoch)
			return h, err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for orphans: %w", err)
	}
	return found, nil
}

// Orphaned is a stretch of open rows in the order of run_at, looked at for attempts that have no living worker.
type Orphaned struct {
	More  bool   // the window was full: there may be more behind it
	Last  Place  // of its last row, if so
	Found []Hint // such attempts
}

// OrphanWindow looks at up to limit open rows after a place, for sending rows of the given workers that have no living
// worker; nil: of any worker.
func (s *Store) OrphanWindow(ctx context.Context, workers UUIDs, after Place, limit int) (o Orphaned, err error) {
	err = s.transaction(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, writsql.Statement("OrphanWindow"), workers, limit, after.RunAt, after.ID)
		if err != nil {
			return err
		}
		var h Hint
		var at time.Time
		var orphan, last bool
		_, err = pgx.ForEachRow(rows, []any{&at, &h.ID, &h.Epoch, &orphan, &last}, func() error {
			if orphan {
				o.Found = append(o.Found, h)
			}
			if last {
				o.More, o.Last = true, Place{RunAt: at, ID: h.ID}
			}
			return nil
		})
		return err
	})
	if err != nil {
		return o, fmt.Errorf("look for orphans: %w", err)
	}
	return o, nil
}

// Observed is how the database was seen, by its own clock.
type Observed struct {
	Since time.Time     // running without a pause since
	Last  time.Time     // the last look
	Fresh time.Duration // how old that may be for anybody to be taken for dead on it
}

// Settled is an attempt of a dead worker, and what became of it.
type Settled struct {
	Class  string // of its kind; empty: nothing was done
	Kind   string
	Did    string // flagged, retried or failed
	Worker uuid.UUID
	Silent *time.Duration // since the worker's last heartbeat; nil: the worker has no row any more
}

// SettleOrphan flags an attempt whose worker died, or retries it if its kind is idempotent. Where the
// observation is not fresh any more nothing is done. silence is the shortest that
// any worker is taken for dead after. It returns nothing if the row had moved or its worker is back.
func (s *Store) SettleOrphan(ctx context.Context, h Hint, observed Observed, silence time.Duration) (done Settled, err error) {
	err = s.transaction(ctx, func(tx pgx.Tx) error {
		var worker *uuid.UUID
		var seconds *float64
		err := tx.QueryRow(ctx, writsql.Statement("SettleOrphan"), h.ID, h.Epoch, observed.Last, observed.Fresh, silence, observed.Since).
			Scan(&done.Class, &done.Kind, &done.Did, &worker, &seconds)
		if err == pgx.ErrNoRows {
			return nil
		}
		if worker != nil {
			done.Worker = *worker
		}
		if seconds != nil {
			done.Silent = new(time.Duration(*seconds * float64(time.Second)))
		}
		return err
	})
	if err != nil {
		return Settled{}, fmt.Errorf("settle orphan %s: %w", h.ID, err)
	}
	return done, nil
}

// Swept notes that all that these dead workers held was looked at.
func (s *Store) Swept(ctx context.Context, workers []uuid.UUID) error {
	_, err := s.db.Exec(ctx, writsql.Statement("Swept"), workers)
	return err
}

// ForgetWorkers removes rows of workers that are long dead.
func (s *Store) ForgetWorkers(ctx context.Context) error {
	_, err := s.db.Exec(ctx, writsql.Statement("ForgetWorkers"))
	return err
}

// RequeueOwed writes new hints for recoveries whose hint was lost, and returns them.
func (s *Store) RequeueOwed(ctx context.Context) ([]Requeued, error) {
	return s.hintAgain(ctx, "Owed", "look for recoveries")
}

// hintAgain runs a statement that writes hints, and returns what it wrote.
func (s *Store) hintAgain(ctx context.Context, statement, what string) (done []Requeued, err error) {
	err = s.transaction(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, writsql.Statement(statement))
		if err != nil {
			return err
		}
		done, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r Requeued, err error) {
			return r, row.Scan(&r.ID, &r.Kind, &r.Epoch)
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return done, nil
}

// Expiry is a kind and final state with the moment from which its rows are kept.
type Expiry struct {
	Kind, State string
	Before      time.Time
	From        time.Time // rows finished earlier are not looked at
}

// Expiries lists what may be pruned.
func (s *Store) Expiries(ctx context.Context) ([]Expiry, error) {
	rows, err := s.db.Query(ctx, writsql.Statement("PruneKinds"))
	if err != nil {
		return nil, fmt.Errorf("read retention: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (e Expiry, err error) {
		return e, row.Scan(&e.Kind, &e.State, &e.Before)
	})
}

// Pruned is a row that was deleted.
type Pruned struct {
	ID    uuid.UUID
	Epoch int32
	Age   time.Duration // since it was finished
}

// Prune deletes up to limit rows, their keys and their log, in one transaction, and returns them.
func (s *Store) Prune(ctx context.Context, e Expiry, limit int) (done []Pruned, err error) {
	err = s.transaction(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, writsql.Statement("Prune"), e.Kind, e.State, e.Before, limit, e.From)
		if err != nil {
			return err
		}
		var ids UUIDs
		done, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (p Pruned, err error) {
			var seconds float64
			err = row.Scan(&p.ID, &p.Epoch, &seconds)
			p.Age = time.Duration(seconds * float64(time.Second))
			ids = append(ids, p.ID)
			return p, err
		})
		if err != nil || len(ids) == 0 {
			return err
		}
		// A statement of its own: the log's guard looks whether the intent is gone.
		_, err = tx.Exec(ctx, writsql.Statement("PruneLog"), ids)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("prune %s %s: %w", e.State, e.Kind, err)
	}
	return done, nil
}

func (s *Store) ids(ctx context.Context, statement string) ([]uuid.UUID, error) {
	rows, err := s.db.Query(ctx, writsql.Statement(statement))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
}
