package sql_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

func TestInsert_byHand(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var id, tid uuid.UUID
	var requested time.Time
	err := b.QueryRow(ctx, `INSERT INTO writ.intents (kind, args) VALUES ('blog.comment.notify', '{"n": 1}') RETURNING id, tid, requested_at`).
		Scan(&id, &tid, &requested)
	if err != nil {
		t.Fatal(err)
	}
	if id.Version() != 7 || id.Variant() != uuid.RFC4122 {
		t.Errorf("id %s is not a UUIDv7", id)
	}
	sec, nsec := id.Time().UnixTime()
	if d := time.Unix(sec, nsec).Sub(requested).Abs(); d > time.Minute {
		t.Errorf("the time in id %s is %v off", id, d)
	}
	if tid != id {
		t.Errorf("tid = %s; want the intent's own id", tid)
	}
	got := hints(t, b.Pool, id)
	if len(got) != 1 || got[0].Kind != "blog.comment.notify" || got[0].Epoch != 0 || got[0].Op != "run" || got[0].DueAt.Before(requested) {
		t.Errorf("outbox = %+v; want one run of epoch 0", got)
	}
}

func TestInsert_brings(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.insert(t, "blog.comment.notify")
	tests := map[string]struct {
		sql  string
		want int64 // outbox rows
	}{
		"one that does nothing when it hits a conflict": {"INSERT INTO writ.intents (id, kind) VALUES ('" + id.String() + "', 'blog.comment.notify') ON CONFLICT DO NOTHING", 1},
		"one row each":                {"INSERT INTO writ.intents (kind) SELECT 'blog.comment.notify' FROM generate_series(1, 5)", 5},
		"nothing while it waits":      {"INSERT INTO writ.intents (kind, waiting_on) VALUES ('blog.comment.notify', 1)", 0},
		"one of its own by the event": {"INSERT INTO writ.intents (id, tid, kind, event) SELECT u, u, 'blog.comment.notify', 'requested' FROM writ.uuid_v7() u", 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b.rollback(t, func(tx pgx.Tx) {
				var before, after int64
				count := func(n *int64) {
					if err := tx.QueryRow(ctx, "SELECT count(*) FROM writ.outbox").Scan(n); err != nil {
						t.Fatal(err)
					}
				}
				count(&before)
				if _, err := tx.Exec(ctx, tt.sql); err != nil {
					t.Fatal(err)
				}
				if count(&after); after-before != tt.want {
					t.Errorf("%d outbox rows; want %d", after-before, tt.want)
				}
			})
		})
	}
}

func TestInsert_whenScheduled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := testkit.Value[uuid.UUID](t, b.DB, "INSERT INTO writ.intents (kind, run_at) VALUES ('blog.comment.notify', now() + interval '1 h') RETURNING id")
	if got, at := hints(t, b.Pool, id), read(t, b.Pool, id).RunAt; len(got) != 1 || !got[0].DueAt.Equal(at) {
		t.Errorf("outbox = %+v; want one due at %v", got, at)
	}
}

func TestInsert_refused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Run(t, "INSERT INTO writ.kinds (name, queue, class, max_args) VALUES ('small.args.only', 'q', 'manual', 20)")
	into := func(columns, values string) string {
		return "INSERT INTO writ.intents (" + columns + ") VALUES (" + values + ")"
	}
	kind := "'blog.comment.notify'"
	tests := map[string]struct{ code, sql string }{
		"sending":             {store.CodeIllegal, into("kind, state", kind+", 'sending'")},
		"sent":                {store.CodeIllegal, into("kind, state, finished_at", kind+", 'sent', now()")},
		"claimed":             {store.CodeIllegal, into("kind, epoch", kind+", 1")},
		"sent as the engine":  {store.CodeIllegal, into("kind, state, event, finished_at", kind+", 'sent', 'requested', now()")},
		"made-up event":       {store.CodeIllegal, into("kind, event", kind+", 'made-up'")},
		"engine's event":      {store.CodeIllegal, into("kind, event", kind+", 'attempted'")},
		"no kind":             {"23502", into("args", "'{}'")},
		"malformed kind":      {store.CodeInvalid, into("kind", "'Blog.Comment'")},
		"kind with a newline": {store.CodeInvalid, into("kind", "E'blog.comment.notify\\n'")},
		"args over 64 KiB":    {store.CodeInvalid, into("kind, args", kind+", to_jsonb(repeat('x', 65536))")},
		"args over its limit": {store.CodeInvalid, into("kind, args", "'small.args.only', to_jsonb(repeat('x', 20))")},
		"never to run":        {noMoment, into("kind, run_at", kind+", 'infinity'")},
		"run before time":     {noMoment, into("kind, run_at", kind+", '-infinity'")},
		"requested never":     {noMoment, into("kind, requested_at", kind+", 'infinity'")},
		"year of five digits": {noMoment, into("kind, run_at", kind+", '12000-01-01'")},
		"year before Christ":  {noMoment, into("kind, run_at", kind+", '0044-03-15 BC'")},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refused(t, b.Pool, tt.code, tt.sql)
		})
	}
}

// noMoment is the code of a violated domain; its constraint's name says what a moment is.
const noMoment = "23514"

// listen returns a function that reports whether the bell has rung by a mark that is set after all else.
func listen(t *testing.T, db *testkit.DB) func() bool {
	t.Helper()
	conn, err := pgx.Connect(ctx, db.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(ctx) })
	for _, sql := range []string{"LISTEN " + store.Bell, "LISTEN mark"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	return func() (rung bool) {
		t.Helper()
		db.Run(t, "NOTIFY mark")
		wait, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		for {
			n, err := conn.WaitForNotification(wait)
			if err != nil {
				t.Fatal(err)
			}
			if n.Channel == "mark" {
				return rung
			}
			rung = true
		}
	}
}

func TestInsert_ringsWhenSomeoneSleeps(t *testing.T) {
	t.Parallel()
	b := setup(t)
	rung := listen(t, b.DB)
	b.insert(t, "blog.comment.notify")
	if rung() {
		t.Error("the bell rang though nobody sleeps")
	}
	sleeper, err := pgx.Connect(ctx, b.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer sleeper.Close(ctx)
	if slept, err := store.NewOutbox(sleeper).Sleep(ctx); err != nil || !slept {
		t.Fatalf("Sleep = %v, %v", slept, err)
	}
	id := b.insert(t, "blog.comment.notify")
	if !rung() {
		t.Error("the bell did not ring for a relay that sleeps")
	}
	b.Run(t, "UPDATE writ.intents SET run_at = now() - interval '1 s' WHERE id = $1", id)
	if !rung() {
		t.Error("the bell did not ring for a moved run_at")
	}
	b.rollback(t, func(tx pgx.Tx) {
		if _, err := tx.Exec(ctx, "INSERT INTO writ.intents (kind) VALUES ('blog.comment.notify')"); err != nil {
			t.Fatal(err)
		}
	})
	if rung() {
		t.Error("the bell rang for what was rolled back")
	}
}

func TestMove(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.insert(t, "blog.comment.notify")
	b.Run(t, "UPDATE writ.intents SET requeues = 3 WHERE id = $1", id)
	b.Run(t, "UPDATE writ.intents SET run_at = now() + interval '2 h' WHERE id = $1", id)
	after := read(t, b.Pool, id)
	if got := hints(t, b.Pool, id); len(got) != 1 || !got[0].DueAt.Equal(after.RunAt) || after.Requeues != 0 {
		t.Errorf("outbox = %+v, requeues %d; want one due at %v, and 0", got, after.Requeues, after.RunAt)
	}
	for _, when := range []string{"infinity", "12000-01-01"} {
		refused(t, b.Pool, noMoment, "UPDATE writ.intents SET run_at = $2 WHERE id = $1", id, when)
	}

	waiting := testkit.Value[uuid.UUID](t, b.DB, "INSERT INTO writ.intents (kind, waiting_on) VALUES ('blog.comment.notify', 2) RETURNING id")
	for i, want := range []int{0, 1} {
		b.Run(t, "UPDATE writ.intents SET waiting_on = waiting_on - 1 WHERE id = $1", waiting)
		if got := hints(t, b.Pool, waiting); len(got) != want {
			t.Errorf("%d obstacles left: outbox = %+v; want %d rows", 1-i, got, want)
		}
	}
}

// kindNames are names around the edge of the format.
var kindNames = []string{
	"blog.comment.notify", "a.b.c", "a1.b-2.c_3", "a--.b__.c", strings.Repeat("a", 96) + ".b.c", strings.Repeat("a", 97) + ".b.c",
	"", ".", "..", "a.b", "a.b.c.d", "a.b.", ".b.c", "a..c", "A.b.c", "a.B.c", "1a.b.c", "a.-b.c", "a.b._c", "a.b.c\n", "\na.b.c", "a.b.c ",
	"a b.c.d", "ä.b.c", "a.ß.c", "a.b.c\u2028", "ſ.b.c", "a.b.ı", "a.b.K", "a.b.c\\", "a.b.c'", "a.b.%", "a.b.🙂", "a\u0301.b.c", "a.b.c\r",
	strings.Repeat("é", 60) + ".b.c",
}

// agree compares the rule of package intent with the database's.
func agree(t *testing.T, db *testkit.DB, name string) {
	t.Helper()
	_, err := intent.Kind[struct{}]{Name: name}.Settings()
	if inSQL := testkit.Value[bool](t, db, "SELECT writ.is_kind_name($1)", name); inSQL != (err == nil) {
		t.Errorf("kind %q: Go says %v, SQL says %v", name, err, inSQL)
	}
}

func FuzzKindName(f *testing.F) {
	db := testkit.Database(f)
	for _, name := range kindNames {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if strings.Contains(name, "\x00") || strings.ToValidUTF8(name, "") != name {
			if _, err := (intent.Kind[struct{}]{Name: name}).Settings(); err == nil {
				t.Errorf("Go takes kind %q, which is no text for Postgres", name)
			}
			return
		}
		agree(t, db, name)
	})
}
