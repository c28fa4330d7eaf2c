package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	writsql "github.com/writhq/writ/sql"
)

// Outbox is the relay's side of the store, on one connection of its own that it does not close: the same session holds
// the row locks, the seat and the sleeping lock. Not safe for concurrent use.
type Outbox struct {
	conn   *pgx.Conn
	rows   []Row // where what is taken is read into, again and again
	asleep bool  // it has the sleeping lock
	rising bool  // and gives it back with the next look
}

// patience bounds each of the relay's statements: one that takes longer has nobody at its other end, and its connection
// is given up.
const patience = 10 * time.Second

// NewOutbox returns the relay's statements on conn.
func NewOutbox(conn *pgx.Conn) *Outbox { return &Outbox{conn: conn} }

// relayTransaction is an engine transaction that does not wait for the disk: what a crash of the server forgets of it is
// published again, which is harmless.
var relayTransaction = strings.Replace(writsql.Statement("EngineTransaction"), "'synchronous_commit', 'on'", "'synchronous_commit', 'off'", 1)

// Row is something still to be published: a hint (Op is set) or an event (Exchange is set).
type Row struct {
	Ref   pgtype.TID
	DueAt time.Time
	Hint

	Exchange, RoutingKey string
	Headers              []byte // JSON object, or nil
	Payload              []byte
}

// Take locks up to limit due rows, from the low-water mark up to a time, in a transaction that the caller ends with
// [Taken.Finish] or [Taken.Release]. Rows that another relay has are skipped. No transaction is left open when it
// returns no rows or an error. A sleeper that is to [Outbox.Rise] wakes up with it.
func (o *Outbox) Take(ctx context.Context, from, until time.Time, limit int) (*Taken, error) {
	taken := o.rows[:0]
	taking, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	b := &pgx.Batch{}
	b.BeginTx(readCommitted)
	waking := o.asleep && o.rising
	if waking { // awake before it looks, in the same round trip
		b.Queue(writsql.Statement("RelayWake"))
	}
	b.Queue(relayTransaction)
	b.Queue(writsql.Statement("RelayTake"), from, until, limit).Query(func(rows pgx.Rows) error {
		var r Row
		_, err := pgx.ForEachRow(rows, r.targets(), func() error {
			taken = append(taken, r)
			r = Row{}
			return nil
		})
		return err
	})
	results := o.conn.SendBatch(taking, b)
	tx := results.Tx()
	err := results.Close()
	if waking && err == nil {
		o.asleep = false
	}
	o.rows = taken
	if err == nil && len(taken) > 0 {
		return &Taken{Rows: taken, tx: tx}, nil
	}
	clear(taken)
	ending, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer stop()
	if rollbackErr := tx.Rollback(ending); err == nil {
		err = rollbackErr
	}
	if err != nil {
		return nil, fmt.Errorf("take from the outbox: %w", Explain(err))
	}
	return &Taken{}, nil
}

func (r *Row) targets() []any {
	return []any{&r.Ref, &r.DueAt, (*uuidTarget)(&r.ID), &r.Epoch, &wordTarget{into: &r.Kind}, &wordTarget{into: &r.Op}, &r.Exchange, &r.RoutingKey, &r.Headers, &r.Payload}
}

// Taken is a set of outbox rows that are locked until it is finished or released; then they are forgotten.
type Taken struct {
	Rows []Row
	tx   pgx.Tx
}

// Refusal is a group of rows that the broker would not take, and why.
type Refusal struct {
	Refs []pgtype.TID
	Why  string
}

// Finish deletes the published rows, delays the refused ones, and commits; all other rows stay as they were. After an
// error everything published will be published again, which is harmless.
func (t *Taken) Finish(ctx context.Context, published []pgtype.TID, refused []Refusal) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	defer clear(t.Rows)
	b := &pgx.Batch{}
	if len(published) > 0 {
		b.Queue(writsql.Statement("RelayDelete"), published)
	}
	refs := map[string][]pgtype.TID{} // by reason: a whole backlog may have one
	for _, r := range refused {
		refs[r.Why] = append(refs[r.Why], r.Refs...)
	}
	for why, refs := range refs {
		b.Queue(writsql.Statement("RelayDelay"), refs, clean(why))
	}
	b.Queue("COMMIT")
	if err := t.tx.Conn().SendBatch(ctx, b).Close(); err != nil {
		t.Release(ctx)
		return fmt.Errorf("finish publishing: %w", err)
	}
	return nil
}

// Release gives the rows back untouched. It blocks for a second at most.
func (t *Taken) Release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	defer clear(t.Rows)
	if t.tx != nil && t.tx.Rollback(ctx) != nil {
		t.tx.Conn().Close(ctx) // the server rolls back
	}
}

// Peek reports whether anything is due.
func (o *Outbox) Peek(ctx context.Context) (bool, error) { return o.ask(ctx, "RelayPeek") }

// Seat takes the seat at the door for the session's life; false: another relay has it.
func (o *Outbox) Seat(ctx context.Context) (bool, error) { return o.ask(ctx, "RelaySeat") }

// Revive makes the refused hints of kinds due at once.
func (o *Outbox) Revive(ctx context.Context, kinds []string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := o.conn.Exec(ctx, writsql.Statement("RelayRevive"), kinds)
	return err
}

func (o *Outbox) ask(ctx context.Context, statement string) (yes bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = o.conn.QueryRow(ctx, writsql.Statement(statement)).Scan(&yes)
	return yes, Explain(err)
}

// Route is where hints of a kind go.
type Route struct {
	Queue   string
	Typical time.Duration // run time; 0: not known
}

// Routes reads the declared kinds, and the declared subscriptions, one of each event.
func (o *Outbox) Routes(ctx context.Context) (kinds map[string]Route, subscriptions map[string]string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	rows, err := o.conn.Query(ctx, writsql.Statement("RelayRoutes"))
	if err != nil {
		return nil, nil, fmt.Errorf("read kinds and subscriptions: %w", Explain(err))
	}
	kinds, subscriptions = map[string]Route{}, map[string]string{}
	var name, queue, subscription string
	var ms float64
	_, err = pgx.ForEachRow(rows, []any{&name, &queue, &ms, &subscription}, func() error {
		if subscription != "" {
			subscriptions[name] = subscription
		} else {
			kinds[name] = Route{Queue: queue, Typical: time.Duration(ms * float64(time.Millisecond))}
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read kinds and subscriptions: %w", err)
	}
	return kinds, subscriptions, nil
}

// Sleep takes the sleeping lock; false: a creation is in flight, and nobody will ring for it.
func (o *Outbox) Sleep(ctx context.Context) (asleep bool, err error) {
	if o.asleep {
		return true, nil // taken twice it would have to be given back twice
	}
	o.asleep, err = o.ask(ctx, "RelaySleep")
	o.rising = false
	return o.asleep, err
}

// Asleep reports whether the relay has the sleeping lock.
func (o *Outbox) Asleep() bool { return o.asleep }

// Rise makes the next look give the sleeping lock back, if there is one.
func (o *Outbox) Rise() { o.rising = true }

// Wake gives the sleeping lock back, if there is one.
func (o *Outbox) Wake(ctx context.Context) error {
	if !o.asleep {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := o.conn.Exec(ctx, writsql.Statement("RelayWake"))
	o.asleep = err != nil
	return err
}

// NoteDepths writes how many messages wait in each queue; -1: no such queue.
func (o *Outbox) NoteDepths(ctx context.Context, depths map[string]int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	queues, ready := make([]string, 0, len(depths)), make([]int64, 0, len(depths))
	for q, n := range depths {
		queues, ready = append(queues, q), append(ready, int64(n))
	}
	_, err := o.conn.Exec(ctx, writsql.Statement("RelayDepths"), queues, ready)
	return err
}
