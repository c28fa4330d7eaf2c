// Package restore is the drill of docs/operations.md, After a restore, as a test: a server is lost, and its backup of an
// earlier moment is put in its place, though the outside world goes on from where it was. And the other drill: a dump that
// is restored as a staging copy.
package restore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ"
	"github.com/writhq/writ/dispatch"
	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/devstack"
	"github.com/writhq/writ/internal/proof"
	"github.com/writhq/writ/internal/proof/ledger"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/reconciler"
	"github.com/writhq/writ/workers"
)

// soon bounds every wait: far more than it takes, for a busy machine.
const soon = time.Minute

// task is what a handler does: waits for a gate, does the effect, waits for another gate, answers.
type task struct {
	Before string `json:"before"`
	After  string `json:"after"`
	Answer string `json:"answer"`
}

// The answers that are not nil.
const (
	unknown = "unknown"
	stopped = "stopped" // until gate «mended» is open; then the effect, and nil
)

// mended is the gate that lets stopped intents succeed.
const mended = "mended"

var (
	post   = intent.Kind[task]{Name: "restore.effect.post", Timeout: 5 * time.Second, Settle: time.Second}
	crawl  = intent.Kind[task]{Name: "restore.effect.crawl", Timeout: 20 * time.Second, Settle: time.Second}
	repeat = intent.Kind[task]{Name: "restore.effect.repeat", Timeout: 5 * time.Second, Settle: time.Second, Idempotent: true}
	fresh  = intent.Kind[task]{Name: "restore.effect.fresh", Timeout: 5 * time.Second, Settle: time.Second} // only new workers know it
)

// answering is the gate behind which the outside answers probes.
const answering = "answering"

// settler is who settles what nobody knows.
type settler int

// The settlers.
const (
	persons settler = iota // the kinds have no probe
	probes                 // they have one, which asks the outside; all but the one that only new workers know have it all along
)

// world is a database, the outside, and the gates that handlers wait at.
type world struct {
	t       *testing.T
	stack   *devstack.Stack
	db      *testkit.DB
	ledger  *ledger.Server
	outside ledger.Client
	settler settler
	asked   atomic.Int64 // how often a probe was

	mu    sync.Mutex
	gates map[string]chan struct{}
}

func newWorld(t *testing.T, s settler) *world {
	t.Helper()
	stack := testkit.Servers(t)
	w := &world{t: t, stack: stack, db: testkit.DatabaseOn(t, stack.DatabaseURL), settler: s, gates: map[string]chan struct{}{}}
	w.ledger, w.outside = proof.NewLedger(t, ledger.Config{Plan: ledger.Plan{}})
	return w
}

func (w *world) gate(name string) chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gates[name] == nil {
		w.gates[name] = make(chan struct{})
	}
	return w.gates[name]
}

func (w *world) open(name string) { close(w.gate(name)) }

// await blocks at a gate, if there is one.
func (w *world) await(ctx context.Context, name string) error {
	if name == "" {
		return nil
	}
	select {
	case <-w.gate(name):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *world) perform(ctx context.Context, job *workers.Job[task]) error {
	if err := w.await(ctx, job.Args.Before); err != nil {
		return err
	}
	if job.Args.Answer == stopped {
		select {
		case <-w.gate(mended):
		default:
			return workers.Stop(errors.New("550 no such mailbox"))
		}
	}
	err := w.outside.Do(ctx, proof.CallOf(ctx, job, "restore", time.Second))
	if err != nil {
		return err
	}
	if err := w.await(ctx, job.Args.After); err != nil {
		return err
	}
	if job.Args.Answer == unknown {
		return errors.New("connection reset by peer")
	}
	return nil
}

func (w *world) handler() workers.Handler[task] {
	h := workers.Handler[task]{Do: w.perform}
	if w.settler == probes {
		h.Probe = w.ask
		h.Probing = workers.Probing{Timeout: 5 * time.Second, Backoff: intent.Backoff{Min: 100 * time.Millisecond, Max: time.Second}, Slots: 8, Most: 1000}
	}
	return h
}

// ask is the probe: it tells what the outside truly saw, once that answers.
func (w *world) ask(ctx context.Context, a *workers.Attempt[task]) (workers.Answer, error) {
	w.asked.Add(1)
	select {
	case <-w.gate(answering):
	default:
		return workers.Answer{Why: "the outside does not answer"}, nil
	}
	visits, err := w.outside.Visits(ctx, a.ID)
	if err != nil {
		return workers.Answer{}, err
	}
	for _, v := range visits {
		if v.Recorded != nil {
			return workers.Answer{Finding: workers.WasDone, Why: "the ledger has it", Evidence: v}, nil
		}
	}
	return workers.Answer{Finding: workers.WasNotDone, Why: "the ledger does not have it"}, nil
}

// run runs all parts of Writ, with handlers of these kinds, until the test ends.
func (w *world) run(db *testkit.DB, kinds ...intent.Kind[task]) {
	w.t.Helper()
	mux := workers.NewMux()
	for _, k := range kinds {
		workers.Handle(mux, k, w.handler())
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- writ.Run(ctx, db.Pool, w.stack.AMQPURL, mux, writ.Config{
			Log:     testkit.Log(w.t),
			Workers: workers.Config{Heartbeat: 200 * time.Millisecond, TTL: 2 * time.Second, Drain: time.Second},
			Relay:   dispatch.Config{Poll: 50 * time.Millisecond},
			Reconciler: reconciler.Config{
				Schedule: "@every 1s", Schedules: map[reconciler.Duty]string{reconciler.Unasked: "@every 1s"}, WorkerTTL: 2 * time.Second,
			},
		})
	}()
	w.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
}

func (w *world) create(kind intent.Kind[task], args task, n int) (ids []intent.ID) {
	w.t.Helper()
	return w.createAt(kind, args, n, time.Time{})
}

func (w *world) createAt(kind intent.Kind[task], args task, n int, at time.Time) (ids []intent.ID) {
	w.t.Helper()
	err := pgx.BeginFunc(context.Background(), w.db, func(tx pgx.Tx) error {
		for range n {
			c, err := kind.Create(context.Background(), tx, args, intent.Opts{RunAt: at})
			if err != nil {
				return err
			}
			ids = append(ids, c.ID)
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return ids
}

// all waits until intents have a status.
func (w *world) all(status string, ids ...intent.ID) {
	w.t.Helper()
	testkit.Until(w.t, soon, fmt.Sprintf("%d intents are %s", len(ids), status), func() (bool, string) {
		var other int
		var some string
		err := w.db.QueryRow(context.Background(), `SELECT count(*), coalesce(min(status || ': ' || coalesce(writ.why(id), '')), '')
			FROM writ.status WHERE id = ANY ($1) AND status <> $2`, ids, status).Scan(&other, &some)
		return err == nil && other == 0, fmt.Sprint(other, " are not, such as ", some, ", ", err)
	})
}

// happened is how often the outside has seen the effect.
func (w *world) happened(id intent.ID) (n int) {
	for _, v := range w.ledger.Visits() {
		if v.ID == id && v.Recorded != nil {
			n++
		}
	}
	return n
}

// reached waits until the outside has seen the effects.
func (w *world) reached(ids ...intent.ID) {
	w.t.Helper()
	testkit.Until(w.t, soon, "the effects are in the ledger", func() (bool, string) {
		missing := 0
		for _, id := range ids {
			if w.happened(id) == 0 {
				missing++
			}
		}
		return missing == 0, fmt.Sprint(missing, " are missing")
	})
}

// silent watches for a while that nobody calls the outside, nor asks it.
func (w *world) silent(d time.Duration) {
	w.t.Helper()
	before, asked := len(w.ledger.Visits()), w.asked.Load()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); <-tick.C {
		if n := len(w.ledger.Visits()); n != before {
			w.t.Fatalf("%d calls of the outside by a database that nobody adopted", n-before)
		}
		if n := w.asked.Load(); n != asked {
			w.t.Fatalf("a probe was asked %d times by a database that nobody adopted", n-asked)
		}
	}
}

// settle decides intents by what the outside truly saw, as a person does: nothing is retried before the attempt that may be
// under way is over.
func (w *world) settle(word intent.Word) (happened, retried int) {
	w.t.Helper()
	testkit.Until(w.t, soon, "all is settled", func() (bool, string) {
		rows, err := w.db.Query(context.Background(), "SELECT id, state, epoch FROM writ.status WHERE status IN ('ambiguous', 'error')")
		if err != nil {
			w.t.Fatal(err)
		}
		verdicts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (v intent.Verdict, err error) {
			return v, row.Scan(&v.ID, &v.Seen.State, &v.Seen.Epoch)
		})
		if err != nil {
			w.t.Fatal(err)
		}
		for _, v := range verdicts {
			v.Actor, v.Why = word.Actor, word.Why
			if w.happened(v.ID) > 0 {
				_, err = intent.Happened(context.Background(), w.db, v)
				happened++
			} else if _, err = intent.Retry(context.Background(), w.db, v); err == nil {
				retried++
			}
			if err != nil && !errors.Is(err, intent.ErrNeedsOverride) {
				w.t.Fatalf("decide %s: %v", v.ID, err)
			}
		}
		return len(verdicts) == 0, fmt.Sprint(len(verdicts), " are not")
	})
	return happened, retried
}
