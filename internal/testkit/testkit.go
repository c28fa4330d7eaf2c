// Package testkit gives tests real servers: a database of its own per test, cloned from a migrated template, and the
// broker, where a test's names are kept apart by its installation id. It is for Writ's own tests only.
package testkit

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/migrations"
	writsql "github.com/writhq/writ/sql"
)

// DatabaseURL returns the server that tests may make databases on; the test fails, and says what to do, if there is none.
func DatabaseURL(t testing.TB) string { return need(t, "DATABASE_URL") }

// AMQPURL returns the broker for tests.
func AMQPURL(t testing.TB) string { return need(t, "AMQP_URL") }

func need(t testing.TB, name string) string {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		t.Fatalf("%s is not set: run the tests with «make test», or «go run ./cmd/writ dev exec -- go test ./...»", name)
	}
	return v
}

// DB is a test's own database.
type DB struct {
	*pgxpool.Pool
	URL  string
	Name string
}

// Database returns a database with Writ's schema, gone when the test ends.
func Database(t testing.TB) *DB {
	t.Helper()
	return DatabaseOn(t, DatabaseURL(t))
}

// DatabaseOn is Database on a server of the test's own choice.
func DatabaseOn(t testing.TB, server string) *DB {
	t.Helper()
	ctx := context.Background()
	template := prepare(t, server)
	name := "writ_test_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	admin(t, server, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s", name, template))
		return err
	})
	db := &DB{URL: At(t, server, name), Name: name}
	t.Cleanup(func() {
		if db.Pool != nil {
			db.Close()
		}
		admin(t, server, func(conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, fmt.Sprintf("DROP DATABASE IF EXISTS %s WITH (FORCE)", name))
			return err
		})
	})
	pool, err := pgxpool.New(ctx, db.URL)
	if err != nil {
		t.Fatal(err)
	}
	db.Pool = pool
	// A clone is a copy: nothing runs on it until it is adopted, and its queues must not be another test's.
	db.Run(t, "UPDATE writ.settings SET fingerprint = writ.fingerprint(), installation = gen_random_uuid()")
	return db
}

// EmptyDatabase returns the URL of a database without any schema, gone when the test ends.
func EmptyDatabase(t testing.TB) string {
	t.Helper()
	server := DatabaseURL(t)
	name := "writ_empty_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	run := func(sql string) {
		admin(t, server, func(conn *pgx.Conn) error { _, err := conn.Exec(context.Background(), sql); return err })
	}
	run("CREATE DATABASE " + name)
	t.Cleanup(func() { run("DROP DATABASE IF EXISTS " + name + " WITH (FORCE)") })
	return At(t, server, name)
}

// Run executes a statement or fails the test.
func (db *DB) Run(t testing.TB, sql string, args ...any) {
	t.Helper()
	if _, err := db.Exec(context.Background(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// Value reads one value or fails the test.
func Value[T any](t testing.TB, db *DB, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := db.QueryRow(context.Background(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// Until waits for the thing itself: it asks until ok, and fails the test with what was seen last when that takes longer
// than most.
func Until(t testing.TB, most time.Duration, what string, ok func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(most)
	for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
		done, seen := ok()
		if done {
			tick.Stop()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v; last seen: %s", what, most, seen)
		}
	}
}

// Log is a logger that writes to the test's own output.
func Log(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// At is a server's URL with another database.
func At(t testing.TB, server, database string) string {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("DATABASE_URL: %v", err)
	}
	u.Path = "/" + database
	return u.String()
}

var templates sync.Map // server → *sync.Once-guarded name

type template struct {
	once sync.Once
	name string
	err  error
}

// prepare makes the template once per server and schema, whichever test process comes first.
func prepare(t testing.TB, server string) string {
	t.Helper()
	v, _ := templates.LoadOrStore(server, &template{})
	tpl := v.(*template)
	tpl.once.Do(func() { tpl.name, tpl.err = makeTemplate(context.Background(), t, server) })
	if tpl.err != nil {
		t.Fatalf("test template: %v", tpl.err)
	}
	return tpl.name
}

func makeTemplate(ctx context.Context, t testing.TB, server string) (string, error) {
	name := "writ_template_" + fingerprint()
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	// The lock belongs to the session: other test processes wait until the template is whole.
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock(1465010516, 100)"); err != nil {
		return "", err
	}
	var there bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1 AND datistemplate)", name).Scan(&there); err != nil || there {
		return name, err
	}
	if _, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+name); err != nil {
		return "", err
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return "", err
	}
	config, err := pgx.ParseConfig(At(t, server, name))
	if err != nil {
		return "", err
	}
	if _, err := migrations.Up(ctx, config); err != nil {
		return "", err
	}
	_, err = conn.Exec(ctx, "ALTER DATABASE "+name+" IS_TEMPLATE true")
	return name, err
}

// fingerprint names a schema: other files, other template.
func fingerprint() string {
	var b strings.Builder
	for _, f := range writsql.Repeatable() {
		b.WriteString(f.Hash)
	}
	tables, _ := migrations.Files.ReadFile("00001_tables.sql")
	b.Write(tables)
	return strings.ReplaceAll(uuid.NewSHA1(uuid.Nil, []byte(b.String())).String(), "-", "")
}

func admin(t testing.TB, server string, do func(*pgx.Conn) error) {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), server)
	if err != nil {
		t.Fatalf("connect to the test server: %v", err)
	}
	defer conn.Close(context.Background())
	if err := do(conn); err != nil {
		t.Fatalf("test database: %v", err)
	}
}
