package intent

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/google/uuid"

	"github.com/writhq/writ/internal/jsonb"
	"github.com/writhq/writ/internal/store"
)

// Event declares an event: something that has happened in this application, told to whoever subscribes. T is the type of
// its data. An event notifies and asks nobody for anything: what is to be done about it each subscriber decides, by the
// tasks that it creates in its own database. The value is read only and may be copied and used concurrently.
type Event[T any] struct {
	// Name is model.verb in the past tense and in lower case, like user.authorized or org.payment.processed. Required.
	Name string
}

// EventOpts of one event. The zero value is fine.
type EventOpts struct {
	// ID chooses the id. Default: a new one. Publishing again with the same id, after a commit whose answer was lost, is the
	// same event to all subscribers.
	ID ID

	// Subject is the row that it is about, like "user:7"; the CloudEvents attribute. At most 255 bytes. Default: none.
	Subject string

	// TID, Parent and Trace are inherited from the context, as those of an intent; a root's TID is its own id.
	TID    ID
	Parent ID
	Trace  string
}

// maxData bounds the data of an event as Postgres writes it, which is what is published; sql/events.sql has the same rule.
const maxData = 64 << 10

func encodeData(data any) ([]byte, error) {
	body, err := encode("data", data, math.MaxInt)
	if err != nil {
		return nil, err
	}
	if n := jsonb.Size(body); n > maxData {
		return nil, tooLarge("data", n, maxData)
	}
	return body, nil
}

// Publish writes an event into the outbox in tx: it is published when the caller has committed, and never if the caller
// rolls back. One statement, no broker. It is delivered at least once to each subscription that existed by then, and to
// nobody if there is none. Errors: *InvalidError (nothing was sent to the database), or the database's; after the last the
// transaction is aborted.
func (e Event[T]) Publish(ctx context.Context, tx Tx, data T, opts EventOpts) (ID, error) {
	body, dataErr := encodeData(data)
	if err := errors.Join(CheckEvent(e.Name), dataErr, checkText("subject", opts.Subject, 255), checkText("trace", opts.Trace, 255)); err != nil {
		return ID{}, err
	}
	l, err := inherit(ctx, tx, lineage{opts.TID, opts.Parent, opts.Trace})
	if err != nil {
		return ID{}, fmt.Errorf("publish %s: %w", e.Name, err)
	}
	id, err := store.Publish(ctx, tx, store.Publication{
		Event: e.Name, Data: body, Subject: opts.Subject, ID: given(opts.ID), TID: given(l.tid), Parent: given(l.parent), Trace: l.trace,
	})
	if err != nil {
		return ID{}, fmt.Errorf("publish %s: %w", e.Name, explain(err, nil))
	}
	return id, nil
}

func given(id ID) *uuid.UUID {
	if id == uuid.Nil {
		return nil
	}
	return &id
}

// CheckEvent holds an event's name to its format; sql/events.sql has the same rule for SQL. The error is an *InvalidError.
func CheckEvent(name string) error {
	return checkParts("event", name, "use model.verb in the past tense and in lower case, like user.authorized, at most 100 bytes", func(parts int) string {
		if parts < 2 {
			return "names no model"
		}
		return ""
	})
}
