// Package workload holds what is measured, a file each, and the loop that runs contenders through it in turns.
package workload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/cmd/bench/contender"
	"github.com/writhq/writ/cmd/bench/measure"
)

// Env is the servers and what all runs share.
type Env struct {
	DatabaseURL string // of the administrative database, where pg_stat_statements is
	AMQPURL     string
	Postgres    int    // pid of the postmaster
	Broker      int    // pid of the broker
	LogDir      string // workers' logs
	// Scale makes all counts and times smaller for a trial of the program itself. 1 or 0 measures.
	Scale float64
	// Detail says whether each run ends with its most expensive statements.
	Detail   Detail
	Progress io.Writer

	admin     *pgx.Conn
	templates map[string]string    // contender → its template database
	peaks     map[string][]float64 // contender → jobs per second with 16 clients, as measured by single
	filled    map[int]*field       // databases with so many finished rows, kept for the workloads that share them
	serial    int
}

// Detail is how much is printed about a run.
type Detail int

// The details.
const (
	FiguresOnly Detail = iota
	WithStatements
)

// CreatorPool is the most connections that creators hold.
const CreatorPool = 20

// Open connects to the servers.
func (e *Env) Open(ctx context.Context) (err error) {
	e.templates, e.peaks, e.filled = map[string]string{}, map[string][]float64{}, map[int]*field{}
	if e.admin, err = pgx.Connect(ctx, e.DatabaseURL); err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	return nil
}

// Close removes what is kept and closes what Open opened.
func (e *Env) Close(ctx context.Context) error {
	var errs []error
	for _, f := range e.filled {
		errs = append(errs, f.leave(ctx))
	}
	return errors.Join(append(errs, e.admin.Close(ctx))...)
}

// field is one run's database, with the processes that work on it.
type field struct {
	env     *Env
	c       contender.Contender
	target  contender.Target
	name    string // of the database
	options contender.Options
	workers []*contender.Process
}

// scaled is a count for this run: whole, or smaller in a trial, but at least a few.
func (e *Env) scaled(n int) int {
	if e.Scale <= 0 || e.Scale >= 1 {
		return n
	}
	return max(min(n, 40), int(float64(n)*e.Scale))
}

// scaledTime does the same for a time.
func (e *Env) scaledTime(d time.Duration) time.Duration {
	return time.Duration(e.scaled(int(d/time.Millisecond))) * time.Millisecond
}

// enter makes a fresh database for a contender, cloned from its migrated template.
func (e *Env) enter(ctx context.Context, c contender.Contender, o contender.Options) (*field, error) {
	if o.Slots == 0 {
		o.Slots = c.Slots()
	}
	o.Kinds = max(1, o.Kinds)
	template, err := e.template(ctx, c)
	if err != nil {
		return nil, err
	}
	e.serial++
	f := &field{env: e, c: c, name: fmt.Sprintf("bench_%d", e.serial), options: o}
	if err := e.exec(ctx, fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s", f.name, template)); err != nil {
		return nil, err
	}
	f.target = contender.Target{DatabaseURL: e.at(f.name), AMQPURL: e.AMQPURL}
	config, err := pgxpool.ParseConfig(f.target.DatabaseURL)
	if err != nil {
		return nil, err
	}
	config.MaxConns = CreatorPool
	if f.target.Pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, err
	}
	if err := c.Adopt(ctx, f.target, o); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", c.Name(), err), f.leave(ctx))
	}
	return f, nil
}

// template makes a contender's template once.
func (e *Env) template(ctx context.Context, c contender.Contender) (string, error) {
	if name, ok := e.templates[c.Name()]; ok {
		return name, nil
	}
	name := "bench_template_" + strings.ReplaceAll(c.Name(), "-", "_")
	if err := errors.Join(e.exec(ctx, "DROP DATABASE IF EXISTS "+name), e.exec(ctx, "CREATE DATABASE "+name)); err != nil {
		return "", err
	}
	if err := c.Migrate(ctx, e.at(name)); err != nil {
		return "", fmt.Errorf("make the schema of %s: %w", c.Name(), err)
	}
	e.templates[c.Name()] = name
	return name, nil
}

func (e *Env) exec(ctx context.Context, sql string) error {
	if _, err := e.admin.Exec(ctx, sql); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

// at is the URL of another database of the server.
func (e *Env) at(database string) string {
	u, err := url.Parse(e.DatabaseURL)
	if err != nil {
		return e.DatabaseURL // Open has parsed it
	}
	u.Path = "/" + database
	return u.String()
}

// leave ends what runs and removes the database.
func (f *field) leave(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	for _, w := range f.workers {
		w.Kill()
	}
	var err error
	if f.env.Detail == WithStatements {
		err = f.profile(ctx)
	}
	err = errors.Join(err, f.c.Leave(ctx, f.target, f.options))
	f.target.Pool.Close()
	return errors.Join(err, f.env.exec(ctx, "DROP DATABASE "+f.name+" WITH (FORCE)"))
}

// start starts worker processes, which are set up and wait for the word.
func (f *field) start(n int, o contender.Options) ([]*contender.Process, error) {
	if o.Slots == 0 {
		o.Slots = f.options.Slots
	}
	o.Kinds = f.options.Kinds
	var started []*contender.Process
	for range n {
		cmd, err := f.c.Worker(f.target, o)
		if err != nil {
			return nil, err
		}
		p, err := contender.Start(cmd, filepath.Join(f.env.LogDir, f.c.Name()+".log"))
		if err != nil {
			return nil, err
		}
		f.workers, started = append(f.workers, p), append(started, p)
	}
	return started, nil
}

// stop ends all worker processes and returns the latencies that they saw, in microseconds.
func (f *field) stop() ([]int64, error) {
	var all []int64
	var errs []error
	for _, w := range f.workers {
		latencies, err := w.Stop()
		all, errs = append(all, latencies...), append(errs, err)
	}
	f.workers = nil
	return all, errors.Join(errs...)
}

// settle brings Postgres to rest, so that one run does not pay for what the last one left: statistics as autovacuum would
// have them in a moment, and a checkpoint.
func (f *field) settle(ctx context.Context) error {
	if _, err := f.target.Pool.Exec(ctx, "VACUUM ANALYZE"); err != nil {
		return fmt.Errorf("analyze: %w", err)
	}
	return f.env.exec(ctx, "CHECKPOINT")
}

// meter measures this run.
func (f *field) meter() *measure.Meter {
	m := &measure.Meter{Admin: f.env.admin, Database: f.name, Postgres: f.env.Postgres, Broker: f.env.Broker, Creator: os.Getpid()}
	for _, w := range f.workers {
		m.Workers = append(m.Workers, w.PID())
	}
	return m
}

// finished waits until n jobs were begun and none is left open in the database.
func (f *field) finished(ctx context.Context, n int64, most time.Duration) error {
	deadline := time.Now().Add(most)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for handled := int64(0); ; {
		handled = 0
		for _, w := range f.workers {
			if err := w.Alive(); err != nil {
				return err
			}
			handled += w.Handled()
		}
		if handled >= n {
			open, err := f.c.Open(ctx, f.target)
			if err != nil {
				return err
			}
			if !open {
				return nil
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: %d of %d jobs begun, not all finished within %v; see its log in %s", f.c.Name(), handled, n, most, f.env.LogDir)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
