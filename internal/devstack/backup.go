package devstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// The directories of a backup, beside the cluster's data.
const (
	archiveDir = "archive"
	backupDir  = "backup"
	lostDir    = "lost"
)

// BackUpPostgres takes a base backup with pg_basebackup, and has Postgres keep
// all its WAL from then on in an archive, for which it is restarted first. There
// is one backup; a second call fails.
func (k *Stack) BackUpPostgres(ctx context.Context) error {
	archive, err := k.beginArchive(ctx)
	if err != nil {
		return err
	}
	// A file is in the archive whole, or not at all.
	command := "cp %p " + archive + "/%f.part && mv " + archive + "/%f.part " + archive + "/%f"
	err = inBootstrap(ctx, k, "ALTER SYSTEM SET archive_mode = on", "ALTER SYSTEM SET archive_command = "+quote(command))
	if err != nil {
		return err
	}
	if err := k.StopPostgres(ctx, StopFast); err != nil {
		return err
	}
	if err := k.StartPostgres(ctx); err != nil {
		return err
	}
	return k.control(ctx, func(st *state) error {
		cmd, err := asPostgres(ctx, st, "pg_basebackup", "--dbname="+databaseURL(st, bootstrapDB),
			"--pgdata="+filepath.Join(st.PostgresDir, backupDir), "--checkpoint=fast", "--no-sync")
		if err != nil {
			return err
		}
		return run(cmd)
	})
}

// beginArchive makes the directory that WAL is kept in.
func (k *Stack) beginArchive(ctx context.Context) (archive string, err error) {
	err = k.control(ctx, func(st *state) error {
		archive = filepath.Join(st.PostgresDir, archiveDir)
		cred, err := postgresCredential()
		if err != nil {
			return err
		}
		if err := os.Mkdir(archive, 0o700); err != nil {
			return fmt.Errorf("devstack: make the archive (a second backup?): %w", err)
		}
		return giveTo(cred, archive)
	})
	return archive, err
}

// RestorePostgres takes the backup in place of the data and recovers it up to a
// restore point (pg_create_restore_point), as after the loss of the server: what
// was committed later is gone, and the cluster goes on on a new timeline. The old
// server is ended as by a power cut. It blocks until the new one takes writes.
func (k *Stack) RestorePostgres(ctx context.Context, point string) error {
	if err := k.awaitArchived(ctx); err != nil {
		return err
	}
	if err := k.StopPostgres(ctx, StopImmediate); err != nil {
		return err
	}
	if err := k.control(ctx, func(st *state) error { return replaceData(st, point) }); err != nil {
		return err
	}
	if err := k.StartPostgres(ctx); err != nil {
		return err
	}
	return k.control(ctx, func(st *state) error {
		return waitFor(ctx, "the restored Postgres", st.Processes.Postgres, st.log(postgresLog), func(ctx context.Context) error {
			conn, err := pgx.Connect(ctx, databaseURL(st, bootstrapDB))
			if err != nil {
				return err
			}
			defer conn.Close(context.WithoutCancel(ctx))
			recovering := true
			if err := conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&recovering); err == nil && recovering {
				return errors.New("it is recovering")
			} else if err != nil {
				return err
			}
			return nil
		})
	})
}

// awaitArchived blocks until all WAL so far is in the archive.
func (k *Stack) awaitArchived(ctx context.Context) error {
	return k.control(ctx, func(st *state) error {
		conn, err := pgx.Connect(ctx, databaseURL(st, bootstrapDB))
		if err != nil {
			return fmt.Errorf("devstack: connect: %w", err)
		}
		defer conn.Close(context.WithoutCancel(ctx))
		var segment string
		if err := conn.QueryRow(ctx, "SELECT pg_walfile_name(pg_switch_wal())").Scan(&segment); err != nil {
			return fmt.Errorf("devstack: end the WAL file: %w", err)
		}
		tick := time.NewTicker(processPoll)
		defer tick.Stop()
		for {
			if _, err := os.Stat(filepath.Join(st.PostgresDir, archiveDir, segment)); err == nil {
				return nil
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("devstack: WAL file %s does not come into the archive: %w", segment, ctx.Err())
			case <-tick.C:
			}
		}
	})
}

// replaceData puts the backup where the data was, told to recover up to point.
func replaceData(st *state, point string) error {
	data, backup := filepath.Join(st.PostgresDir, "data"), filepath.Join(st.PostgresDir, backupDir)
	if err := os.Rename(data, filepath.Join(st.PostgresDir, lostDir)); err != nil {
		return fmt.Errorf("devstack: put the lost data aside: %w", err)
	}
	if err := os.Rename(backup, data); err != nil {
		return fmt.Errorf("devstack: put the backup in place: %w", err)
	}
	conf, err := os.OpenFile(filepath.Join(data, "postgresql.auto.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("devstack: configure the recovery: %w", err)
	}
	_, err = fmt.Fprintf(conf, "restore_command = %s\nrecovery_target_name = %s\nrecovery_target_action = 'promote'\n",
		quote("cp "+filepath.Join(st.PostgresDir, archiveDir)+"/%f %p"), quote(point))
	if err := errors.Join(err, conf.Close()); err != nil {
		return fmt.Errorf("devstack: configure the recovery: %w", err)
	}
	signal := filepath.Join(data, "recovery.signal")
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		return fmt.Errorf("devstack: ask for the recovery: %w", err)
	}
	cred, err := postgresCredential()
	if err != nil {
		return err
	}
	return giveTo(cred, signal)
}

// CopyDatabase makes another database of the same cluster from a dump of one, as
// a staging copy is made, with pg_dump and pg_restore.
func (k *Stack) CopyDatabase(ctx context.Context, from, to string) error {
	if err := inBootstrap(ctx, k, "CREATE DATABASE "+pgx.Identifier{to}.Sanitize()); err != nil {
		return err
	}
	return k.control(ctx, func(st *state) error {
		file := filepath.Join(st.PostgresDir, to+".dump")
		for _, args := range [][]string{
			{"pg_dump", "--format=custom", "--file=" + file, "--dbname=" + databaseURL(st, from)},
			{"pg_restore", "--exit-on-error", "--dbname=" + databaseURL(st, to), file},
		} {
			cmd, err := asPostgres(ctx, st, args[0], args[1:]...)
			if err != nil {
				return err
			}
			if err := run(cmd); err != nil {
				return err
			}
		}
		return os.Remove(file)
	})
}

// asPostgres is a program of Postgres, run as the user that owns the cluster.
func asPostgres(ctx context.Context, st *state, program string, args ...string) (*exec.Cmd, error) {
	cred, err := postgresCredential()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(st.Programs.PostgresBin, program), args...)
	cmd.Dir = st.PostgresDir
	cmd.Env = serverEnv(st, st.PostgresDir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: cred}
	return cmd, nil
}

// run runs a program to its end. Its arguments hold a password and are not shown.
func run(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("devstack: %s: %w\n%s", filepath.Base(cmd.Path), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// inBootstrap runs statements one by one.
func inBootstrap(ctx context.Context, k *Stack, statements ...string) error {
	return k.control(ctx, func(st *state) error {
		conn, err := pgx.Connect(ctx, databaseURL(st, bootstrapDB))
		if err != nil {
			return fmt.Errorf("devstack: connect: %w", err)
		}
		defer conn.Close(context.WithoutCancel(ctx))
		for _, s := range statements {
			if _, err := conn.Exec(ctx, s); err != nil {
				return fmt.Errorf("devstack: %s: %w", s, err)
			}
		}
		return nil
	})
}

// quote makes a string of the configuration file, and of SQL.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
