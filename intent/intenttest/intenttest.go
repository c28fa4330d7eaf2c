// Package intenttest is a test kit for applications that use Writ: it looks for what was created in a transaction
// ([RequireCreated]), runs one handler with a job of the test's choice ([Do]), and carries out all that is due on a test
// database, in the test's own goroutine, without a broker and without waiting ([Kit]), with any outcome forced upon an
// attempt, the death of its worker included.
//
// It runs the code that workers and reconciler run. What it leaves out is everything beside: messages, heartbeats,
// concurrency.
package intenttest

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
)

// TB is what is needed of a *testing.T or *testing.B.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Cleanup(func())
	Context() context.Context
}

// Created is an intent as its creator asked for it.
type Created[T any] struct {
	ID       intent.ID
	Args     T
	Key      string // creation key; empty: none
	Subjects []string
	RunAt    time.Time
	TID      intent.ID
	Parent   intent.ID // zero: none
	Trace    string
	Meta     json.RawMessage
}

// AllCreated returns what was created of a kind, in the order of ids. db is a transaction, and then it is what was created
// in that transaction, committed or not; or a pool or connection, and then it is all that is there. intent.SQL makes a
// transaction of a *sql.Tx.
func AllCreated[T any](t TB, db intent.DB, kind intent.Kind[T]) []Created[T] {
	t.Helper()
	rows := find(t, db, kind.Name, nil)
	out := make([]Created[T], len(rows))
	for i, row := range rows {
		out[i] = Created[T]{
			ID: row.ID, Key: row.Key, Subjects: row.Subjects, RunAt: row.RunAt, TID: row.TID, Parent: row.Parent, Trace: row.Trace, Meta: row.Meta,
		}
		if err := json.Unmarshal(row.Args, &out[i].Args); err != nil {
			t.Fatalf("intenttest: the args of intent %s do not fit %T: %v", row.ID, out[i].Args, err)
		}
	}
	return out
}

// RequireCreated requires that exactly one intent of a kind was created with these arguments and, where the fields of want
// are not zero, with what they say: its ID, Key, RunAt, Subjects, TID, Parent, Trace and Meta. It returns its id. For db see
// [AllCreated].
func RequireCreated[T any](t TB, db intent.DB, kind intent.Kind[T], args T, want intent.Opts) intent.ID {
	t.Helper()
	encoded, err := json.Marshal(args)
	if err != nil {
		t.Fatalf("intenttest: args cannot be written as JSON: %v", err)
	}
	rows := find(t, db, kind.Name, encoded)
	var found []created
	for _, row := range rows {
		if row.Same && row.differs(want) == "" {
			found = append(found, row)
		}
	}
	switch len(found) {
	case 1:
		return found[0].ID
	case 0:
		t.Fatalf("intenttest: no intent of kind %s was created with args %s%s; created were:%s", kind.Name, encoded, wanted(want), list(rows, want))
	default:
		t.Fatalf("intenttest: %d intents of kind %s were created with args %s%s; want 1:%s", len(found), kind.Name, encoded, wanted(want), list(found, want))
	}
	return intent.ID{}
}

// RequireNone requires that nothing was created of a kind. For db see [AllCreated].
func RequireNone[T any](t TB, db intent.DB, kind intent.Kind[T]) {
	t.Helper()
	if rows := find(t, db, kind.Name, nil); len(rows) > 0 {
		t.Fatalf("intenttest: %d intents of kind %s were created; want none:%s", len(rows), kind.Name, list(rows, intent.Opts{}))
	}
}

// RequireStatus requires that an intent has a status: scheduled, ready, retrying, ambiguous, sent, error, cancelled, … . If it
// has not, the test ends with why.
func RequireStatus(t TB, db intent.DB, id intent.ID, status string) intent.Intent {
	t.Helper()
	i, err := intent.Get(t.Context(), db, id)
	if err != nil {
		t.Fatalf("intenttest: %v", err)
	}
	if i.Status != status {
		why, err := intent.Why(t.Context(), db, id)
		if err != nil {
			why = err.Error()
		}
		t.Fatalf("intenttest: intent %s of kind %s is not %s: %s", id, i.Kind, status, why)
	}
	return i
}

// created is a row of KitCreated.
type created struct {
	ID       intent.ID       `json:"id"`
	Args     json.RawMessage `json:"args"`
	Same     bool            `json:"same"`
	Key      string          `json:"key"`
	Subjects []string        `json:"subjects"`
	RunAt    time.Time       `json:"run_at"`
	TID      intent.ID       `json:"tid"`
	Parent   intent.ID       `json:"parent"`
	Trace    string          `json:"trace"`
	Meta     json.RawMessage `json:"meta"`
}

func find(t TB, db intent.DB, kind string, args []byte) []created {
	t.Helper()
	_, here := db.(intent.Tx)
	texts, err := store.KitCreated(t.Context(), db, kind, here, args)
	if err != nil {
		t.Fatalf("intenttest: look for what was created of kind %s: %v", kind, err)
	}
	out := make([]created, len(texts))
	for i, text := range texts {
		if err := json.Unmarshal([]byte(text), &out[i]); err != nil {
			t.Fatalf("intenttest: read an intent of kind %s: %v", kind, err)
		}
	}
	return out
}

// differs names the first thing that is not as wanted.
func (c created) differs(want intent.Opts) string {
	var meta map[string]any
	if want.Meta != nil {
		raw, err := json.Marshal(want.Meta)
		if err != nil || json.Unmarshal(raw, &meta) != nil {
			return "meta, which cannot be written as JSON"
		}
	}
	var has map[string]any
	if err := json.Unmarshal(c.Meta, &has); err != nil && len(c.Meta) > 0 {
		return "meta"
	}
	switch {
	case want.ID != intent.ID{} && want.ID != c.ID:
		return "ID"
	case want.Key != "" && want.Key != c.Key:
		return "key"
	case !want.RunAt.IsZero() && !want.RunAt.Truncate(time.Microsecond).Equal(c.RunAt):
		return "run_at"
	case want.Subjects != nil && !slices.Equal(want.Subjects, c.Subjects):
		return "subjects"
	case want.TID != intent.ID{} && want.TID != c.TID:
		return "tid"
	case want.Parent != intent.ID{} && want.Parent != c.Parent:
		return "parent"
	case want.Trace != "" && want.Trace != c.Trace:
		return "trace"
	case want.Meta != nil && !reflect.DeepEqual(meta, has):
		return "meta"
	}
	return ""
}

// wanted says in words what is asked for besides the arguments.
func wanted(want intent.Opts) string {
	var b strings.Builder
	say := func(is bool, what string, value any) {
		if is {
			fmt.Fprintf(&b, ", %s %v", what, value)
		}
	}
	say(want.ID != intent.ID{}, "id", want.ID)
	say(want.Key != "", "key", want.Key)
	say(!want.RunAt.IsZero(), "run_at", want.RunAt)
	say(want.Subjects != nil, "subjects", want.Subjects)
	say(want.TID != intent.ID{}, "tid", want.TID)
	say(want.Parent != intent.ID{}, "parent", want.Parent)
	say(want.Trace != "", "trace", want.Trace)
	say(want.Meta != nil, "meta", want.Meta)
	return b.String()
}

// list shows intents, and in what they differ.
func list(rows []created, want intent.Opts) string {
	if len(rows) == 0 {
		return " none"
	}
	var b strings.Builder
	for _, row := range rows {
		fmt.Fprintf(&b, "\n  %s: args %s, key %q, subjects %q, run_at %s", row.ID, row.Args, row.Key, row.Subjects, row.RunAt.Format(time.RFC3339Nano))
		if what := row.differs(want); what != "" {
			fmt.Fprintf(&b, " (another %s)", what)
		}
	}
	return b.String()
}
