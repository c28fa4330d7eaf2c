package contender

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/writhq/writ/cmd/bench/graphile"
)

// Graphile is graphile-worker, a job queue for Node.js on Postgres, at one size of its local queue.
type Graphile struct {
	Dir   string // where npm installs it
	Queue int    // jobs that a process fetches and locks at once
}

// graphileJobs is the number of jobs at once that its documentation names for its peak.
const graphileJobs = 24

// graphileChunk is how many jobs one call of add_jobs gets: its arguments are one JSON document.
const graphileChunk = 10_000

// Name tells the sizes apart.
func (g Graphile) Name() string { return "graphile-" + strconv.Itoa(g.Queue) }

// Slots is its number of concurrent jobs.
func (Graphile) Slots() int { return graphileJobs }

// About says what is measured.
func (g Graphile) About() string {
	return fmt.Sprintf("graphile-worker %s on Node.js %s: localQueue.size %d, completeJobBatchDelay 0, failJobBatchDelay 0, concurrentJobs %d, "+
		"pool of %d; bulk by add_jobs; finished jobs are deleted, not kept", graphile.Version(), nodeVersion(), g.Queue, graphileJobs, graphileJobs+1)
}

func nodeVersion() string {
	out, err := exec.Command("node", "--version").Output()
	if err != nil {
		return "(not found)"
	}
	return strings.TrimSpace(string(out))
}

// Migrate installs it, the first time, and runs its own migrations.
func (g Graphile) Migrate(ctx context.Context, databaseURL string) error {
	if err := g.install(ctx); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "node", "worker.mjs", "migrate")
	cmd.Dir, cmd.Env = g.home(), append(os.Environ(), "DATABASE_URL="+databaseURL)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("migrate: %w\n%s", err, bytes.TrimSpace(out))
	}
	return nil
}

func (g Graphile) home() string { return filepath.Join(g.Dir, "graphile") }

// install has npm fetch exactly what the lock file names, and puts the script beside it.
func (g Graphile) install(ctx context.Context) error {
	dir := g.home()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	changed := false
	for name, text := range graphile.Files() {
		path := filepath.Join(dir, name)
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
			continue
		}
		changed = true
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "graphile-worker")); err == nil && !changed {
		return nil
	}
	cmd := exec.CommandContext(ctx, "npm", "ci", "--omit=dev", "--no-audit", "--no-fund", "--loglevel=error")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("install graphile-worker with npm (Node.js 18 or newer, and a registry, are needed; «-peers writ,river,floor» leaves it out): %w\n%s",
			err, bytes.TrimSpace(out))
	}
	return nil
}

// Adopt does nothing: a clone is as good as its template.
func (Graphile) Adopt(context.Context, Target, Options) error { return nil }

// Leave does nothing: all of it is in the database.
func (Graphile) Leave(context.Context, Target, Options) error { return nil }

// Create adds a job by its SQL function, as an application in any language would.
func (Graphile) Create(ctx context.Context, t Target, args Args) error {
	return addJob(ctx, t.Pool, args)
}

// CreateTx does so in the application's transaction.
func (Graphile) CreateTx(ctx context.Context, t Target, args Args) error {
	return pgx.BeginFunc(ctx, t.Pool, func(tx pgx.Tx) error { return addJob(ctx, tx, args) })
}

func addJob(ctx context.Context, db execer, args Args) error {
	payload, err := json.Marshal(args)
	if err != nil {
		return err
	}
	_, err = db.Exec(ctx, "SELECT graphile_worker.add_job($1, $2::json)", kindName(0), string(payload))
	return err
}

// execer is a pool or a transaction.
type execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// CreateMany adds jobs by its function for many.
func (Graphile) CreateMany(ctx context.Context, t Target, n, kinds int, args Args) error {
	type spec struct {
		Identifier string `json:"identifier"`
		Payload    Args   `json:"payload"`
	}
	return pgx.BeginFunc(ctx, t.Pool, func(tx pgx.Tx) error {
		for start := 0; start < n; start += graphileChunk {
			specs := make([]spec, min(graphileChunk, n-start))
			for i := range specs {
				args.N = int64(start + i)
				specs[i] = spec{kindName((start + i) % kinds), args}
			}
			text, err := json.Marshal(specs)
			if err != nil {
				return err
			}
			_, err = tx.Exec(ctx, `SELECT count(*) FROM graphile_worker.add_jobs(
				ARRAY(SELECT json_populate_recordset(NULL::graphile_worker.job_spec, $1::json)))`, string(text))
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Open looks for a job: finished ones are deleted.
func (Graphile) Open(ctx context.Context, t Target) (open bool, err error) {
	err = t.Pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM graphile_worker._private_jobs)").Scan(&open)
	return open, err
}

// Worker is the script.
func (g Graphile) Worker(t Target, o Options) (*exec.Cmd, error) {
	cmd := exec.Command("node", "worker.mjs", "work", strconv.Itoa(g.Queue), strconv.Itoa(o.Slots), strconv.Itoa(max(1, o.Kinds)))
	cmd.Dir, cmd.Env = g.home(), append(os.Environ(), "DATABASE_URL="+t.DatabaseURL)
	return cmd, nil
}
