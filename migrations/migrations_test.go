package migrations_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/migrations"
	writsql "github.com/writhq/writ/sql"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var ctx = context.Background()

func setup(t *testing.T) *pgx.ConnConfig {
	t.Helper()
	config, err := pgx.ParseConfig(testkit.EmptyDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func connect(t *testing.T, config *pgx.ConnConfig) *pgx.Conn {
	t.Helper()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(ctx) })
	return conn
}

func run(t *testing.T, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(ctx, sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func up(t *testing.T, config *pgx.ConnConfig) migrations.Report {
	t.Helper()
	report, err := migrations.Up(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func status(t *testing.T, config *pgx.ConnConfig) migrations.Status {
	t.Helper()
	s, err := migrations.Read(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// repeatable lists the names of all repeatable files.
func repeatable() (names []string) {
	for _, f := range writsql.Repeatable() {
		names = append(names, f.Name)
	}
	return names
}

// whole is what a first run reports.
func whole() migrations.Report {
	return migrations.Report{Applied: []string{"00001_tables.sql"}, Repeatable: repeatable()}
}

func TestUp(t *testing.T) {
	t.Parallel()
	config := setup(t)
	if s := status(t, config); s.UpToDate() || s.Current != 0 || s.Target != migrations.Version || len(s.Stale) != len(repeatable()) {
		t.Errorf("before: %+v; want nothing applied", s)
	}
	if diff := cmp.Diff(whole(), up(t, config)); diff != "" {
		t.Errorf("first run (-want +got):\n%s", diff)
	}
	if s := status(t, config); !s.UpToDate() || s.Current != migrations.Version {
		t.Errorf("after: %+v; want up to date", s)
	}
	if again := up(t, config); len(again.Applied)+len(again.Repeatable) != 0 {
		t.Errorf("second run = %+v; want nothing to do", again)
	}
	conn := connect(t, config)
	run(t, conn, "INSERT INTO writ.intents (kind) VALUES ('blog.comment.notify')")
	var open bool
	if err := conn.QueryRow(ctx, "SELECT writ.is_open()").Scan(&open); err != nil || !open {
		t.Errorf("is_open = %v, %v; a new installation runs", open, err)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	names, err := migrations.Files.ReadDir(".")
	if err != nil || len(names) != migrations.Version {
		t.Errorf("%d files, %v; Version is %d", len(names), err, migrations.Version)
	}
}

// many runs Up everywhere at once and returns what each did.
func many(t *testing.T, configs []*pgx.ConnConfig) []migrations.Report {
	t.Helper()
	type answer struct {
		migrations.Report
		error
	}
	answers := make(chan answer, len(configs))
	for _, config := range configs {
		go func() {
			r, err := migrations.Up(ctx, config)
			answers <- answer{r, err}
		}()
	}
	var out []migrations.Report
	for range configs {
		a := <-answers
		if a.error != nil {
			t.Error(a.error)
		}
		out = append(out, a.Report)
	}
	return out
}

func TestUp_byManyAtOnce(t *testing.T) {
	t.Parallel()
	config := setup(t)
	worked := 0
	for _, r := range many(t, slices.Repeat([]*pgx.ConnConfig{config}, 8)) {
		if len(r.Applied) > 0 {
			worked++
			if diff := cmp.Diff(whole(), r); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
		} else if len(r.Repeatable) > 0 {
			t.Errorf("report = %+v; want all of it or nothing", r)
		}
	}
	if worked != 1 || !status(t, config).UpToDate() {
		t.Errorf("%d of 8 migrated; want 1", worked)
	}
}

// The roles belong to the cluster: databases that are migrated at the same moment must not trip over each other.
func TestUp_ofManyDatabases(t *testing.T) {
	t.Parallel()
	configs := make([]*pgx.ConnConfig, 4)
	for i := range configs {
		configs[i] = setup(t)
	}
	for _, r := range many(t, configs) {
		if diff := cmp.Diff(whole(), r); diff != "" {
			t.Errorf("report (-want +got):\n%s", diff)
		}
	}
}

func TestUp_whenAFileChanged(t *testing.T) {
	t.Parallel()
	config := setup(t)
	up(t, config)
	conn := connect(t, config)
	run(t, conn, "INSERT INTO writ.intents (kind) VALUES ('blog.comment.notify')")
	run(t, conn, "UPDATE writ.repeatable SET hash = 'old' WHERE name = 'guard'")
	run(t, conn, "CREATE OR REPLACE FUNCTION writ.ways_out(state text, flagged boolean) RETURNS text LANGUAGE sql AS $$ SELECT 'old' $$")
	if s := status(t, config); s.UpToDate() || !slices.Equal(s.Stale, []string{"guard"}) {
		t.Errorf("status = %+v; want guard to be stale", s)
	}
	want := migrations.Report{Repeatable: []string{"guard"}}
	if diff := cmp.Diff(want, up(t, config)); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	var ways string
	if err := conn.QueryRow(ctx, "SELECT writ.ways_out('pending', false)").Scan(&ways); err != nil || ways == "old" {
		t.Errorf("ways_out = %q, %v; want the file's own", ways, err)
	}
	if !status(t, config).UpToDate() {
		t.Error("not up to date")
	}
}

func TestUp_whenTheDatabaseIsNewer(t *testing.T) {
	t.Parallel()
	config := setup(t)
	up(t, config)
	conn := connect(t, config)
	run(t, conn, "INSERT INTO writ.schema_version (version_id, is_applied) VALUES ($1, true)", migrations.Version+1)
	run(t, conn, "UPDATE writ.repeatable SET hash = 'of the newer one'")
	// While a deployment rolls, binaries of the release before start on it, too.
	report, err := migrations.Up(ctx, config)
	if err != nil || len(report.Applied)+len(report.Repeatable) > 0 || len(report.Notices) != 1 {
		t.Errorf("Up: %+v, %v; want a notice and nothing applied", report, err)
	}
	if s, err := migrations.Read(ctx, config); err != nil || !s.UpToDate() || s.Current != migrations.Version+1 {
		t.Errorf("Read: %+v, %v; want nothing to do", s, err)
	}
	// Until a migration takes away what they need.
	run(t, conn, "UPDATE writ.settings SET least_schema = $1", migrations.Version+1)
	if _, err := migrations.Up(ctx, config); !errors.Is(err, migrations.ErrNewer) {
		t.Errorf("Up: %v; want ErrNewer", err)
	}
	if _, err := migrations.Read(ctx, config); !errors.Is(err, migrations.ErrNewer) {
		t.Errorf("Read: %v; want ErrNewer", err)
	}
	var touched int
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM writ.repeatable WHERE hash <> 'of the newer one'").Scan(&touched); err != nil || touched > 0 {
		t.Errorf("%d files of the newer one were put back, %v", touched, err)
	}
}

func TestDown(t *testing.T) {
	t.Parallel()
	config := setup(t)
	for round := range 2 {
		up(t, config)
		conn := connect(t, config)
		run(t, conn, "INSERT INTO writ.intents (kind) VALUES ('blog.comment.notify')")
		rolled, err := migrations.Down(ctx, config)
		if err != nil || !slices.Equal(rolled, []string{"00001_tables.sql"}) {
			t.Fatalf("round %d: Down = %v, %v", round, rolled, err)
		}
		var there bool
		if err := conn.QueryRow(ctx, "SELECT to_regnamespace('writ') IS NOT NULL").Scan(&there); err != nil || there {
			t.Errorf("round %d: schema writ is there: %v, %v", round, there, err)
		}
		if s := status(t, config); s.Current != 0 {
			t.Errorf("round %d: status = %+v", round, s)
		}
	}
}

func TestDown_whenThereIsNothing(t *testing.T) {
	t.Parallel()
	config := setup(t)
	if rolled, err := migrations.Down(ctx, config); err != nil || len(rolled) != 0 {
		t.Errorf("Down = %v, %v; want nothing to do", rolled, err)
	}
}

// An application that holds a lock makes Up give up after its lock timeouts; the database is as it was.
func TestUp_whenATableIsBusy(t *testing.T) {
	t.Parallel()
	config := setup(t)
	up(t, config)
	conn := connect(t, config)
	run(t, conn, "UPDATE writ.repeatable SET hash = 'old' WHERE name = 'guard'")
	busy := connect(t, config)
	tx, err := busy.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "INSERT INTO writ.intents (kind) VALUES ('blog.comment.notify')"); err != nil {
		t.Fatal(err)
	}
	impatient := config.Copy()
	impatient.RuntimeParams["lock_timeout"] = "100ms"
	limit, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	_, err = migrations.Up(limit, impatient)
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || pgErr.Code != "55P03" {
		t.Errorf("Up: %v; want the lock timeout", err)
	}
	if s := status(t, config); !slices.Equal(s.Stale, []string{"guard"}) {
		t.Errorf("status = %+v; want guard still stale", s)
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(migrations.Report{Repeatable: []string{"guard"}}, up(t, impatient)); diff != "" {
		t.Errorf("afterwards (-want +got):\n%s", diff)
	}
}

func TestUp_endsWithItsContext(t *testing.T) {
	t.Parallel()
	config := setup(t)
	holder := connect(t, config)
	run(t, holder, "SELECT pg_advisory_lock(1465010516, 2)")
	limit, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := migrations.Up(limit, config); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Up = %v; want the end of its context", err)
	}
}

// No superuser is needed.
func TestUp_asAnOrdinaryUser(t *testing.T) {
	t.Parallel()
	up(t, setup(t)) // the roles are there
	for name, attributes := range map[string]string{
		"may create roles": "CREATEROLE", "is a member of the owner": "NOCREATEROLE", "is neither, and keeps all to itself": "NOCREATEROLE",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := setup(t)
			admin := connect(t, config)
			user := "writ_test_" + strings.ReplaceAll(uuid.NewString(), "-", "")
			run(t, admin, "CREATE ROLE "+user+" LOGIN PASSWORD 'secret' "+attributes)
			t.Cleanup(func() {
				run(t, admin, "DROP OWNED BY "+user+" CASCADE")
				run(t, admin, "DROP ROLE "+user)
			})
			run(t, admin, "GRANT ALL ON DATABASE "+config.Database+" TO "+user)
			if name == "is a member of the owner" {
				run(t, admin, "GRANT writ_owner TO "+user)
			}
			ordinary := config.Copy()
			ordinary.User, ordinary.Password = user, "secret"
			want := whole()
			if strings.HasPrefix(name, "is neither") {
				want.Notices = []string{"writ: " + user + " is no member of writ_owner; grant it and run writ migrate up again"}
			}
			if diff := cmp.Diff(want, up(t, ordinary)); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
			run(t, admin, "UPDATE writ.repeatable SET hash = 'old'")
			if diff := cmp.Diff(migrations.Report{Repeatable: repeatable(), Notices: want.Notices}, up(t, ordinary)); diff != "" {
				t.Errorf("again (-want +got):\n%s", diff)
			}
			if strings.HasPrefix(name, "is neither") {
				run(t, admin, "GRANT writ_owner TO "+user)
				if diff := cmp.Diff(migrations.Report{Repeatable: []string{"roles"}}, up(t, ordinary)); diff != "" {
					t.Errorf("once it is a member (-want +got):\n%s", diff)
				}
			}
			if s := status(t, ordinary); !s.UpToDate() {
				t.Errorf("status = %+v; want up to date", s)
			}
			var owner string
			if err := admin.QueryRow(ctx, "SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'writ'").Scan(&owner); err != nil || owner != "writ_owner" {
				t.Errorf("the schema's owner is %s, %v; want writ_owner", owner, err)
			}
			run(t, connect(t, ordinary), "INSERT INTO writ.intents (kind) VALUES ('blog.comment.notify')")
		})
	}
}
