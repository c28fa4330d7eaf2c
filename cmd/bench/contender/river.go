package contender

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// River is riverqueue.com, tuned for throughput.
type River struct{}

// The tuning of River: as many workers at once as its peers, and fetches that follow each other closely.
const (
	riverWorkers  = 2000
	riverCooldown = 2 * time.Millisecond
	riverPoll     = 50 * time.Millisecond
)

type riverArgs struct {
	Args
	kind string
}

func (a riverArgs) Kind() string { return a.kind }

type riverWorker struct {
	river.WorkerDefaults[riverArgs]
	recorder *Recorder
}

func (w *riverWorker) Work(ctx context.Context, job *river.Job[riverArgs]) error {
	return w.recorder.Handle(ctx, job.Args.Args)
}

// Name is «river».
func (River) Name() string { return "river" }

// Slots is the size of its worker pool.
func (River) Slots() int { return riverWorkers }

// About says what is measured.
func (River) About() string {
	return fmt.Sprintf("River %s, riverpgxv5: MaxWorkers %d, FetchCooldown %v, FetchPollInterval %v, LISTEN/NOTIFY on, pool of %d; "+
		"bulk by InsertManyFastTx; finished rows are kept",
		moduleVersion("github.com/riverqueue/river"), riverWorkers, riverCooldown, riverPoll, poolSize)
}

// Migrate runs River's own migrations.
func (River) Migrate(ctx context.Context, databaseURL string) error {
	pool, err := pgxpool.New(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	if err != nil {
		return err
	}
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return err
}

// Adopt does nothing: a clone is as good as its template.
func (River) Adopt(context.Context, Target, Options) error { return nil }

// Leave does nothing: all of it is in the database.
func (River) Leave(context.Context, Target, Options) error { return nil }

// inserter returns a client that only inserts. It notifies as often as workers fetch: the default would be once in 100 ms.
func (River) inserter(t Target) (*river.Client[pgx.Tx], error) {
	return river.NewClient(riverpgxv5.New(t.Pool), &river.Config{FetchCooldown: riverCooldown, Logger: quiet()})
}

// Create inserts a job by the client's own call, which begins and commits for itself.
func (r River) Create(ctx context.Context, t Target, args Args) error {
	client, err := cached(t.Pool, r.inserter, t)
	if err != nil {
		return err
	}
	_, err = client.Insert(ctx, riverArgs{args, kindName(0)}, nil)
	return err
}

// CreateTx inserts a job in the application's transaction.
func (r River) CreateTx(ctx context.Context, t Target, args Args) error {
	client, err := cached(t.Pool, r.inserter, t)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, t.Pool, func(tx pgx.Tx) error {
		_, err := client.InsertTx(ctx, tx, riverArgs{args, kindName(0)}, nil)
		return err
	})
}

// CreateMany uses River's fastest way, which returns no rows.
func (r River) CreateMany(ctx context.Context, t Target, n, kinds int, args Args) error {
	client, err := cached(t.Pool, r.inserter, t)
	if err != nil {
		return err
	}
	many := make([]river.InsertManyParams, n)
	for i := range many {
		args.N = int64(i)
		many[i].Args = riverArgs{args, kindName(i % kinds)}
	}
	return pgx.BeginFunc(ctx, t.Pool, func(tx pgx.Tx) error {
		_, err := client.InsertManyFastTx(ctx, tx, many)
		return err
	})
}

// Open looks for a job in a state that is not final.
func (River) Open(ctx context.Context, t Target) (open bool, err error) {
	err = t.Pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM river_job WHERE state IN ('available', 'running', 'retryable', 'pending'))`).Scan(&open)
	return open, err
}

// Worker runs this program again.
func (r River) Worker(t Target, o Options) (*exec.Cmd, error) { return self(r.Name(), t, o) }

// WorkRiver is what the process does.
func WorkRiver(ctx context.Context, databaseURL string, o Options, r *Recorder) (Runner, func(), error) {
	pool, err := openPool(ctx, databaseURL, poolSize)
	if err != nil {
		return nil, nil, err
	}
	workers := river.NewWorkers()
	for i := range o.Kinds {
		// AddWorker takes the kind from a zero value; these differ by value only.
		river.AddWorkerArgs(workers, riverArgs{kind: kindName(i)}, &riverWorker{recorder: r})
	}
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		FetchCooldown: riverCooldown, FetchPollInterval: riverPoll, Workers: workers, Logger: quiet(),
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: o.Slots}},
	})
	if err != nil {
		pool.Close()
		return nil, nil, err
	}
	run := func(ctx context.Context) error {
		if err := client.Start(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		<-ctx.Done()
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience/2)
		defer cancel()
		return client.Stop(stopping)
	}
	return run, pool.Close, nil
}

// quiet logs warnings only, to standard error: standard output is the protocol's.
func quiet() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}
