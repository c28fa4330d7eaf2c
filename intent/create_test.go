package intent_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

// plainDriver is pgx's database/sql driver cut down to what every driver has: no arrays, no uuids, no named values.
type plainDriver struct{}

type plainConn struct{ driver.Conn }

type plainStmt struct{ driver.Stmt }

func (plainDriver) Open(name string) (driver.Conn, error) {
	conn, err := stdlib.GetDefaultDriver().Open(name)
	return plainConn{conn}, err
}

func (c plainConn) Prepare(query string) (driver.Stmt, error) {
	stmt, err := c.Conn.Prepare(query)
	return plainStmt{stmt}, err
}

// Query hands on values as database/sql's default converter made them.
func (s plainStmt) Query(args []driver.Value) (driver.Rows, error) {
	named := make([]driver.NamedValue, len(args))
	for i, arg := range args {
		named[i] = driver.NamedValue{Ordinal: i + 1, Value: arg}
	}
	return s.Stmt.(driver.StmtQueryContext).QueryContext(context.Background(), named)
}

func init() { sql.Register("plain", plainDriver{}) }

// transaction is one way to begin a transaction and end it.
type transaction struct {
	intent.Tx
	commit, rollback func() error
}

// ways are all the handles that an application may create with.
var ways = map[string]func(*testing.T, *testkit.DB) transaction{
	"pgx": func(t *testing.T, db *testkit.DB) transaction {
		t.Helper()
		tx, err := db.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return transaction{tx, func() error { return tx.Commit(ctx) }, func() error { return tx.Rollback(ctx) }}
	},
	"database/sql with pgx":            func(t *testing.T, db *testkit.DB) transaction { t.Helper(); return sqlTransaction(t, db, "pgx") },
	"database/sql with a plain driver": func(t *testing.T, db *testkit.DB) transaction { t.Helper(); return sqlTransaction(t, db, "plain") },
}

func sqlTransaction(t *testing.T, db *testkit.DB, driverName string) transaction {
	t.Helper()
	pool, err := sql.Open(driverName, db.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pool.Close() })
	tx, err := pool.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	return transaction{intent.SQL(tx), tx.Commit, tx.Rollback}
}

// full is a creation with every option.
func full() intent.Opts {
	return intent.Opts{
		ID: intent.NewID(), RunAt: time.Date(2040, 1, 2, 3, 4, 5, 678000, time.UTC), Subjects: []string{"comment:1", `a "b" \ {c},NULL`},
		TID: intent.NewID(), Parent: intent.NewID(), Trace: "00-1-2-01", Meta: map[string]any{"by": "ann"},
	}
}

func checkFull(t *testing.T, db *testkit.DB, o intent.Opts) {
	t.Helper()
	got, err := intent.Get(ctx, db, o.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got.Status != "scheduled" || !got.RunAt.Equal(o.RunAt) || got.TID != o.TID || got.ParentID == nil || *got.ParentID != o.Parent || string(got.Args) != `{"id": 1}` || string(got.Meta) != `{"by": "ann"}` {
		t.Errorf("intent = %+v; want what %+v says", got, o)
	}
	if diff := cmp.Diff(o.Subjects, got.Subjects); diff != "" {
		t.Errorf("subjects (-want +got):\n%s", diff)
	}
	if trace := testkit.Value[string](t, db, "SELECT trace FROM writ.intents WHERE id = $1", o.ID); trace != o.Trace {
		t.Errorf("trace = %q; want %q", trace, o.Trace)
	}
	if due := testkit.Value[time.Time](t, db, "SELECT due_at FROM writ.outbox WHERE intent_id = $1", o.ID); !due.Equal(o.RunAt) {
		t.Errorf("its hint is due at %v; want %v", due, o.RunAt)
	}
}

func TestCreate(t *testing.T) {
	t.Parallel()
	for name, begin := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := testkit.Database(t)
			tx := begin(t, db)
			if _, err := notify.Create(ctx, tx, comment{1}, intent.Opts{Key: "k"}); err != nil {
				t.Fatal(err)
			}
			if _, err := notify.CreateMany(ctx, tx, make([]intent.One[comment], 3)); err != nil {
				t.Fatal(err)
			}
			if err := tx.rollback(); err != nil {
				t.Fatal(err)
			}
			check(t, db, 0)

			tx = begin(t, db)
			plain, err := notify.Create(ctx, tx, comment{1}, intent.Opts{})
			if err != nil || plain.ID.Version() != 7 || plain.Existed {
				t.Fatalf("Create = %+v, %v", plain, err)
			}
			one, many, keyed := full(), full(), full()
			keyed.Key = "k"
			for _, o := range []intent.Opts{one, keyed} {
				if c, err := notify.Create(ctx, tx, comment{1}, o); err != nil || c.ID != o.ID {
					t.Fatalf("Create = %+v, %v", c, err)
				}
			}
			cs, err := notify.CreateMany(ctx, tx, []intent.One[comment]{{}, {Args: comment{1}, Opts: many}, {Opts: intent.Opts{Key: "m"}}})
			if err != nil || len(cs) != 3 || cs[1].ID != many.ID {
				t.Fatalf("CreateMany = %+v, %v", cs, err)
			}
			raw, err := intent.CreateRaw(ctx, tx, "shop.order.ship", json.RawMessage(`{"a": [1]}`), intent.Opts{})
			if err != nil {
				t.Fatal(err)
			}
			if err := tx.commit(); err != nil {
				t.Fatal(err)
			}
			check(t, db, 7)
			for _, o := range []intent.Opts{one, many, keyed} {
				checkFull(t, db, o)
			}
			got, err := intent.Get(ctx, db, plain.ID)
			if err != nil || got.Status != "ready" || got.TID != plain.ID || got.ParentID != nil || got.Subjects != nil {
				t.Errorf("intent = %+v, %v; want a ready root", got, err)
			}
			if got, err := intent.Get(ctx, db, raw.ID); err != nil || string(got.Args) != `{"a": [1]}` {
				t.Errorf("raw intent = %+v, %v", got, err)
			}
		})
	}
}

func TestCreate_again(t *testing.T) {
	t.Parallel()
	for name, begin := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := testkit.Database(t)
			tx := begin(t, db)
			defer func() { _ = tx.rollback() }()
			first, err := notify.Create(ctx, tx, comment{1}, intent.Opts{Key: "k"})
			if err != nil {
				t.Fatal(err)
			}
			again := map[string]intent.Opts{
				"with its key": {Key: "k"}, "with its id": {ID: first.ID}, "with both": {ID: first.ID, Key: "k"},
			}
			for name, o := range again {
				c, err := notify.Create(ctx, tx, comment{1}, o)
				if want := (intent.Created{ID: first.ID, Existed: true}); err != nil || c != want {
					t.Errorf("again %s: %+v, %v; want %+v", name, c, err, want)
				}
				_, err = notify.Create(ctx, tx, comment{2}, o)
				var conflict *intent.KeyConflictError
				if !errors.As(err, &conflict) || conflict.ID != first.ID || conflict.Key != o.Key || !errors.Is(err, intent.ErrConflict) {
					t.Errorf("other args %s: %v; want a KeyConflictError of %s", name, err, first.ID)
				}
			}
			other := intent.Kind[comment]{Name: "blog.comment.delete"}
			if c, err := other.Create(ctx, tx, comment{1}, intent.Opts{Key: "k"}); err != nil || c.Existed {
				t.Errorf("the key of another kind: %+v, %v; want its own intent", c, err)
			}
			if _, err := other.Create(ctx, tx, comment{1}, intent.Opts{ID: first.ID}); !errors.Is(err, intent.ErrConflict) {
				t.Errorf("the id with another kind: %v; want ErrConflict", err)
			}
			if err := tx.commit(); err != nil {
				t.Fatal(err)
			}
			check(t, db, 2)
		})
	}
}

func TestCreateMany_acrossChunks(t *testing.T) {
	t.Parallel()
	for name, begin := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := testkit.Database(t)
			const n, repeated = 2500, 20
			many := make([]intent.One[comment], n)
			for i := range many {
				many[i] = intent.One[comment]{Args: comment{i}}
				if i%2 == 0 {
					many[i].Opts.Key = string(rune('a'+i%26)) + time.Duration(i).String()
				}
			}
			for i := range repeated { // a key, or an id, that came before, in this chunk and in others
				from, to := i*2, i*100+51
				many[to] = many[from]
				if i%4 == 0 {
					many[from].Opts = intent.Opts{ID: intent.NewID()}
					many[to].Opts = many[from].Opts
				}
			}
			tx := begin(t, db)
			created, err := notify.CreateMany(ctx, tx, many)
			if err != nil {
				t.Fatal(err)
			}
			if err := tx.commit(); err != nil {
				t.Fatal(err)
			}
			existed := 0
			for i, c := range created {
				if c.Existed {
					existed++
				}
				if i < repeated && c.ID == uuid.Nil {
					t.Errorf("%d: no id", i)
				}
			}
			for i := range repeated {
				if a, b := created[i*2], created[i*100+51]; a.ID != b.ID || a.Existed || !b.Existed {
					t.Errorf("%d twice: %+v and %+v; want one creation", i, a, b)
				}
			}
			if len(created) != n || existed != repeated {
				t.Errorf("%d answers, %d existed; want %d and %d", len(created), existed, n, repeated)
			}
			check(t, db, n-repeated)
		})
	}
}

// The same id, or key, twice in one call with other args is a conflict, not a silent loss of one of them.
func TestCreateMany_whenTheyDisagree(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	id := intent.NewID()
	for name, o := range map[string]intent.Opts{"id": {ID: id}, "key": {Key: "k"}, "both": {ID: intent.NewID(), Key: "l"}} {
		err := pgx.BeginFunc(ctx, db.Pool, func(tx pgx.Tx) error {
			_, err := notify.CreateMany(ctx, tx, []intent.One[comment]{{Args: comment{1}, Opts: o}, {Args: comment{2}, Opts: o}})
			return err
		})
		var conflict *intent.KeyConflictError
		if !errors.As(err, &conflict) || !strings.Contains(err.Error(), "intent 1") {
			t.Errorf("the same %s: %v; want a conflict that names the second", name, err)
		}
	}
	check(t, db, 0)
}

func TestCreate_whenTwoCreateOneKey(t *testing.T) {
	t.Parallel()
	for _, ending := range []string{"commit", "rollback"} {
		t.Run(ending, func(t *testing.T) {
			t.Parallel()
			db := testkit.Database(t)
			tx, err := db.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			first, err := notify.Create(ctx, tx, comment{1}, intent.Opts{Key: "k"})
			if err != nil {
				t.Fatal(err)
			}
			type answer struct {
				intent.Created
				error
			}
			second := make(chan answer, 1)
			go func() {
				var a answer
				a.error = pgx.BeginFunc(ctx, db.Pool, func(tx pgx.Tx) (err error) {
					a.Created, err = notify.Create(ctx, tx, comment{1}, intent.Opts{Key: "k"})
					return err
				})
				second <- a
			}()
			testkit.Until(t, 30*time.Second, "the second creator waits for the first", func() (bool, string) {
				n := testkit.Value[int](t, db, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
				return n == 1, "no waiting session"
			})
			if ending == "commit" {
				err = tx.Commit(ctx)
			} else {
				err = tx.Rollback(ctx)
			}
			if err != nil {
				t.Fatal(err)
			}
			a := <-second
			if a.error != nil || a.Existed != (ending == "commit") || (a.ID == first.ID) != (ending == "commit") {
				t.Errorf("second = %+v, %v; the first was %s and has ended by %s", a.Created, a.error, first.ID, ending)
			}
			check(t, db, 1)
		})
	}
}

// Many creations in one transaction ring twice at most: rings that say different things are not taken for one.
func TestCreate_ringsOnce(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	sleeper, err := pgx.Connect(ctx, db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer sleeper.Close(ctx)
	for _, sql := range []string{"LISTEN writ_outbox", "LISTEN mark", "SELECT pg_advisory_lock(1465010516, 1)"} {
		if _, err := sleeper.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	rings := func() (said []string) {
		t.Helper()
		db.Run(t, "NOTIFY mark")
		wait, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		for {
			n, err := sleeper.WaitForNotification(wait)
			if err != nil {
				t.Fatal(err)
			}
			if n.Channel == "mark" {
				return said
			}
			said = append(said, n.Payload)
		}
	}
	var first intent.ID
	inTx(t, db, func(tx pgx.Tx) error {
		for i := range 100 {
			c, err := notify.Create(ctx, tx, comment{i}, intent.Opts{})
			if err != nil {
				return err
			}
			if i == 0 {
				first = c.ID
			}
		}
		return nil
	})
	if diff := cmp.Diff([]string{first.String() + " " + notify.Name, ""}, rings()); diff != "" {
		t.Errorf("rings (-want +got):\n%s", diff)
	}
	// It is the transaction that remembers, not the session.
	conn, err := db.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for range 3 {
		var id intent.ID
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			c, err := notify.Create(ctx, tx, comment{1}, intent.Opts{})
			id = c.ID
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{id.String() + " " + notify.Name}, rings()); diff != "" {
			t.Errorf("rings (-want +got):\n%s", diff)
		}
	}
}

func TestCreate_ringsOnlyWhenDue(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	sleeper, err := pgx.Connect(ctx, db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer sleeper.Close(ctx)
	for _, sql := range []string{"LISTEN writ_outbox", "LISTEN mark", "SELECT pg_advisory_lock(1465010516, 1)"} {
		if _, err := sleeper.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	rung := func() bool {
		t.Helper()
		db.Run(t, "NOTIFY mark")
		wait, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		for rung := false; ; rung = true {
			n, err := sleeper.WaitForNotification(wait)
			if err != nil {
				t.Fatal(err)
			}
			if n.Channel == "mark" {
				return rung
			}
		}
	}
	later := intent.Opts{RunAt: time.Now().Add(time.Hour)}
	many := func(o intent.Opts) {
		inTx(t, db, func(tx pgx.Tx) error {
			_, err := notify.CreateMany(ctx, tx, []intent.One[comment]{{Opts: later}, {Opts: o}})
			return err
		})
	}
	create(t, db, comment{1}, later)
	many(later)
	if rung() {
		t.Error("the bell rang for what is not due")
	}
	create(t, db, comment{1}, intent.Opts{})
	if !rung() {
		t.Error("Create did not ring")
	}
	many(intent.Opts{})
	if !rung() {
		t.Error("CreateMany did not ring")
	}
}
