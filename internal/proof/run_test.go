package proof

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/dispatch"
	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/proof/ledger"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

type calling struct{}

var manual = intent.Kind[calling]{
	Name: "proof.call.once", Timeout: time.Second, Settle: time.Second, MaxAttempts: 3,
	Backoff: intent.Backoff{Min: 10 * time.Millisecond, Max: 50 * time.Millisecond},
}

var repeatable = intent.Kind[calling]{
	Name: "proof.call.again", Timeout: time.Second, Settle: time.Second, MaxAttempts: 3, Idempotent: true,
	Backoff: intent.Backoff{Min: 10 * time.Millisecond, Max: 50 * time.Millisecond},
}

// do calls the ledger and is truthful.
func do(client ledger.Client) func(context.Context, *workers.Job[calling]) (Said, error) {
	return func(ctx context.Context, job *workers.Job[calling]) (Said, error) {
		err := client.Do(ctx, CallOf(ctx, job, "", time.Second))
		switch {
		case err == nil:
			return SaidDone, nil
		case errors.Is(err, ledger.ErrRefused):
			return SaidNotDone, workers.NotDone(err)
		case errors.Is(err, ledger.ErrRejected):
			return SaidStop, workers.Stop(err)
		case errors.Is(err, ledger.ErrBusy):
			return SaidSnooze, workers.Snooze(10 * time.Millisecond)
		}
		return SaidUnknown, err
	}
}

// TestRun: the product against every behaviour of the ledger that kills nobody; what it does passes the check, and what
// it does not do would not.
func TestRun(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	SwitchOnHistory(t, db)
	server, client := NewLedger(t, ledger.Config{Plan: ledger.Plan{Late: 100 * time.Millisecond, Witness: 1000}, Witness: func(call ledger.Call) ledger.Claim {
		var epoch int
		if err := db.QueryRow(context.Background(), "SELECT epoch FROM writ.intents WHERE id = $1", call.ID).Scan(&epoch); err != nil || epoch < call.Epoch {
			return ledger.Missing
		}
		return ledger.Committed
	}})
	runs, runsPath := NewJournal[Run](t, "runs")
	worker, stop := engine(t, db, client, runs)

	var acks []Ack
	for _, kind := range []intent.Kind[calling]{manual, repeatable} {
		for _, b := range ledger.Behaviours() {
			if b == ledger.KillAfter || b == ledger.KillBefore {
				continue
			}
			id := intent.NewID()
			server.Wish(id, b)
			err := pgx.BeginFunc(context.Background(), db.Pool, func(tx pgx.Tx) error {
				_, err := kind.Create(context.Background(), tx, calling{}, intent.Opts{ID: id})
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			acks = append(acks, Ack{ID: id, Kind: kind.Name, Answer: Acknowledged, At: time.Now()})
		}
	}
	testkit.Until(t, 30*time.Second, "nothing is open but what is flagged", func() (bool, string) {
		n := testkit.Value[int](t, db, "SELECT count(*) FROM writ.intents WHERE finished_at IS NULL AND flagged_at IS NULL")
		return n == 0, fmt.Sprint(n)
	})
	stop()
	testkit.Until(t, 10*time.Second, "the server has ended what was closed", func() (bool, string) {
		n := testkit.Value[int](t, db, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'proof-run%'")
		return n == 0, fmt.Sprint(n)
	})
	r := Verify(t, db, func(e *Evidence) {
		var err error
		if e.Runs, err = ReadJournals[Run](runsPath); err != nil {
			t.Fatal(err)
		}
		if e.Rest, err = ReadRest(context.Background(), db, testkit.AMQPURL(t), "proof-run"); err != nil {
			t.Fatal(err)
		}
		e.Acks, e.Visits, e.Ended = acks, server.Visits(), map[uuid.UUID]End{worker: Drained}
	})
	// Wrong, doubled and missing answers leave five of the manual ones open for a person; rejected ones end in error.
	want := Report{Created: 22, Sent: 15, Error: 2, Flagged: 5, Undecided: 5}
	if got := r.Line(); got != want.Line() {
		t.Errorf("got  %s\nwant %s", got, want.Line())
	}
}

// engine runs a relay and a worker until the returned function is called.
func engine(t *testing.T, db *testkit.DB, client ledger.Client, runs *Journal[Run]) (id uuid.UUID, stop func()) {
	t.Helper()
	pool, err := pgxpool.New(context.Background(), db.URL+"&application_name=proof-run")
	if err != nil {
		t.Fatal(err)
	}
	mux := workers.NewMux()
	workers.Handle(mux, manual, workers.Handler[calling]{Do: Witnessed(runs, do(client))})
	workers.Handle(mux, repeatable, workers.Handler[calling]{Do: Witnessed(runs, do(client))})
	w, err := workers.New(pool, testkit.AMQPURL(t), mux, workers.Config{Slots: 8, Log: testkit.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	relay, err := dispatch.New(pool, testkit.AMQPURL(t), dispatch.Config{Log: testkit.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{w.Run, relay.Run} {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		pool.Close()
	})
	t.Cleanup(stop)
	return w.ID(), stop
}
