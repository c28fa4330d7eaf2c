// Command rig is an application of Writ for the test of package compat, which builds it from this release and from the one
// before and has both work on one database: rig migrate, engine, worker NAME, create N [KIND…] or publish N. It uses what applications may use,
// so that what breaks here would break theirs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ"
	"github.com/writhq/writ/dispatch"
	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/migrations"
	"github.com/writhq/writ/reconciler"
	"github.com/writhq/writ/workers"
)

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := do(ctx, args, stdout, slog.New(slog.NewTextHandler(stderr, nil))); err != nil {
		fmt.Fprintln(stderr, "rig:", err)
		return 1
	}
	return 0
}

func do(ctx context.Context, args []string, stdout io.Writer, log *slog.Logger) error {
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()
	r := rig{pool: pool, amqpURL: os.Getenv("AMQP_URL"), log: log}
	switch {
	case slices.Equal(args, []string{"migrate"}):
		report, err := migrations.Up(ctx, pool.Config().ConnConfig)
		fmt.Fprintf(stdout, "%+v\n", report)
		return err
	case slices.Equal(args, []string{"engine"}):
		return writ.Run(ctx, pool, r.amqpURL, nil, writ.Config{
			Log: log, Relay: dispatch.Config{Poll: 20 * time.Millisecond},
			Reconciler: reconciler.Config{Schedule: "@every 1s", WorkerTTL: ttl, Lease: 2 * time.Second},
		})
	case len(args) == 2 && args[0] == "worker":
		return r.work(ctx, args[1])
	case len(args) >= 2 && (args[0] == "create" || args[0] == "publish"):
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if args[0] == "publish" {
				return publish(ctx, tx, n)
			}
			return create(ctx, tx, n, args[2:])
		})
	}
	return fmt.Errorf("%q is none of: migrate, engine, worker NAME, create N [KIND…], publish N", args)
}

const ttl = 2 * time.Second

// task is the arguments of all kinds.
type task struct {
	N int `json:"n"`
}

func kind(name string) intent.Kind[task] {
	return intent.Kind[task]{
		Name: "compat.job." + name, Timeout: 4 * time.Second, Settle: 500 * time.Millisecond,
		Backoff: intent.Backoff{Min: 50 * time.Millisecond, Max: 500 * time.Millisecond},
	}
}

// The kinds, by how they come to their end, and the event with what its subscription creates.
var (
	send  = kind("send")  // at once
	retry = kind("retry") // not done at first
	lose  = kind("lose")  // done, but nobody knows, but for the probe
	crawl = kind("crawl") // done, then long on its way home: what a kill meets
	fail  = kind("fail")  // in error, with a recovery
	note  = kind("note")  // by the event

	happened = intent.Event[task]{Name: "compat.happened"}
)

type rig struct {
	pool    *pgxpool.Pool
	amqpURL string
	log     *slog.Logger
}

// create makes n of each kind.
func create(ctx context.Context, tx pgx.Tx, n int, kinds []string) error {
	for i := range n {
		for _, name := range kinds {
			if _, err := kind(name).Create(ctx, tx, task{i}, intent.Opts{}); err != nil {
				return err
			}
		}
	}
	return nil
}

func publish(ctx context.Context, tx pgx.Tx, n int) error {
	for i := range n {
		if _, err := happened.Publish(ctx, tx, task{i}, intent.EventOpts{}); err != nil {
			return err
		}
	}
	return nil
}

// work carries them out until ctx ends.
func (r rig) work(ctx context.Context, name string) error {
	mux := workers.NewMux()
	handle := func(k intent.Kind[task], after func(ctx context.Context, job *workers.Job[task]) error) {
		workers.Handle(mux, k, workers.Handler[task]{
			Do: func(ctx context.Context, job *workers.Job[task]) error {
				if k.Name == retry.Name && job.Attempt() == 1 {
					return workers.NotDone(errors.New("not this time"))
				}
				if k.Name == fail.Name {
					return workers.Stop(errors.New("never"))
				}
				if err := r.effect(ctx, job, name); err != nil {
					return err
				}
				return after(ctx, job)
			},
			Probe: func(ctx context.Context, a *workers.Attempt[task]) (workers.Answer, error) {
				var done bool
				err := r.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM compat.effects WHERE id = $1)", a.ID).Scan(&done)
				if err != nil || !done {
					return workers.Answer{Finding: workers.WasNotDone}, err
				}
				return workers.Answer{Finding: workers.WasDone}, nil
			},
			Probing: workers.Probing{Timeout: time.Second, Backoff: intent.Backoff{Min: 200 * time.Millisecond, Max: time.Second}},
			OnError: func(ctx context.Context, tx pgx.Tx, job *workers.Job[task], _ error) error {
				_, err := tx.Exec(ctx, "INSERT INTO compat.recoveries (id, worker) VALUES ($1, $2)", job.ID(), name)
				return err
			},
		})
	}
	fine := func(context.Context, *workers.Job[task]) error { return nil }
	handle(send, func(_ context.Context, job *workers.Job[task]) error {
		return job.Done(func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO compat.receipts (id, worker) VALUES ($1, $2)", job.ID(), name)
			return err
		})
	})
	handle(retry, fine)
	handle(fail, fine)
	handle(note, fine)
	handle(lose, func(context.Context, *workers.Job[task]) error { return errors.New("no answer came") })
	handle(crawl, func(ctx context.Context, _ *workers.Job[task]) error {
		timer := time.NewTimer(1500 * time.Millisecond)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	workers.Subscribe(mux, happened, workers.Subscription[task]{
		Name: "note", Do: func(_ context.Context, e workers.Event[task]) ([]intent.New, error) {
			return []intent.New{note.New(e.Data, intent.Opts{})}, nil
		},
	})
	w, err := workers.New(r.pool, r.amqpURL, mux, workers.Config{Log: r.log, Slots: 20, Heartbeat: ttl / 10, TTL: ttl, Drain: 5 * time.Second})
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	for tick := time.NewTicker(10 * time.Millisecond); w.Ready() != nil; {
		select {
		case <-tick.C:
		case err := <-ended:
			return err
		}
	}
	fmt.Println("ready")
	return <-ended
}

// effect is the outside world: a table that nothing of Writ writes.
func (r rig) effect(ctx context.Context, job *workers.Job[task], worker string) error {
	_, err := r.pool.Exec(ctx, "INSERT INTO compat.effects (id, epoch, worker) VALUES ($1, $2, $3)", job.ID(), job.Epoch(), worker)
	return err
}
