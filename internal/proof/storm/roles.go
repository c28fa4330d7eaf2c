package storm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/dispatch"
	"github.com/writhq/writ/internal/proof"
	"github.com/writhq/writ/internal/proof/ledger"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/reconciler"
	"github.com/writhq/writ/workers"
)

// Role is what a child process of the storm does.
type Role string

// The roles. Workers, relays and reconcilers run the product as an application would.
const (
	worker     Role = "worker"
	relay      Role = "relay"
	reconciles Role = "reconciler"
	creator    Role = "creator"
	keeper     Role = "ledger"
)

// The environment of a child.
const (
	envRole   = "STORM_ROLE"
	envDB     = "DATABASE_URL"
	envAMQP   = "AMQP_URL"
	envLedger = "STORM_LEDGER_URL"
	envDir    = "STORM_DIR"
	envSeed   = "STORM_SEED"
	envDrill  = "STORM_DRILL" // as in Config
	envQuota  = "STORM_QUOTA" // intents of this creator
	envEvery  = "STORM_EVERY" // time between two of one of its hands
)

// Child plays the role that the environment names; false: it names none, and this process is the storm itself.
func Child(getenv func(string) string, stdout, stderr io.Writer) (code int, ok bool) {
	role := Role(getenv(envRole))
	if role == "" {
		return 0, false
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(stderr, nil))
	c := &child{getenv: getenv, log: log, hello: func(text string) { fmt.Fprintln(stdout, text) }}
	var err error
	switch role {
	case worker:
		err = c.work(ctx)
	case relay, reconciles:
		err = c.engine(ctx, role)
	case creator:
		err = c.create(ctx)
	case keeper:
		err = c.keep(ctx)
	default:
		err = fmt.Errorf("storm: no role %q", role)
	}
	if err != nil {
		log.Error("storm: child ended", "role", role, "error", err)
		return 1, true
	}
	return 0, true
}

// child is a child process from its inside.
type child struct {
	getenv func(string) string
	log    *slog.Logger
	hello  func(string) // the first line, which the storm waits for
}

func (c *child) pool() (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(c.getenv(envDB))
	if err != nil {
		return nil, err
	}
	config.MaxConns = 8
	return pgxpool.NewWithConfig(context.Background(), config)
}

// journal is a file of this process alone.
func (c *child) journal(name string) string {
	return filepath.Join(c.getenv(envDir), fmt.Sprintf("%s-%d.jsonl", name, os.Getpid()))
}

func (c *child) work(ctx context.Context) error {
	pool, err := c.pool()
	if err != nil {
		return err
	}
	defer pool.Close()
	runs, err := proof.OpenJournal[proof.Run](c.journal("runs"))
	if err != nil {
		return err
	}
	defer runs.Close()
	mux := workers.NewMux()
	h := &hand{
		runs:   runs,
		ledger: ledger.Client{URL: c.getenv(envLedger), HTTP: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}},
	}
	h.register(mux, c.drill().kinds())
	w, err := workers.New(pool, c.getenv(envAMQP), mux, workers.Config{
		Slots: c.drill().slots(), Heartbeat: heartbeat, TTL: c.drill().ttl(), Drain: drain, Log: c.log,
	})
	if err != nil {
		return err
	}
	// A relay in the same process, as an application has it: its hints come to the worker directly, too.
	r, err := c.relay(pool, w.Offer)
	if err != nil {
		return err
	}
	c.hello(w.ID().String())
	relaying, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- r.Run(relaying) }()
	err = w.Run(ctx)
	stop()
	return errors.Join(err, <-ended)
}

func (c *child) relay(pool *pgxpool.Pool, near func(store.Hint) bool) (*dispatch.Relay, error) {
	return dispatch.New(pool, c.getenv(envAMQP), dispatch.Config{Log: c.log, ConfirmTimeout: 2 * time.Second, Near: near})
}

func (c *child) engine(ctx context.Context, role Role) error {
	pool, err := c.pool()
	if err != nil {
		return err
	}
	defer pool.Close()
	c.hello("ready")
	if role == relay {
		r, err := c.relay(pool, nil)
		if err != nil {
			return err
		}
		return r.Run(ctx)
	}
	r, err := reconciler.New(pool, reconciler.Config{
		Schedule: "@every 1s", RequeueAfter: requeueAfter, WorkerTTL: c.drill().ttl(), Lease: 3 * time.Second, Schedules: map[reconciler.Duty]string{reconciler.Sweep: "@every 5s", reconciler.Unasked: "@every 5s"}, Log: c.log,
	})
	if err != nil {
		return err
	}
	return r.Run(ctx)
}

// requeueAfter is long enough that a hint in a backlog is not taken for lost.
const requeueAfter = 5 * time.Second

// keep is the ledger. It asks the database directly, past the faults of the network, whether claims can be seen.
func (c *child) keep(ctx context.Context) error {
	pool, err := c.pool()
	if err != nil {
		return err
	}
	defer pool.Close()
	server, err := ledger.New(ledger.Config{
		Path:    filepath.Join(c.getenv(envDir), "ledger.jsonl"),
		Witness: func(call ledger.Call) ledger.Claim { return witness(ctx, pool, call) },
	})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c.hello("http://127.0.0.1:" + strconv.Itoa(listener.Addr().(*net.TCPAddr).Port))
	quiet := slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // it aborts answers on purpose
	serving := &http.Server{Handler: server, ReadHeaderTimeout: 10 * time.Second, ErrorLog: quiet}
	stopped := make(chan error, 1)
	go func() { <-ctx.Done(); stopped <- errors.Join(serving.Close(), server.Close()) }()
	if err := serving.Serve(listener); ctx.Err() == nil {
		return err
	}
	return <-stopped
}

// witness looks whether the claim of a call can be seen by others. An epoch that has been reached is never left again.
func witness(ctx context.Context, pool *pgxpool.Pool, call ledger.Call) ledger.Claim {
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	var reached bool
	err := pool.QueryRow(ctx, "SELECT coalesce((SELECT epoch >= $2 FROM writ.intents WHERE id = $1), false)", call.ID, call.Epoch).Scan(&reached)
	switch {
	case err != nil:
		return ledger.NotAsked
	case reached:
		return ledger.Committed
	}
	return ledger.Missing
}
