// Package migrations brings a database to the schema that this version of Writ needs: numbered goose migrations for
// the tables, then the repeatable files of package sql (functions, triggers, views, grants) whenever their text
// changed. Both run under one lock, so any number of processes may call [Up] at once.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	writsql "github.com/writhq/writ/sql"
)

// Files are the numbered migrations.
//
//go:embed *.sql
var Files embed.FS

// Version is the number of the newest migration in this binary. A release that changes only the files of package sql adds
// a migration, too: by this number binaries of two releases know whose functions are the newer ones.
const Version = 1

// Lock key of all schema work; the first number says WRIT, the doorbell uses (same, 1).
const lockKey = "1465010516, 2"

// lockTimeout bounds how long a migration's statement may wait for, and thereby hold up, running applications. A
// lock_timeout of the caller's own connection settings goes before it.
const lockTimeout = "5s"

// Report says what a run changed.
type Report struct {
	Applied    []string `json:"applied"`    // migrations, in order
	Repeatable []string `json:"repeatable"` // repeatable files that were applied again
	Notices    []string `json:"notices"`    // what the server had to say, such as missing rights to make roles
}

// Status says where a database stands.
type Status struct {
	Current int64    `json:"current"` // newest applied migration, 0 for none
	Target  int64    `json:"target"`  // newest migration of this binary
	Stale   []string `json:"stale"`   // repeatable files whose text differs from what was applied
}

// UpToDate reports whether nothing is left for this binary to do.
func (s Status) UpToDate() bool { return s.Current >= s.Target && len(s.Stale) == 0 }

// ErrNewer means that the database was migrated by a Writ so much newer that this binary cannot work on it. One release
// newer is no fault: while a deployment rolls the older binaries go on.
var ErrNewer = errors.New("the database has a newer schema than this binary can work on; upgrade the binary")

// Up applies what is missing and returns what it did. What a newer binary has applied it leaves as it is, and says so in
// a notice; if that is too new to work on, it returns [ErrNewer]. It blocks while another process migrates the same database, until
// ctx ends. A failed migration is rolled back; earlier ones stay applied and are in the report. Safe to call from many
// processes and goroutines at once.
func Up(ctx context.Context, config *pgx.ConnConfig) (Report, error) {
	var report Report
	config = config.Copy()
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if strings.HasPrefix(n.Message, "writ: ") {
			report.Notices = append(report.Notices, n.Message)
		}
	}
	err := locked(ctx, config, func(db *sql.DB, conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS writ"); err != nil {
			return fmt.Errorf("create schema writ: %w", err)
		}
		provider, err := provider(db)
		if err != nil {
			return err
		}
		current, target, err := provider.GetVersions(ctx)
		if err != nil {
			return fmt.Errorf("read schema version: %w", err)
		}
		if current > target {
			report.Notices = append(report.Notices, fmt.Sprintf("writ: the database has schema %d, and this binary is of schema %d: nothing is changed", current, target))
			return bearable(ctx, conn, current)
		}
		results, err := provider.Up(ctx)
		for _, r := range results {
			report.Applied = append(report.Applied, r.Source.Path)
		}
		if err != nil {
			return fmt.Errorf("migrate: %w", err)
		}
		report.Repeatable, err = repeatRetrying(ctx, conn)
		return err
	})
	return report, err
}

// Down removes everything that [Up] made, all intents included, and returns the migrations rolled back. The cluster's
// roles stay: other databases may use them.
func Down(ctx context.Context, config *pgx.ConnConfig) ([]string, error) {
	var rolled []string
	err := locked(ctx, config, func(db *sql.DB, conn *pgx.Conn) error {
		var there bool
		if err := conn.QueryRow(ctx, "SELECT to_regnamespace('writ') IS NOT NULL").Scan(&there); err != nil || !there {
			return err // nothing to take down
		}
		provider, err := provider(db)
		if err != nil {
			return err
		}
		// Views and functions depend on the tables; they are repeatable, so dropping them loses nothing.
		const dropDependents = `
			DO $$ DECLARE f record; BEGIN
				DROP VIEW IF EXISTS writ.status, writ.flow, writ.askable, writ.limit_use, writ.limits_in_force;
				IF to_regclass('writ.intents') IS NOT NULL THEN ALTER TABLE writ.intents ALTER COLUMN id DROP DEFAULT; END IF;
				FOR f IN SELECT oid::regprocedure AS name FROM pg_proc WHERE pronamespace = to_regnamespace('writ') LOOP
					EXECUTE format('DROP FUNCTION IF EXISTS %s CASCADE', f.name);
				END LOOP;
			END $$`
		if _, err := conn.Exec(ctx, dropDependents); err != nil {
			return fmt.Errorf("drop functions: %w", err)
		}
		results, err := provider.DownTo(ctx, 0)
		for _, r := range results {
			rolled = append(rolled, r.Source.Path)
		}
		if err != nil {
			return fmt.Errorf("migrate down: %w", err)
		}
		_, err = conn.Exec(ctx, "DROP SCHEMA IF EXISTS writ CASCADE")
		return err
	})
	return rolled, err
}

// Read returns where the database stands, without changing anything. A database without Writ is at 0.
func Read(ctx context.Context, config *pgx.ConnConfig) (Status, error) {
	s := Status{Target: Version}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return s, fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var there bool
	if err := conn.QueryRow(ctx, "SELECT to_regclass('writ.schema_version') IS NOT NULL").Scan(&there); err != nil {
		return s, err
	}
	if there {
		if err := conn.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM writ.schema_version WHERE is_applied").Scan(&s.Current); err != nil {
			return s, err
		}
	}
	if s.Current > s.Target {
		return s, bearable(ctx, conn, s.Current)
	}
	s.Stale, err = stale(ctx, conn)
	return s, err
}

// bearable reports a database that is too new for this binary: one whose migrations took away what this one needs.
func bearable(ctx context.Context, conn *pgx.Conn, current int64) error {
	var least int
	if err := conn.QueryRow(ctx, "SELECT coalesce(max(least_schema), 1) FROM writ.settings").Scan(&least); err != nil {
		return fmt.Errorf("read the least schema: %w", err)
	}
	if Version < least {
		return fmt.Errorf("%w (the database has schema %d and needs binaries of %d at least, this one is of %d)", ErrNewer, current, least, Version)
	}
	return nil
}

func provider(db *sql.DB) (*goose.Provider, error) {
	sub, err := fs.Sub(Files, ".")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectPostgres, db, sub,
		goose.WithTableName("writ.schema_version"), goose.WithDisableGlobalRegistry(true))
}

// locked runs do while holding the schema lock on a connection of its own. The lock is asked for again and again
// instead of waited for, because a waiting statement holds a snapshot, and CREATE INDEX CONCURRENTLY waits for those.
func locked(ctx context.Context, config *pgx.ConnConfig, do func(*sql.DB, *pgx.Conn) error) error {
	config = config.Copy()
	if _, set := config.RuntimeParams["lock_timeout"]; !set {
		config.RuntimeParams["lock_timeout"] = lockTimeout
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) // which also gives the lock back
	for held := false; !held; {
		if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock("+lockKey+")").Scan(&held); err != nil {
			return fmt.Errorf("schema lock: %w", err)
		}
		if held {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("another process is migrating: %w", ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
	db := stdlib.OpenDB(*config)
	defer db.Close()
	return do(db, conn)
}

// repeatRetrying runs repeat again when a busy application held a lock for too long, or another database of the cluster
// changed the shared roles in the same moment («tuple concurrently updated» has no code of its own).
func repeatRetrying(ctx context.Context, conn *pgx.Conn) (changed []string, err error) {
	for range 5 {
		changed, err = repeat(ctx, conn)
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || !slices.Contains([]string{"XX000", "40001", "40P01", "55P03"}, pgErr.Code) {
			break
		}
	}
	return changed, err
}

// repeat applies all repeatable files in one transaction if any of them changed: they build on each other.
func repeat(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	changed, err := stale(ctx, conn)
	if err != nil || len(changed) == 0 {
		return nil, err
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for _, f := range writsql.Repeatable() {
			if _, err := tx.Exec(ctx, f.Text); err != nil {
				return fmt.Errorf("apply sql/%s.sql: %w", f.Name, err)
			}
			_, err := tx.Exec(ctx, `INSERT INTO writ.repeatable (name, hash) VALUES ($1, $2)
				ON CONFLICT (name) DO UPDATE SET hash = $2, applied_at = clock_timestamp()`, f.Name, f.Hash)
			if err != nil {
				return fmt.Errorf("note sql/%s.sql: %w", f.Name, err)
			}
		}
		return nil
	})
	return changed, err
}

func stale(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	applied := map[string]string{}
	var there bool
	if err := conn.QueryRow(ctx, "SELECT to_regclass('writ.repeatable') IS NOT NULL").Scan(&there); err != nil {
		return nil, err
	}
	if there {
		rows, err := conn.Query(ctx, "SELECT name, hash FROM writ.repeatable")
		if err != nil {
			return nil, err
		}
		var name, hash string
		if _, err := pgx.ForEachRow(rows, []any{&name, &hash}, func() error { applied[name] = hash; return nil }); err != nil {
			return nil, err
		}
	}
	// The roles were left alone for want of rights, and the user has been made a member of the owner since.
	const granted = `SELECT EXISTS (SELECT FROM pg_namespace n JOIN pg_roles r ON r.rolname = 'writ_owner' AND r.oid <> n.nspowner
		JOIN pg_auth_members m ON m.roleid = r.oid AND m.member = current_user::regrole WHERE n.nspname = 'writ')`
	var rolesDue bool
	if err := conn.QueryRow(ctx, granted).Scan(&rolesDue); err != nil {
		return nil, err
	}
	changed := []string{}
	for _, f := range writsql.Repeatable() {
		if applied[f.Name] != f.Hash || rolesDue && f.Name == "roles" {
			changed = append(changed, f.Name)
		}
	}
	return changed, nil
}
