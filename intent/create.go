package intent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/internal/jsonb"
	"github.com/writhq/writ/internal/store"
)

// ID of an intent: a UUIDv7, made by the creator and known before the commit.
type ID = uuid.UUID

// NewID returns a new id, for callers that want to know it before they create. It panics if the system has no
// randomness.
func NewID() ID { return uuid.Must(uuid.NewV7()) }

// Tx is the transaction in which an intent is created: the caller's own, with the rows that the intent belongs to.
// A pgx.Tx is one; [SQL] makes one of a *sql.Tx. A pool is none on purpose: enqueueing outside the transaction is the
// fault that Writ exists against. Writ never commits or rolls back.
type Tx interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Commit(ctx context.Context) error
	Rollback(ctx context.Context) error
}

// Opts of one creation. The zero value is fine.
type Opts struct {
	// ID chooses the id. Default: a new one. Creating again with the same id, after a commit whose answer was lost,
	// creates nothing twice.
	ID ID

	// Key is a creation key: a second creation of the kind under the same key returns the first one's id. With other
	// args it is a *KeyConflictError. At most 255 bytes; kept as long as the intent.
	Key string

	// RunAt is the earliest time of the first attempt. Default: now. By the database's clock.
	RunAt time.Time

	// Subjects relate the intent to rows of the application, like "customer:7". At most 20 of at most 200 bytes.
	Subjects []string

	// TID is the transaction id that all intents caused by one root share. Default: the context's (see [Cause]), or that of
	// Parent if another one is given, else the intent's own id.
	TID ID

	// Parent is the intent that caused this one. Default: the context's, else none.
	Parent ID

	// Trace is a W3C traceparent. Default: as for TID, else none.
	Trace string

	// Meta is any JSON object for people and searches. Default: none.
	Meta map[string]any
}

// Created says what a creation did.
type Created struct {
	ID      ID
	Existed bool // nothing was created: this id, or this creation key, was there before
}

// Create writes one intent in tx; it exists when the caller commits, and does not when the caller rolls back. One
// statement, no broker. Errors: *InvalidError (nothing was sent to the database), *KeyConflictError, or the
// database's; after the last the transaction is aborted, as after any failed statement.
func (k Kind[T]) Create(ctx context.Context, tx Tx, args T, opts Opts) (Created, error) {
	opts, err := caused(ctx, tx, k.Name, opts)
	if err != nil {
		return Created{}, err
	}
	r, err := k.request(args, opts)
	if err != nil {
		return Created{}, err
	}
	return k.create(ctx, tx, r)
}

func (k Kind[T]) create(ctx context.Context, tx Tx, r store.Request) (Created, error) {
	var created bool
	var err error
	if r.Key == nil {
		created, err = store.Create(ctx, tx, r)
	} else {
		var ids map[uuid.UUID]bool
		ids, err = store.CreateMany(ctx, tx, []store.Request{r})
		created = ids[r.ID]
	}
	if err != nil {
		return Created{}, fmt.Errorf("create %s: %w", k.Name, explain(err, nil))
	}
	if created {
		return Created{ID: r.ID}, nil
	}
	return existing(ctx, tx, r)
}

// One is one element of a bulk creation.
type One[T any] struct {
	Args T
	Opts Opts
}

// chunk is how many intents one bulk statement carries: enough to make the round trip cheap, and few enough that the
// arrays stay small.
const chunk = 1000

// CreateMany writes any number of intents in tx, a thousand a statement, and returns what became of each, in order.
// If one is invalid nothing is sent, and the error names its index. A creation key, or an id, that comes twice among them
// is created once.
func (k Kind[T]) CreateMany(ctx context.Context, tx Tx, many []One[T]) ([]Created, error) {
	settings, err := k.Settings()
	if err != nil {
		return nil, err
	}
	requests := make([]store.Request, len(many))
	var faults []error
	for i, one := range many {
		opts, err := caused(ctx, tx, k.Name, one.Opts)
		if err == nil {
			requests[i], err = request(settings, one.Args, opts)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("intent %d: %w", i, err))
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return createMany(ctx, tx, requests)
}

func createMany(ctx context.Context, tx Tx, requests []store.Request) ([]Created, error) {
	out := make([]Created, 0, len(requests))
	for start := 0; start < len(requests); start += chunk {
		part := requests[start:min(start+chunk, len(requests))]
		if !slices.ContainsFunc(part, func(r store.Request) bool { return !r.Plain() }) {
			if err := store.CreateManyFresh(ctx, tx, part); err != nil {
				return nil, fmt.Errorf("create %s: %w", requests[start].Kind, explain(err, nil))
			}
			for _, r := range part {
				out = append(out, Created{ID: r.ID})
			}
			continue
		}
		created, err := store.CreateMany(ctx, tx, part)
		if err != nil {
			return nil, fmt.Errorf("create %s: %w", requests[start].Kind, explain(err, nil))
		}
		for i, r := range part {
			c := Created{ID: r.ID}
			if !created[r.ID] {
				if c, err = existing(ctx, tx, r); err != nil {
					return nil, fmt.Errorf("intent %d: %w", start+i, err)
				}
			}
			delete(created, r.ID) // an id that comes twice was created once
			out = append(out, c)
		}
	}
	return out, nil
}

// CreateRaw creates an intent of a kind known only by name, with JSON arguments: for tools. The database checks what
// a Kind would have checked.
func CreateRaw(ctx context.Context, tx Tx, kind string, args json.RawMessage, opts Opts) (Created, error) {
	return Kind[json.RawMessage]{Name: kind}.Create(ctx, tx, args, opts)
}

func existing(ctx context.Context, tx Tx, r store.Request) (Created, error) {
	id, same, err := store.Existing(ctx, tx, r)
	switch {
	case err != nil:
		return Created{}, fmt.Errorf("look for the first creation: %w", explain(err, nil))
	case id == uuid.Nil:
		return Created{}, fmt.Errorf("writ: %s was neither created nor found; it was pruned in this moment, create it again", r.ID)
	case !same && r.Key != nil:
		return Created{}, &KeyConflictError{Kind: r.Kind, Key: *r.Key, ID: id}
	case !same:
		return Created{}, &KeyConflictError{Kind: r.Kind, ID: id}
	}
	return Created{ID: id, Existed: true}, nil
}

// request checks everything that can be checked before the database is asked.
func (k Kind[T]) request(args T, o Opts) (store.Request, error) {
	settings, err := k.Settings()
	if err != nil {
		return store.Request{}, err
	}
	return request(settings, args, o)
}

func request(settings Settings, args any, o Opts) (_ store.Request, err error) {
	r := store.Request{
		ID: o.ID, TID: o.TID, Kind: settings.Name, ArgsVersion: settings.ArgsVersion, Subjects: o.Subjects,
	}
	if r.ID == uuid.Nil {
		if r.ID, err = uuid.NewV7(); err != nil {
			return store.Request{}, fmt.Errorf("make an id: %w", err)
		}
		r.Fresh = true
	}
	if r.TID == uuid.Nil {
		r.TID = r.ID
	}
	if o.Parent != uuid.Nil {
		r.ParentID = &o.Parent
	}
	if o.Trace != "" {
		r.Trace = &o.Trace
	}
	if o.Key != "" {
		r.Key = &o.Key
	}
	if !o.RunAt.IsZero() {
		r.RunAt = &o.RunAt
	}
	var argsErr, metaErr error
	r.Args, argsErr = encode("args", args, settings.MaxArgs)
	if settings.Schema != nil && argsErr == nil {
		argsErr = checkSchema(settings, r.Args)
	}
	if o.Meta != nil {
		r.Meta, metaErr = encode("meta", o.Meta, settings.MaxArgs)
	}
	return r, errors.Join(argsErr, metaErr, checkTime(o.RunAt), checkText("key", o.Key, 255), checkText("trace", o.Trace, 255), checkSubjects(o.Subjects))
}

// checkSchema holds arguments to the kind's contract.
func checkSchema(s Settings, args json.RawMessage) error {
	if err := s.Schema.Check(args); err != nil {
		return &InvalidError{Field: "args", Problem: fmt.Sprintf("do not fit the schema of kind %s: %v", s.Name, err), Fix: "its handler would stop them"}
	}
	return nil
}

// encode makes JSON of a value and holds it to what jsonb can keep.
func encode(field string, value any, limit int) ([]byte, error) {
	out, problem, fix := jsonb.Encode(value, limit)
	if problem != "" {
		return nil, &InvalidError{Field: field, Problem: problem, Fix: fix}
	}
	return out, nil
}

func tooLarge(field string, n, limit int) error {
	problem, fix := jsonb.TooLarge(n, limit)
	return &InvalidError{Field: field, Problem: problem, Fix: fix}
}

// Times have four digits of year in any time zone, because JSON has no others; sql/create.sql has the same rule.
var (
	firstTime = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	lastTime  = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
)

func checkTime(t time.Time) error {
	if t.IsZero() {
		return nil
	}
	if t.Before(firstTime) || !t.Before(lastTime) {
		return &InvalidError{Field: "run_at", Problem: fmt.Sprintf("is in the year %d", t.Year()), Fix: "use a time between 2000 and 9999, or none for now"}
	}
	return nil
}

func checkText(field, s string, limit int) error {
	switch {
	case len(s) > limit:
		return &InvalidError{Field: field, Problem: fmt.Sprintf("has %d bytes, the limit is %d", len(s), limit)}
	case !utf8.ValidString(s):
		return &InvalidError{Field: field, Problem: "is not valid UTF-8"}
	case strings.Contains(s, "\x00"):
		return &InvalidError{Field: field, Problem: "holds a NUL character"}
	}
	return nil
}

func checkSubjects(subjects []string) error {
	var faults []error
	if len(subjects) > 20 {
		faults = append(faults, &InvalidError{Field: "subjects", Problem: fmt.Sprintf("are %d, the limit is 20", len(subjects))})
	}
	for i, s := range subjects {
		field := fmt.Sprintf("subjects[%d]", i)
		if s == "" {
			faults = append(faults, &InvalidError{Field: field, Problem: "is empty", Fix: "use a word that names the row, like customer:7"})
		}
		faults = append(faults, checkText(field, s, 200))
	}
	return errors.Join(faults...)
}
