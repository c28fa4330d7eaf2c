package intent_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

// TestCheckEvent: Go and SQL know the same names.
func TestCheckEvent(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	for name, good := range map[string]bool{
		"user.authorized": true, "org.payment.processed": true, "a-1_b.c": true, "a.b.c.d.e": true, strings.Repeat("a", 98) + ".b": true,
		"": false, "user": false, "User.authorized": false, "user.": false, ".authorized": false, "user..authorized": false, "user.1st": false,
		"user.authörized": false, "user authorized.x": false, strings.Repeat("a", 99) + ".b": false, "user.authorized\n": false,
	} {
		err := intent.CheckEvent(name)
		if (err == nil) != good || err != nil && !errors.Is(err, intent.ErrInvalid) {
			t.Errorf("Go: %q: %v; want good %v", name, err, good)
		}
		if got := testkit.Value[bool](t, db, "SELECT writ.is_event_name($1)", name); got != good {
			t.Errorf("SQL: %q is %v; want %v", name, got, good)
		}
	}
}

// TestPublish_size: Go and SQL measure data alike, so that what one lets through the other does.
func TestPublish_size(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	e := intent.Event[json.RawMessage]{Name: "user.authorized"}
	for _, part := range []string{
		`"<>&"`, `"\u003c\u003e"`, `{"a":1,"b":[1,2,3]}`, `"\b\f\n\r\t\"\\\/"`, `"\u0008\u000c\u000a\u000d\u0009\u000b\u001f\u007f"`, `"ä\u00e4€\u20ac😀\ud83d\ude00"`,
		"0", "-0", "-0.00", "0.0e-3", "0e5", "1e5", "1.50e1", "-1.5e5", "1e-5", "0.001e2", "0.001e3", "123.456E+2", "12345.678e-10", "1E400", "-1e-300",
		"true", "null", "[]", "{}", " [ 1 , 2 ] ", `""`,
	} {
		var size int
		if size = testkit.Value[int](t, db, "SELECT octet_length(jsonb_build_array($1::jsonb, '')::text)", part); size == 0 {
			t.Fatal(part)
		}
		for over, good := range map[int]bool{0: true, 1: false} {
			data := "[" + part + `,"` + strings.Repeat("x", 64<<10-size+over) + `"]`
			err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
				_, err := e.Publish(t.Context(), tx, json.RawMessage(data), intent.EventOpts{})
				return err
			})
			var invalid *intent.InvalidError
			if (err == nil) != good || err != nil && (!errors.As(err, &invalid) || invalid.Field != "data") {
				t.Errorf("Go: %s and %d bytes beyond the limit: %v", part, over, err)
			}
			if _, err := db.Exec(t.Context(), "SELECT writ.publish('user.authorized', $1::jsonb)", data); (err == nil) != good {
				t.Errorf("SQL: %s and %d bytes beyond the limit: %v", part, over, err)
			}
		}
	}
}

func TestPublish_refuses(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	ctx := context.Background()
	tx, err := db.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(ctx)
	e := intent.Event[any]{Name: "user.authorized"}
	for words, try := range map[string]func() error{
		"no model": func() error {
			_, err := intent.Event[int]{Name: "user"}.Publish(ctx, tx, 1, intent.EventOpts{})
			return err
		},
		"limit is": func() error {
			_, err := e.Publish(ctx, tx, strings.Repeat("x", 64<<10), intent.EventOpts{})
			return err
		},
		"subject: has": func() error {
			_, err := e.Publish(ctx, tx, 1, intent.EventOpts{Subject: strings.Repeat("s", 256)})
			return err
		},
		"trace: holds": func() error { _, err := e.Publish(ctx, tx, 1, intent.EventOpts{Trace: "a\x00"}); return err },
		"data: cannot": func() error { _, err := e.Publish(ctx, tx, make(chan int), intent.EventOpts{}); return err },
	} {
		if err := try(); !errors.Is(err, intent.ErrInvalid) || !strings.Contains(err.Error(), words) {
			t.Errorf("said %v; want %q in it", err, words)
		}
	}
	id := intent.NewID()
	for range 2 { // the same id is the same event; whether it went out already, nobody need know
		if got, err := e.Publish(ctx, tx, 1, intent.EventOpts{ID: id}); err != nil || got != id {
			t.Errorf("published as %s, %v", got, err)
		}
	}
	for _, sql := range []string{"SELECT writ.publish('user')", "SELECT writ.publish(NULL)", "SELECT writ.publish('a.b', to_jsonb(repeat('x', 70000)))"} {
		if _, err := db.Exec(ctx, sql); err == nil || !strings.Contains(err.Error(), "WR005") {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

// TestInherit: what is created inherits from the context, from the parent that is named, from the transaction by SQL; what
// is given counts.
func TestInherit(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	ctx := context.Background()
	kind := intent.Kind[json.RawMessage]{Name: "test.user.greet"}
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	none := json.RawMessage("{}")
	type origin struct {
		TID, Parent intent.ID
		Trace       string
	}
	of := func(id intent.ID) (o origin) {
		err := db.QueryRow(ctx, `SELECT tid, coalesce(parent_id, '00000000-0000-0000-0000-000000000000'), coalesce(trace, '') FROM writ.intents WHERE id = $1`, id).
			Scan(&o.TID, &o.Parent, &o.Trace)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	create := func(ctx context.Context, opts intent.Opts) (id intent.ID) {
		err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			c, err := kind.Create(ctx, tx, none, opts)
			id = c.ID
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	bySQL := func(before, columns, values string) (id intent.ID) {
		err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, before); err != nil {
				return err
			}
			return tx.QueryRow(ctx, "INSERT INTO writ.intents (kind"+columns+") VALUES ('test.user.greet'"+values+") RETURNING id").Scan(&id)
		})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	root := create(intent.WithCause(ctx, intent.Cause{Trace: trace}), intent.Opts{})
	cause := intent.WithCause(ctx, intent.Cause{TID: root, Parent: root, Trace: trace})
	other, stranger := intent.NewID(), intent.NewID()
	child := create(ctx, intent.Opts{Parent: root})
	batch := func() intent.ID {
		var made []intent.Created
		err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) (err error) {
			made, err = intent.CreateAll(cause, tx, []intent.New{kind.New(none, intent.Opts{})})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return made[0].ID
	}
	alone, err := kind.CreateAlone(cause, db, none, intent.Opts{})
	if err != nil {
		t.Fatal(err)
	}
	for what, pair := range map[string][2]origin{
		"a root":                       {of(root), {root, intent.ID{}, trace}},
		"by the context":               {of(create(cause, intent.Opts{})), {root, root, trace}},
		"in a batch":                   {of(batch()), {root, root, trace}},
		"alone":                        {of(alone.ID), {root, root, trace}},
		"by its parent":                {of(child), {root, root, trace}},
		"by another parent":            {of(create(cause, intent.Opts{Parent: child})), {root, child, trace}},
		"by a parent from elsewhere":   {of(create(cause, intent.Opts{Parent: stranger})), {root, stranger, ""}},
		"given":                        {of(create(cause, intent.Opts{TID: other, Trace: "mine"})), {other, root, "mine"}},
		"a malformed trace is dropped": {of(create(intent.WithCause(ctx, intent.Cause{TID: other, Trace: "garbage"}), intent.Opts{})), {other, intent.ID{}, ""}},
		"SQL, by its parent":           {of(bySQL("SELECT 1", ", parent_id", ", '"+child.String()+"'")), {root, child, trace}},
		"SQL, by the transaction":      {of(bySQL("SELECT writ.inherit('"+child.String()+"')", "", "")), {root, child, trace}},
		"SQL, given":                   {of(bySQL("SELECT writ.inherit('"+child.String()+"')", ", tid", ", '"+other.String()+"'")), {other, intent.ID{}, ""}},
		"SQL, from elsewhere":          {of(bySQL("SELECT writ.inherit('"+stranger.String()+"')", "", "")), {stranger, stranger, ""}},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %v; want %v", what, pair[0], pair[1])
		}
	}
	id := bySQL("SELECT 1", "", "")
	if got := of(id); got != (origin{TID: id}) {
		t.Errorf("SQL, after a transaction that inherited: %v; want a root", got)
	}
	// An event by SQL inherits as well.
	err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "SELECT writ.inherit($1), writ.publish('user.greeted')", child)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := testkit.Value[string](t, db, "SELECT concat_ws(' ', headers ->> 'cloudEvents_tid', headers ->> 'cloudEvents_parentid', headers ->> 'traceparent') FROM writ.outbox WHERE op IS NULL"); got != root.String()+" "+child.String()+" "+trace {
		t.Errorf("the event inherits %s", got)
	}
}

func TestCreateAll_refuses(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	err := pgx.BeginFunc(context.Background(), db, func(tx pgx.Tx) error {
		ours := intent.WithCause(context.Background(), intent.Cause{Application: "blog"})
		_, err := intent.CreateAll(ours, tx, []intent.New{
			intent.Kind[int]{Name: "blog.comment.notify"}.New(1, intent.Opts{}),
			intent.Kind[int]{Name: "shop.order.charge"}.New(1, intent.Opts{}),
			{},
			intent.Kind[chan int]{Name: "blog.comment.notify"}.New(nil, intent.Opts{}),
		})
		return err
	})
	for _, words := range []string{"intent 1: ", "task of application shop, and this is blog", "intent 2: ", "Kind.New", "intent 3: "} {
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("said %v; want %q in it", err, words)
		}
	}
	if n := testkit.Value[int](t, db, "SELECT count(*) FROM writ.intents"); n != 0 {
		t.Errorf("%d were created", n)
	}
}
