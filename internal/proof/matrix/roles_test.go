package matrix

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/dispatch"
	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/reconciler"
	"github.com/writhq/writ/workers"
)

// task is the arguments of the matrix's kinds: what the handler does at its first, second … attempt; the last word holds
// for all later ones.
type task struct {
	Script []string `json:"script"`
}

// The words of a script.
const (
	done     = "done"     // the effect, then nil
	receipt  = "receipt"  // the effect, then a row in the finishing transaction
	hold     = "hold"     // the effect, then waits until the ledger lets it go on, then nil
	lostSign = "unknown"  // the effect, then an error that says nothing
	notDone  = "not-done" // no effect, and says so
	stopped  = "stop"     // no effect, and trying again is of no use
	later    = "later"    // at epoch 1 no effect, waits until the ledger lets it go on, and wants to be called later; then the effect
	slowly   = "slowly"   // as a later word: the probe waits until the ledger lets it go on
)

// The words of long.
const (
	walk    = "walk"    // two steps, each with its effect and its safe point
	dawdle  = "dawdle"  // the same, but each waits before its safe point until the ledger lets it go on
	stretch = "stretch" // the effect, then more time, then nil
)

const queue = "matrix"

var (
	manual = intent.Kind[task]{
		Name: "matrix.job.post", Queue: queue, Timeout: 30 * time.Second,
		Backoff: intent.Backoff{Min: time.Millisecond, Max: 10 * time.Millisecond},
	}
	repeatable = intent.Kind[task]{
		Name: "matrix.job.repeat", Queue: queue, Timeout: 30 * time.Second, Idempotent: true,
		Backoff: intent.Backoff{Min: time.Millisecond, Max: 10 * time.Millisecond},
	}
)

// long has safe points, and may have more time.
var long = intent.Kind[task]{Name: "matrix.job.walk", Queue: queue, Timeout: 30 * time.Second}

// recoverable has a recovery function, which leaves a receipt.
var recoverable = intent.Kind[task]{Name: "matrix.job.recover", Queue: queue, Timeout: 30 * time.Second}

// askable has a probe, which asks the ledger.
var askable = intent.Kind[task]{Name: "matrix.job.ask", Queue: queue, Timeout: 30 * time.Second}

// ask is its probe.
func ask(ctx context.Context, a *workers.Attempt[task], out outside) (workers.Answer, error) {
	if err := out.post(ctx, "/asked/"+a.ID.String(), nil); err != nil {
		return workers.Answer{}, err
	}
	if slices.Contains(a.Args.Script, slowly) {
		if err := out.hold(ctx); err != nil {
			return workers.Answer{}, err
		}
	}
	if err := out.post(ctx, "/effects/"+a.ID.String(), nil); err != nil {
		return workers.Answer{}, err
	}
	return workers.Answer{Finding: workers.WasDone, Why: "the ledger has it"}, nil
}

// perform is the handler of all kinds.
func perform(ctx context.Context, job *workers.Job[task], out recorder) error {
	e := entry{job.ID(), job.Epoch(), job.WorkerID()}
	if err := out.record(ctx, started, e); err != nil {
		return err
	}
	script := job.Args.Script
	word := script[min(job.Attempt(), len(script))-1]
	switch word {
	case walk, dawdle:
		return walking(ctx, job, out, word)
	case notDone:
		return workers.NotDone(errors.New("not this time"))
	case stopped:
		return workers.Stop(errors.New("never"))
	case later:
		if job.Epoch() == 1 {
			return errors.Join(out.hold(ctx), workers.Snooze(3*time.Second))
		}
	}
	if err := out.record(ctx, effected, e); err != nil {
		return err
	}
	switch word {
	case hold:
		return out.hold(ctx)
	case stretch:
		return job.Extend(ctx, time.Minute)
	case lostSign:
		return errors.New("no answer came")
	case receipt:
		return job.Done(func(ctx context.Context, tx pgx.Tx) error { return leaveReceipt(ctx, tx, job) })
	}
	return nil
}

func leaveReceipt(ctx context.Context, tx pgx.Tx, job *workers.Job[task]) error {
	_, err := tx.Exec(ctx, "INSERT INTO matrix.receipts VALUES ($1, $2)", job.ID(), job.Epoch())
	return err
}

// servers are where a part finds its database, its broker and the ledger.
type servers struct {
	Database, Broker, Ledger string

	Event         string // that a subscriber subscribes to
	Mail, MailLog string // the ledger as a mail server; empty: none, and no kinds with ready-made handlers
}

// part is a running role: it works until its context ends.
type part interface {
	Run(context.Context) error
	Ready() error
}

// The roles that run, and those that do one thing.
const (
	relay      = "relay"
	worker     = "worker"
	reconciles = "reconciler"
	subscriber = "subscriber"
	creator    = "creator"
	decider    = "decider"
)

// brief is how long a worker in a process of its own lives without a heartbeat; those that nobody kills get patient, so
// that a busy machine does not make them look dead.
const (
	brief   = time.Second
	patient = 5 * time.Second
)

// staleAfter is when a hint is taken for lost. Only the cells that are about that make an intent so old.
const staleAfter = 10 * time.Minute

// newPart makes a part, with a pool of its own, which close gives back.
func newPart(role string, s servers, ttl time.Duration, log *slog.Logger) (p part, closeAll func(), err error) {
	pool, err := pgxpool.New(context.Background(), s.Database)
	if err != nil {
		return nil, nil, err
	}
	client := &http.Client{Transport: &http.Transport{}}
	closeAll = func() { client.CloseIdleConnections(); pool.Close() }
	switch role {
	case relay:
		p, err = dispatch.New(pool, s.Broker, dispatch.Config{Log: log, Poll: 20 * time.Millisecond, ConfirmTimeout: 300 * time.Millisecond})
	case reconciles:
		p, err = reconciler.New(pool, reconciler.Config{
			Log: log, Schedule: "@every 1s", RequeueAfter: staleAfter, WorkerTTL: 800 * time.Millisecond, Lease: 500 * time.Millisecond,
			Schedules: map[reconciler.Duty]string{reconciler.Prune: "never"},
		})
	case worker:
		mux := workers.NewMux()
		do := func(ctx context.Context, job *workers.Job[task]) error {
			return perform(ctx, job, outside{s.Ledger, client})
		}
		workers.Handle(mux, manual, workers.Handler[task]{Do: do})
		workers.Handle(mux, repeatable, workers.Handler[task]{Do: do})
		workers.Handle(mux, askable, workers.Handler[task]{Do: do, Probe: func(ctx context.Context, a *workers.Attempt[task]) (workers.Answer, error) {
			return ask(ctx, a, outside{s.Ledger, client})
		}})
		workers.Handle(mux, long, workers.Handler[task]{Do: do, MaxExtend: 2 * time.Minute})
		workers.Handle(mux, recoverable, workers.Handler[task]{
			Do: do,
			OnError: func(ctx context.Context, tx pgx.Tx, job *workers.Job[task], _ error) error {
				return leaveReceipt(ctx, tx, job)
			},
		})
		if s.Mail != "" {
			if err := deliver(mux, s, outside{s.Ledger, client}); err != nil {
				closeAll()
				return nil, nil, err
			}
		}
		p, err = workers.New(pool, s.Broker, mux, workers.Config{Log: log, Slots: 4, Heartbeat: ttl / 10, TTL: ttl, Drain: 5 * time.Second})
	case subscriber:
		mux := workers.NewMux()
		subscribe(mux, s.Event)
		p, err = workers.New(pool, s.Broker, mux, workers.Config{Application: "matrix", Log: log, Heartbeat: ttl / 10, TTL: ttl, Drain: 5 * time.Second})
	default:
		err = fmt.Errorf("no part %q", role)
	}
	if err != nil {
		closeAll()
		return nil, nil, err
	}
	return p, closeAll, nil
}

// order is what a creator creates, or what a person does: one of the four verbs, or one of [acts].
type order struct {
	ID     intent.ID       `json:"id"` // of the intent, or of the bulk
	Script []string        `json:"script"`
	Verb   string          `json:"verb"`
	Seen   intent.Position `json:"seen"`
	IDs    []intent.ID     `json:"ids"`   // of a bulk that is planned
	Steps  int             `json:"steps"` // of a bulk that is carried out; zero: all
	Event  string          `json:"event"` // that is published
}

// carryOut does one thing on one connection and reports whether it found it done before.
func carryOut(ctx context.Context, role, database string, o order) (before bool, err error) {
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		return false, err
	}
	defer conn.Close(ctx)
	if role == creator {
		var created intent.Created
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) (err error) {
			created, err = manual.Create(ctx, tx, task{o.Script}, intent.Opts{ID: o.ID})
			return err
		})
		return created.Existed, err
	}
	if act, ok := acts[o.Verb]; ok {
		return false, act(ctx, conn, o)
	}
	verb := verbs[o.Verb].do
	_, err = verb(ctx, conn, intent.Verdict{
		ID: o.ID, Seen: o.Seen, Actor: "ann", Why: "the ledger was looked at", Override: overrideOf(o.Verb),
	})
	return errors.Is(err, intent.ErrConflict), err
}

func overrideOf(verb string) string {
	if verb == "retry" {
		return "its connection is known to be gone"
	}
	return ""
}

// play is what a process of its own does.
func play(role string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := playIn(ctx, role); err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		return 1
	}
	return 0
}

func playIn(ctx context.Context, role string) error {
	var s servers
	if err := json.Unmarshal([]byte(os.Getenv("MATRIX_SERVERS")), &s); err != nil {
		return err
	}
	if role == creator || role == decider {
		var o order
		if err := json.Unmarshal([]byte(os.Getenv("MATRIX_ORDER")), &o); err != nil {
			return err
		}
		_, err := carryOut(ctx, role, s.Database, o)
		return err
	}
	p, closeAll, err := newPart(role, s, brief, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	defer closeAll()
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	for tick := time.NewTicker(5 * time.Millisecond); p.Ready() != nil; {
		select {
		case <-tick.C:
		case err := <-ended:
			return err
		}
	}
	fmt.Println("ready")
	return <-ended
}
