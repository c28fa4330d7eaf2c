package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

func TestTree(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	root := s.failed()
	grow := func(parent intent.ID) (id intent.ID) {
		err := pgx.BeginFunc(context.Background(), s.db, func(tx pgx.Tx) error {
			made, err := intent.CreateRaw(context.Background(), tx, kindName, json.RawMessage(`{}`), intent.Opts{Parent: parent})
			id = made.ID
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	child := grow(root)
	grow(child)
	last := grow(root)
	s.db.Run(t, "INSERT INTO writ.intents (kind, tid, parent_id) VALUES ($1, $2, '01a1ffb1-0bf6-7cbf-ae11-bb3d1d07c871')", kindName, root)
	s.writ("tree", root.String()).golden(t, "tree_table")
	for _, id := range []intent.ID{child, last} {
		r := s.writ("tree", id.String(), "-o", "json").want(t, exitOK)
		var found []intent.Intent
		if err := json.Unmarshal([]byte(r.stdout), &found); err != nil || len(found) != 5 || found[0].ID != root {
			t.Errorf("tree of %s has %d, %v; want 5, the root first", id, len(found), err)
		}
	}
	s.writ("tree", intent.NewID().String()).want(t, exitNotFound, "there is no intent")
	s.writ("tree", "seven").want(t, exitUsage)
	// Parents that are each other's: nobody is left out, and it ends.
	s.db.Run(t, "UPDATE writ.intents SET parent_id = $1 WHERE id = $2", last, root)
	if r := s.writ("tree", root.String()).want(t, exitOK); strings.Count(r.stdout, kindName) != 5 {
		t.Errorf("a circle of parents:\n%s", r.stdout)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.writ("events", "list").golden(t, "events_none")
	s.db.Run(t, `INSERT INTO writ.inbox (subscription, source, event_id, received_at, dead_at, due_at, failures, last_error, headers, payload) VALUES
		('shop/user.authorized/greet', 'api', 'e1', now() - interval '3 h', now(), NULL, 10, E'no such \x1b[31m user', '{"id": "e1"}', '{"n": 1}'),
		('shop/user.authorized/greet', 'api', 'e2', now() - interval '2 h', NULL, now() + interval '1 h', 2, 'not yet', '{"id": "e2"}', '\xff')`)
	s.writ("events", "list").golden(t, "events_list")
	s.writ("events", "list", "--status", "dead", "-o", "jsonl").golden(t, "events_jsonl")
	s.writ("events", "list", "--limit", "1").want(t, exitOK, "there are more")
	s.writ("events", "list", "--status", "lost").want(t, exitUsage, "retrying or dead")
	if r := s.writ("doctor"); !strings.Contains(r.stdout, "1 dead") {
		t.Errorf("the doctor does not tell of a dead event:\n%s", r.stdout)
	}
	s.writ("events", "retry", "shop/user.authorized/greet", "api", "e1", "--why", because, "--actor", "ann@desk").golden(t, "events_retry")
	s.writ("events", "drop", "shop/user.authorized/greet", "api", "e2", "--why", because, "--actor", "ann@desk", "-o", "json").golden(t, "events_drop")
	s.writ("events", "drop", "shop/user.authorized/greet", "api", "e2", "--why", because).want(t, exitNotAllowed, "was settled")
	s.writ("events", "drop", "shop/user.authorized/greet", "api", "e9", "--why", because).want(t, exitNotFound, "no event e9")
	s.writ("events", "drop", "shop/user.authorized/greet", "api", "e1", "--why", "no").want(t, exitUsage)
	s.writ("events", "burn").want(t, exitUsage)
	if n := testkit.Value[int](t, s.db, "SELECT count(*) FROM writ.log WHERE event LIKE 'event-%' AND actor = 'ann@desk' AND evidence ->> 'event_id' IN ('e1', 'e2')"); n != 2 {
		t.Errorf("%d decisions are in the log; want 2", n)
	}
}

// TestEvents_many: events are chosen by what they are and why they failed, and decided in one command.
func TestEvents_many(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.db.Run(t, `INSERT INTO writ.inbox (subscription, source, event_id, dead_at, due_at, failures, last_error, headers, payload)
		SELECT 'shop/user.authorized/greet', 'api', 'e' || n, CASE WHEN n <= 150 THEN now() END, CASE WHEN n > 150 THEN now() + interval '1 h' END, 10,
			CASE WHEN n % 2 = 0 THEN 'no such user ' || n ELSE 'not yet' END, '{}', '{}' FROM generate_series(1, 160) n`)
	s.db.Run(t, `INSERT INTO writ.inbox (subscription, source, event_id, dead_at, failures, last_error, headers, payload)
		VALUES ('shop/order.paid/count', 'api', 'o1', now(), 10, 'no such user 7', '{}', '{}')`)
	dead := func() int {
		return testkit.Value[int](t, s.db, "SELECT count(*) FROM writ.unsettled WHERE status = 'dead'")
	}
	s.writ("events", "retry", "--why", because).want(t, exitUsage, "--all if you mean all")
	s.writ("events", "retry", "--status", "lost", "--why", because).want(t, exitUsage, "retrying or dead")
	s.writ("events", "retry", "a", "b", "c", "--status", "dead", "--why", because).want(t, exitUsage, "not both")
	s.writ("events", "retry", "--status", "dead").want(t, exitUsage, "--why is missing")
	s.writ("events", "retry", "--status", "dead", "--why", because).want(t, exitUsage, "decides 151 events; if you mean it, add --yes")
	if r := s.writ("events", "retry", "--error", "no such user 9", "--status", "dead", "--why", because, "--dry-run").want(t, exitOK, "nothing was changed"); !strings.Contains(r.stdout, "76 of 76") {
		t.Errorf("the dry run says %s", r.stdout)
	}
	if n := dead(); n != 151 {
		t.Fatalf("%d are dead before anything was decided", n)
	}
	if r := s.writ("events", "retry", "--error", "no such user 9", "--type", "user.authorized", "--status", "dead", "--why", because, "-o", "json").want(t, exitOK); !strings.Contains(r.stdout, `"done": 75`) {
		t.Errorf("it says %s", r.stdout)
	}
	if n := dead(); n != 76 {
		t.Errorf("%d are dead; want those of another error, and of another event", n)
	}
	s.writ("events", "drop", "--subscription", "shop/order.paid/count", "--why", because).want(t, exitOK)
	s.writ("events", "drop", "--subscription", "shop/order.paid/count", "--why", because).want(t, exitOK) // nothing is left to do
	s.writ("events", "retry", "--all", "--yes", "--why", because).want(t, exitOK)
	if n := dead(); n != 0 {
		t.Errorf("%d are dead in the end", n)
	}
	if r := s.writ("events", "list", "--type", "order.paid"); !strings.Contains(r.stderr, "no events wait") {
		t.Errorf("of a type with none: %s", r.stdout)
	}
	if n := testkit.Value[int](t, s.db, "SELECT count(*) FROM writ.log WHERE event LIKE 'event-%' AND why = $1", because); n != 75+1+160 {
		t.Errorf("%d decisions are in the log", n)
	}
}
