package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	writsql "github.com/writhq/writ/sql"
)

// Querier is the smallest handle: a pgx transaction, connection or pool.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// New intent as its creator asks for it; checked by package intent.
type Request struct {
	ID          uuid.UUID
	TID         uuid.UUID
	ParentID    *uuid.UUID
	Kind        string
	Args        []byte // JSON
	ArgsVersion int
	Subjects    []string
	RunAt       *time.Time // nil: now
	Trace       *string
	Meta        []byte  // JSON or nil
	Key         *string // creation key
	Fresh       bool    // the id was made for this request, and it was not sent before
}

// Plain reports whether nothing can stand in the way of this request.
func (r Request) Plain() bool { return r.Fresh && r.Key == nil }

// Create inserts one intent without a creation key, its outbox row and the doorbell in one statement. It reports false
// if the id exists already.
func Create(ctx context.Context, q Querier, r Request) (bool, error) {
	statement := writsql.Statement("Create")
	if r.Fresh {
		statement = writsql.Statement("CreateFresh")
	}
	created, err := ids(q.Query(ctx, statement, uuidParam(r.ID), uuidParam(r.TID), r.ParentID, r.Kind, string(r.Args), r.ArgsVersion,
		r.Subjects, r.RunAt, r.Trace, text(r.Meta)))
	return len(created) == 1, err
}

// CreateMany inserts any number of intents, in one statement, and returns the ids of those that were created; the rest
// exist already, by id or by creation key.
func CreateMany(ctx context.Context, q Querier, rs []Request) (map[uuid.UUID]bool, error) {
	key := make([]*string, len(rs))
	for i, r := range rs {
		key[i] = r.Key
	}
	created, err := ids(q.Query(ctx, writsql.Statement("CreateMany"), append(columns(rs), key)...))
	out := make(map[uuid.UUID]bool, len(created))
	for _, s := range created {
		out[s] = true
	}
	return out, err
}

// CreateManyFresh inserts any number of intents that are [Request.Plain], in one statement.
func CreateManyFresh(ctx context.Context, q Querier, rs []Request) error {
	rows, err := q.Query(ctx, writsql.Statement("CreateManyFresh"), columns(rs)...)
	if err != nil {
		return err
	}
	rows.Close()
	return rows.Err()
}

// columns are the parameters that both have.
func columns(rs []Request) []any {
	n := len(rs)
	id, tid, parent := make(UUIDs, n), make(UUIDs, n), make(NullableUUIDs, n)
	kind, args, version := make([]string, n), make([]string, n), make([]int32, n)
	subjects, runAt, trace, meta := make([]*string, n), make([]*time.Time, n), make([]*string, n), make([]*string, n)
	for i, r := range rs {
		id[i], tid[i], parent[i], kind[i], args[i], version[i] = r.ID, r.TID, r.ParentID, r.Kind, string(r.Args), int32(r.ArgsVersion)
		runAt[i], trace[i], meta[i] = r.RunAt, r.Trace, text(r.Meta)
		if r.Subjects != nil {
			literal := ArrayLiteral(r.Subjects)
			subjects[i] = &literal
		}
	}
	return []any{id, tid, parent, kind, args, version, subjects, runAt, trace, meta}
}

// Existing finds the intent that stands in the way of a request: the one with its creation key, or its id. same tells
// whether kind and arguments are the same. The zero id: none.
func Existing(ctx context.Context, q Querier, r Request) (id uuid.UUID, same bool, err error) {
	if r.Key != nil {
		id, same, err = existing(q.Query(ctx, writsql.Statement("FindByKey"), *r.Key, r.Kind, string(r.Args)))
		if err != nil || id != uuid.Nil {
			return id, same, err
		}
	}
	return existing(q.Query(ctx, writsql.Statement("FindByID"), r.ID, r.Kind, string(r.Args)))
}

func existing(rows pgx.Rows, err error) (id uuid.UUID, same bool, _ error) {
	if err != nil {
		return id, false, err
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s, &same); err != nil {
			return id, false, err
		}
		if id, err = uuid.Parse(s); err != nil {
			return id, false, fmt.Errorf("id from the database: %w", err)
		}
	}
	return id, same, rows.Err()
}

func ids(rows pgx.Rows, err error) ([]uuid.UUID, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []uuid.UUID
	for rows.Next() {
		var s, bell string
		if err := rows.Scan(&s, &bell); err != nil {
			return nil, err
		}
		id, err := uuid.Parse(s)
		if err != nil {
			return nil, fmt.Errorf("id from the database: %w", err)
		}
		out = append(out, id)
	}
	return out, rows.Err()
}

// text is JSON as a parameter that every driver sends as text; nil is null.
func text(json []byte) *string {
	if json == nil {
		return nil
	}
	s := string(json)
	return &s
}
