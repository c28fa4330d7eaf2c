package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	writsql "github.com/writhq/writ/sql"
)

// Publication is an event to be published; checked by package intent.
type Publication struct {
	Event   string
	Data    []byte // JSON
	Subject string
	ID      *uuid.UUID // nil: a new one
	TID     *uuid.UUID
	Parent  *uuid.UUID
	Trace   string
}

// Publish writes an event into the outbox, and rings, in one statement.
func Publish(ctx context.Context, q Querier, p Publication) (id uuid.UUID, err error) {
	rows, err := q.Query(ctx, writsql.Statement("Publish"), p.Event, string(p.Data), p.Subject, p.ID, p.TID, p.Parent, p.Trace)
	return scanned(rows, err, &id)
}

// CauseOf reads what a child of an intent inherits: its transaction id and its trace; zero if there is no such intent.
func CauseOf(ctx context.Context, q Querier, parent uuid.UUID) (tid uuid.UUID, trace string, err error) {
	rows, err := q.Query(ctx, writsql.Statement("CauseOf"), parent)
	tid, err = scanned(rows, err, &tid, &trace)
	return tid, trace, err
}

// scanned reads at most one row, whose first column is an id as text: a driver of database/sql may know no other.
func scanned(rows pgx.Rows, err error, id *uuid.UUID, rest ...any) (uuid.UUID, error) {
	if err != nil {
		return uuid.Nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(append([]any{&s}, rest...)...); err != nil {
			return uuid.Nil, err
		}
		if *id, err = uuid.Parse(s); err != nil {
			return uuid.Nil, fmt.Errorf("id from the database: %w", err)
		}
	}
	return *id, rows.Err()
}

// Tree reads up to limit intents of a transaction id, or of the intent's of that id, as JSON.
func Tree(ctx context.Context, q Querier, id uuid.UUID, limit int) ([][]byte, error) {
	tid, err := one[uuid.UUID](q.Query(ctx, writsql.Statement("TIDOf"), id))
	if err != nil {
		return nil, err
	}
	if tid == uuid.Nil {
		tid = id
	}
	rows, err := q.Query(ctx, writsql.Statement("Tree"), tid, limit)
	if err != nil {
		return nil, Explain(err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[[]byte])
}

// Own makes the database one application's. Errors with [CodeIllegal] and [CodeInvalid] are for good.
func (s *Store) Own(ctx context.Context, application string) error {
	_, err := s.pool.Exec(ctx, writsql.Statement("Own"), application)
	return Explain(err)
}

// Owner is the application that the database belongs to; empty: nobody said so.
func (s *Store) Owner(ctx context.Context) (string, error) {
	owner, err := one[string](s.pool.Query(ctx, writsql.Statement("Owner")))
	return owner, Explain(err)
}

// Subscription is what a worker's code says of one.
type Subscription struct{ Name, Event, Queue string }

// DeclareSubscriptions writes them down for people.
func (s *Store) DeclareSubscriptions(ctx context.Context, all []Subscription) error {
	for _, d := range all {
		if _, err := s.pool.Exec(ctx, writsql.Statement("DeclareSubscription"), d.Name, d.Event, d.Queue); err != nil {
			return fmt.Errorf("declare subscription %s: %w", d.Name, Explain(err))
		}
	}
	return nil
}

// Arrival is an event at a subscription.
type Arrival struct {
	Subscription, Source, EventID string

	Failures int32  // so often it failed before; 0: it comes from the broker
	Headers  []byte // JSON object, and
	Payload  []byte // body of the message, to be kept if it fails
}

// ErrClosed means that nothing is settled here for now: the installation is paused, or a copy that nobody adopted.
var ErrClosed = errors.New("the installation is paused, or not adopted")

// Settle takes arrivals and has create write what is to be created for those that are new, by their index, in one
// transaction. Those that were taken before, here or elsewhere, are left out: after any error it may be called again.
func (s *Store) Settle(ctx context.Context, arrivals []Arrival, create func(context.Context, pgx.Tx, []int) error) error {
	return s.inbox(ctx, func(tx pgx.Tx) error {
		var fresh []int
		var names, sources, ids []string
		for i, a := range arrivals {
			if a.Failures == 0 {
				names, sources, ids = append(names, a.Subscription), append(sources, a.Source), append(ids, a.EventID)
				continue
			}
			tag, err := tx.Exec(ctx, writsql.Statement("InboxRetake"), a.Subscription, a.Source, a.EventID, a.Failures)
			if err != nil {
				return err
			}
			if tag.RowsAffected() == 1 {
				fresh = append(fresh, i)
			}
		}
		rows, err := tx.Query(ctx, writsql.Statement("InboxTake"), names, sources, ids)
		if err != nil {
			return err
		}
		var got Arrival
		_, err = pgx.ForEachRow(rows, []any{&got.Subscription, &got.Source, &got.EventID}, func() error {
			fresh = append(fresh, slices.IndexFunc(arrivals, func(a Arrival) bool { // the first, where one came twice together
				return a.Failures == 0 && a.Subscription == got.Subscription && a.Source == got.Source && a.EventID == got.EventID
			}))
			return nil
		})
		if err != nil || len(fresh) == 0 {
			return err
		}
		slices.Sort(fresh)
		return create(ctx, tx, fresh)
	})
}

// Fail keeps an arrival whose settling failed, to be tried again after a time; nil: dead, until a person decides.
func (s *Store) Fail(ctx context.Context, a Arrival, cause string, again *time.Duration) error {
	return s.inbox(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, writsql.Statement("InboxFail"), a.Subscription, a.Source, a.EventID, a.Failures, clean(cause), string(a.Headers), a.Payload, again)
		return err
	})
}

// inbox runs do in an engine transaction, if anything may be settled here.
func (s *Store) inbox(ctx context.Context, do func(pgx.Tx) error) error {
	err := s.transaction(ctx, func(tx pgx.Tx) error {
		var open bool
		if err := tx.QueryRow(ctx, writsql.Statement("InboxOpen")).Scan(&open); err != nil {
			return err
		}
		if !open {
			return ErrClosed
		}
		return do(tx)
	})
	if err != nil {
		return fmt.Errorf("inbox: %w", Explain(err))
	}
	return nil
}

// DueArrivals takes those that are to be tried again, at most so many of each subscription, and puts them off meanwhile.
func (s *Store) DueArrivals(ctx context.Context, subscriptions []string, most []int32, meanwhile time.Duration) (due []Arrival, err error) {
	err = s.transaction(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, writsql.Statement("InboxDue"), subscriptions, most, meanwhile)
		if err != nil {
			return err
		}
		due, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (a Arrival, err error) {
			return a, row.Scan(&a.Subscription, &a.Source, &a.EventID, &a.Failures, &a.Headers, &a.Payload)
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("inbox: %w", Explain(err))
	}
	return due, nil
}

// GiveBackArrivals has those due now that [Store.DueArrivals] put off, but for what became of them meanwhile.
func (s *Store) GiveBackArrivals(ctx context.Context, arrivals []Arrival) error {
	n := len(arrivals)
	names, sources, ids, failures := make([]string, n), make([]string, n), make([]string, n), make([]int32, n)
	for i, a := range arrivals {
		names[i], sources[i], ids[i], failures[i] = a.Subscription, a.Source, a.EventID, a.Failures
	}
	_, err := s.pool.Exec(ctx, writsql.Statement("InboxGiveBack"), names, sources, ids, failures)
	return Explain(err)
}

// PruneInbox forgets up to limit events that were settled longer than keep ago, and returns how many.
func (s *Store) PruneInbox(ctx context.Context, keep time.Duration, limit int) (n int, err error) {
	err = s.transaction(ctx, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, writsql.Statement("InboxPrune"), keep, limit)
		n = int(tag.RowsAffected())
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("prune the inbox: %w", Explain(err))
	}
	return n, nil
}

// Waiting is the number of events of a subscription that are retrying or dead, and the age of the oldest.
type Waiting struct {
	Subscription, Status string
	N                    int64
	Oldest               time.Duration
}

// InboxCounts returns the events that are not settled.
func (s *Store) InboxCounts(ctx context.Context) ([]Waiting, error) {
	rows, err := s.pool.Query(ctx, writsql.Statement("InboxCounts"))
	if err != nil {
		return nil, Explain(err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (w Waiting, err error) {
		var seconds float64
		err = row.Scan(&w.Subscription, &w.Status, &w.N, &seconds)
		w.Oldest = time.Duration(seconds * float64(time.Second))
		return w, err
	})
}
