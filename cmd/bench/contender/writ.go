package contender

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/writhq/writ"
	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/rabbit"
	"github.com/writhq/writ/migrations"
	"github.com/writhq/writ/workers"
)

// Writ is this project, with the defaults that a user would ship but for its slots.
type Writ struct {
	Label string
	Most  int // slots
}

// Name tells the settings apart.
func (w Writ) Name() string { return w.Label }

// Slots is how many handlers run at once in a process.
func (w Writ) Slots() int { return w.Most }

// About says what is measured.
func (w Writ) About() string {
	return fmt.Sprintf("Writ of this tree: Slots %d, all else default (quorum queues, persistent messages, metrics on), relay, worker and "+
		"reconciler in one process, pool of %d; bulk by Kind.CreateMany; queues exist before the run; finished rows are kept", w.Most, poolSize)
}

func writKind(i int) intent.Kind[Args] {
	return intent.Kind[Args]{Name: "bench.job." + kindName(i)}
}

// Migrate runs Writ's migrations.
func (Writ) Migrate(ctx context.Context, databaseURL string) error {
	config, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		return err
	}
	_, err = migrations.Up(ctx, config)
	return err
}

// Adopt makes the clone an installation of its own, and has a worker declare kinds and queues once, as in any deployment
// but the very first.
func (w Writ) Adopt(ctx context.Context, t Target, o Options) error {
	if _, err := t.Pool.Exec(ctx, "UPDATE writ.settings SET fingerprint = writ.fingerprint(), installation = gen_random_uuid()"); err != nil {
		return fmt.Errorf("adopt the clone: %w", err)
	}
	queues, err := w.queues(ctx, t, o)
	if err != nil {
		return err
	}
	declaring, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	run, closing, err := WorkWrit(ctx, t.DatabaseURL, t.AMQPURL, Options{Slots: 1, Kinds: o.Kinds, Roles: []string{string(writ.RoleWorkers)}}, &Recorder{}, quiet())
	if err != nil {
		return err
	}
	defer closing()
	go func() { ended <- run(declaring) }()
	err = await(ctx, declareWithin, "the queues are declared", func() (bool, error) {
		var n int
		err := t.Pool.QueryRow(ctx, "SELECT count(*) FROM writ.kinds").Scan(&n)
		return n >= len(queues) && exist(t, queues), err
	})
	stop()
	return errors.Join(err, <-ended)
}

// declareWithin bounds the declaration of queues: 500 quorum queues take half a minute.
const declareWithin = 3 * time.Minute

// Leave deletes the queues.
func (w Writ) Leave(ctx context.Context, t Target, o Options) error {
	queues, err := w.queues(ctx, t, o)
	if err != nil {
		return err
	}
	return onBroker(t, func(ch *amqp.Channel) error {
		for _, queue := range queues {
			if _, err := ch.QueueDelete(queue, false, false, false); err != nil {
				return fmt.Errorf("delete queue %s: %w", queue, err)
			}
		}
		return nil
	})
}

func (Writ) queues(ctx context.Context, t Target, o Options) ([]string, error) {
	var installation uuid.UUID
	if err := t.Pool.QueryRow(ctx, "SELECT installation FROM writ.settings").Scan(&installation); err != nil {
		return nil, fmt.Errorf("read the installation's id: %w", err)
	}
	names := make([]string, max(1, o.Kinds))
	for i := range names {
		var err error
		if names[i], err = rabbit.QueueName(installation, writKind(i).Name); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// Create creates one intent alone.
func (Writ) Create(ctx context.Context, t Target, args Args) error {
	_, err := writKind(0).CreateAlone(ctx, t.Pool, args, intent.Opts{})
	return err
}

// CreateTx creates one in the application's transaction.
func (Writ) CreateTx(ctx context.Context, t Target, args Args) error {
	return pgx.BeginFunc(ctx, t.Pool, func(tx pgx.Tx) error {
		_, err := writKind(0).Create(ctx, tx, args, intent.Opts{})
		return err
	})
}

// CreateMany creates a kind's intents together.
func (Writ) CreateMany(ctx context.Context, t Target, n, kinds int, args Args) error {
	return pgx.BeginFunc(ctx, t.Pool, func(tx pgx.Tx) error {
		for kind := range kinds {
			many := make([]intent.One[Args], 0, n/kinds+1)
			for i := kind; i < n; i += kinds {
				args.N = int64(i)
				many = append(many, intent.One[Args]{Args: args})
			}
			if _, err := writKind(kind).CreateMany(ctx, tx, many); err != nil {
				return err
			}
		}
		return nil
	})
}

// Open looks for an intent that is due and not finished.
func (Writ) Open(ctx context.Context, t Target) (open bool, err error) {
	err = t.Pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM writ.intents WHERE finished_at IS NULL AND run_at <= now())").Scan(&open)
	return open, err
}

// Worker runs this program again.
func (w Writ) Worker(t Target, o Options) (*exec.Cmd, error) { return self("writ", t, o) }

// WorkWrit is what the process does: writ.Run, as an application would. A nil log is the default's, to standard error.
func WorkWrit(ctx context.Context, databaseURL, amqpURL string, o Options, r *Recorder, log *slog.Logger) (Runner, func(), error) {
	pool, err := openPool(ctx, databaseURL, poolSize)
	if err != nil {
		return nil, nil, err
	}
	mux := workers.NewMux()
	for i := range max(1, o.Kinds) {
		workers.Handle(mux, writKind(i), workers.Handler[Args]{Do: func(ctx context.Context, job *workers.Job[Args]) error {
			return r.Handle(ctx, job.Args)
		}})
	}
	cfg := writ.Config{Workers: workers.Config{Slots: o.Slots}, Log: log}
	for _, role := range o.Roles {
		cfg.Roles = append(cfg.Roles, writ.Role(role))
	}
	run := func(ctx context.Context) error { return writ.Run(ctx, pool, amqpURL, mux, cfg) }
	return run, pool.Close, nil
}

// exist reports whether the broker has all the queues.
func exist(t Target, queues []string) bool {
	return onBroker(t, func(ch *amqp.Channel) error {
		for _, queue := range queues {
			if _, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil); err != nil {
				return err
			}
		}
		return nil
	}) == nil
}

func onBroker(t Target, do func(*amqp.Channel) error) error {
	conn, err := amqp.Dial(t.AMQPURL)
	if err != nil {
		return fmt.Errorf("connect to the broker: %w", err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("open a channel: %w", err)
	}
	return do(ch)
}

// await asks until it is so, every 20 ms, and fails when that takes longer than most.
func await(ctx context.Context, most time.Duration, what string, ok func() (bool, error)) error {
	deadline := time.Now().Add(most)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := ok()
		if err != nil || done {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within %v", strings.TrimSpace(what), most)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
