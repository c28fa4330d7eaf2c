package intenttest_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/intent/intenttest"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

// world is an application's test: its handlers on a database of its own.
type world struct {
	*testkit.DB
	kit   *intenttest.Kit
	calls map[int]int // of the handlers, by order
}

// newWorld returns one; found is what the probe of charge says, nil: it has none.
func newWorld(t *testing.T, found *workers.Finding) *world {
	t.Helper()
	w := &world{DB: testkit.Database(t), calls: map[int]int{}}
	w.Run(t, "CREATE TABLE receipts (n int)")
	do := func(_ context.Context, job *workers.Job[orderArgs]) error {
		w.calls[job.Args.OrderID]++
		return job.Done(func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO receipts VALUES ($1)", job.Args.OrderID)
			return err
		})
	}
	h := workers.Handler[orderArgs]{Do: do}
	if found != nil {
		h.Probe = func(context.Context, *workers.Attempt[orderArgs]) (workers.Answer, error) {
			return workers.Answer{Finding: *found, Why: "told to"}, nil
		}
	}
	h.OnError = func(ctx context.Context, tx pgx.Tx, job *workers.Job[orderArgs], _ error) error {
		_, err := tx.Exec(ctx, "INSERT INTO receipts VALUES (-$1::int)", job.Args.OrderID)
		return err
	}
	mux := workers.NewMux()
	workers.Handle(mux, charge, h)
	workers.Handle(mux, warm, workers.Handler[orderArgs]{Do: do})
	w.kit = intenttest.New(t, w.Pool, mux)
	return w
}

func (w *world) create(t *testing.T, kind intent.Kind[orderArgs], order int, opts intent.Opts) intent.ID {
	t.Helper()
	c, err := kind.CreateAlone(t.Context(), w.Pool, orderArgs{OrderID: order}, opts)
	if err != nil {
		t.Fatal(err)
	}
	return c.ID
}

func (w *world) receipts(t *testing.T) int {
	t.Helper()
	return testkit.Value[int](t, w.DB, "SELECT coalesce(sum(n), 0) FROM receipts")
}

func outcomes(steps []intenttest.Step) (out []string) {
	for _, s := range steps {
		out = append(out, s.Op+" "+s.Outcome)
	}
	return out
}

func TestDrain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	now := w.create(t, charge, 1, intent.Opts{})
	later := w.create(t, charge, 2, intent.Opts{RunAt: time.Now().Add(time.Hour)})
	elsewhere, err := intent.Kind[orderArgs]{Name: "other.app.thing"}.CreateAlone(t.Context(), w.Pool, orderArgs{}, intent.Opts{})
	if err != nil {
		t.Fatal(err)
	}
	steps := w.kit.Drain()
	if diff := cmp.Diff([]string{"run succeeded"}, outcomes(steps)); diff != "" || steps[0].ID != now || steps[0].Attempt != 1 {
		t.Errorf("%v: %s", steps, diff)
	}
	intenttest.RequireStatus(t, w, now, "sent")
	intenttest.RequireStatus(t, w, later, "scheduled")
	w.kit.Elapse(59 * time.Minute)
	if steps := w.kit.Drain(); len(steps) != 0 {
		t.Errorf("before its time: %v", steps)
	}
	w.kit.Elapse(time.Minute)
	w.kit.Drain()
	intenttest.RequireStatus(t, w, later, "sent")
	if steps := w.kit.DrainAll(); len(steps) != 0 || w.receipts(t) != 3 || w.calls[1] != 1 {
		t.Errorf("again: %v, receipts %d, calls %v", steps, w.receipts(t), w.calls)
	}
	intenttest.RequireStatus(t, w, elsewhere.ID, "ready") // not this mux's
	if n := testkit.Value[int](t, w.DB, "SELECT count(*) FROM writ.outbox"); n != 1 {
		t.Errorf("%d hints left; want the other application's", n)
	}
}

// TestForce forces each outcome upon each class of kind, and lets all of them come to their end.
func TestForce(t *testing.T) {
	t.Parallel()
	done, notDone := workers.WasDone, workers.WasNotDone
	tests := []struct {
		name  string
		kind  intent.Kind[orderArgs]
		found *workers.Finding
		hows  []intenttest.How
		want  []string
		end   string
		calls int
	}{
		{"Done", charge, nil, []intenttest.How{intenttest.Done}, []string{"run succeeded"}, "sent", 0},
		{"NotDone", charge, nil, []intenttest.How{intenttest.NotDone}, []string{"run retried", "run succeeded"}, "sent", 1},
		{"NotDoneUntil", charge, nil, []intenttest.How{intenttest.NotDoneUntil(time.Hour)}, []string{"run retried", "run succeeded"}, "sent", 1},
		{"Spent", charge, nil, []intenttest.How{intenttest.NotDone, intenttest.NotDone, intenttest.NotDone}, []string{"run retried", "run retried", "run failed"}, "error", 0},
		{"Stop", charge, nil, []intenttest.How{intenttest.Stop}, []string{"run failed"}, "error", 0},
		{"Snooze", charge, nil, []intenttest.How{intenttest.Snooze(time.Hour), intenttest.Run}, []string{"run retried", "run succeeded"}, "sent", 1},
		{"Unknown", charge, nil, []intenttest.How{intenttest.Unknown}, []string{"run flagged"}, "ambiguous", 0},
		{"Panic", charge, nil, []intenttest.How{intenttest.Panic}, []string{"run flagged"}, "ambiguous", 0},
		{"Timeout", charge, nil, []intenttest.How{intenttest.Timeout}, []string{"run flagged"}, "ambiguous", 0},
		{"Crash", charge, nil, []intenttest.How{intenttest.Crash}, []string{"run crashed"}, "ambiguous", 0},
		{"CrashAfter", charge, nil, []intenttest.How{intenttest.CrashAfter}, []string{"run crashed"}, "ambiguous", 1},
		{"IdempotentCrashAfter", warm, nil, []intenttest.How{intenttest.CrashAfter}, []string{"run crashed", "run succeeded"}, "sent", 2},
		{"IdempotentUnknown", warm, nil, []intenttest.How{intenttest.Unknown, intenttest.Panic}, []string{"run retried", "run retried", "run succeeded"}, "sent", 1},
		{"IdempotentSpent", warm, nil, []intenttest.How{intenttest.Crash, intenttest.Crash, intenttest.Crash}, []string{"run crashed", "run crashed", "run crashed"}, "error", 0},
		{"ProbedCrashAfter", charge, &done, []intenttest.How{intenttest.CrashAfter}, []string{"run crashed", "probe happened"}, "sent", 1},
		{"ProbedCrash", charge, &notDone, []intenttest.How{intenttest.Crash}, []string{"run crashed", "probe early", "probe retry", "run succeeded"}, "sent", 1},
		{"ProbedUnknown", charge, &notDone, []intenttest.How{intenttest.Unknown}, []string{"run flagged", "probe early", "probe retry", "run succeeded"}, "sent", 1},
		{
			"ProbeNeverTells", charge, new(workers.CannotTell),
			[]intenttest.How{intenttest.Timeout},
			[]string{"run flagged", "probe early", "probe again", "probe again", "probe again", "probe again", "probe person"},
			"ambiguous", 0,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, tt.found)
			id := w.create(t, tt.kind, 1, intent.Opts{})
			w.kit.Force(id, tt.hows...)
			began := time.Now()
			steps := w.kit.DrainAll()
			if diff := cmp.Diff(tt.want, outcomes(steps)); diff != "" {
				t.Errorf("steps (-want +got):\n%s\n%v", diff, steps)
			}
			i := intenttest.RequireStatus(t, w, id, tt.end)
			if w.calls[1] != tt.calls {
				t.Errorf("the handler was called %d times; want %d", w.calls[1], tt.calls)
			}
			if i.Status == "error" && tt.kind.Name == charge.Name && w.receipts(t) != -1 {
				t.Errorf("OnError left %d; want -1", w.receipts(t))
			}
			if took := time.Since(began); took > 2*time.Minute { // the probes' pauses alone are longer
				t.Errorf("it took %v: somebody slept", took)
			}
		})
	}
}

// TestForce_Moot: what is forced waits for an attempt, and a hint that is moot is none.
func TestForce_Moot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	id := w.create(t, charge, 1, intent.Opts{})
	doubled := func() {
		w.Run(t, "INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) SELECT now(), kind, id, epoch + 7, 'run' FROM writ.intents")
	}
	w.Run(t, "DELETE FROM writ.outbox")
	doubled()
	if steps := w.kit.Drain(); len(steps) != 0 {
		t.Errorf("of a moot hint: %v", steps)
	}
	w.kit.Force(id, intenttest.Crash)
	doubled()
	if steps := w.kit.Drain(); len(steps) != 0 {
		t.Errorf("of a moot hint: %v", steps)
	}
	w.Run(t, "INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) SELECT now(), kind, id, epoch, 'run' FROM writ.intents")
	if diff := cmp.Diff([]string{"run crashed"}, outcomes(w.kit.Drain())); diff != "" {
		t.Errorf("what was forced (-want +got):\n%s", diff)
	}
	if n := testkit.Value[int](t, w.DB, "SELECT count(*) FROM writ.workers"); n != 1 {
		t.Errorf("%d workers are signed on; want the kit's alone", n)
	}
}

// TestHooks: what the application does in the last transaction may fail, and a verdict has the recovery run.
func TestHooks(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	fault, tries := errors.New("no such account"), 0
	mux := workers.NewMux()
	workers.Handle(mux, charge, workers.Handler[orderArgs]{
		Do: func(_ context.Context, job *workers.Job[orderArgs]) error {
			return job.Done(func(context.Context, pgx.Tx) error { tries++; return fault })
		},
		OnError: func(context.Context, pgx.Tx, *workers.Job[orderArgs], error) error { return fault },
	})
	kit := intenttest.New(t, db.Pool, mux)
	c, err := charge.CreateAlone(t.Context(), db.Pool, orderArgs{}, intent.Opts{})
	if err != nil {
		t.Fatal(err)
	}
	steps := kit.DrainAll()
	if diff := cmp.Diff([]string{"run flagged"}, outcomes(steps)); diff != "" || tries != 5 {
		t.Errorf("%v after %d tries of the hook", steps, tries)
	}
	i := intenttest.RequireStatus(t, db, c.ID, "ambiguous")
	if _, err := intent.GiveUp(t.Context(), db.Pool, intent.Verdict{ID: c.ID, Seen: i.Position(), Actor: "ann", Why: "the account is closed"}); err != nil {
		t.Fatal(err)
	}
	if steps := kit.Drain(); len(steps) != 1 || steps[0].Outcome != "owed" || !errors.Is(steps[0].Err, fault) {
		t.Errorf("the recovery: %v", steps)
	}
	fault = nil
	kit.Elapse(2 * time.Minute) // the reconciler would bring it again
	if steps := kit.Drain(); len(steps) != 1 || steps[0].Outcome != "recovered" {
		t.Errorf("the recovery, again: %v", steps)
	}
}

// TestHooks_Happened: a receipt that could not be left at first is owed, and comes when time has passed, as with the reconciler.
func TestHooks_Happened(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	fault := errors.New("no such account")
	mux := workers.NewMux()
	workers.Handle(mux, charge, workers.Handler[orderArgs]{
		Do:         func(context.Context, *workers.Job[orderArgs]) error { return errors.New("reset") },
		OnHappened: func(context.Context, pgx.Tx, *workers.Job[orderArgs]) error { return fault },
	})
	kit := intenttest.New(t, db.Pool, mux)
	c, err := charge.CreateAlone(t.Context(), db.Pool, orderArgs{}, intent.Opts{})
	if err != nil {
		t.Fatal(err)
	}
	kit.Drain()
	i := intenttest.RequireStatus(t, db, c.ID, "ambiguous")
	if _, err := intent.Happened(t.Context(), db.Pool, intent.Verdict{ID: c.ID, Seen: i.Position(), Actor: "ann", Why: "the bank has it"}); err != nil {
		t.Fatal(err)
	}
	if steps := kit.Drain(); len(steps) != 1 || steps[0].Outcome != "owed" || !errors.Is(steps[0].Err, fault) {
		t.Errorf("the receipt: %v", steps)
	}
	fault = nil
	kit.Elapse(2 * time.Minute)
	if steps := kit.Drain(); len(steps) != 1 || steps[0].Outcome != "recovered" {
		t.Errorf("the receipt, again: %v", steps)
	}
}

// TestKit_Refuses: a kit says what keeps it from working.
func TestKit_Refuses(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	mux := workers.NewMux()
	if said := fails(t, func(tb intenttest.TB) { intenttest.New(tb, db.Pool, mux) }); !strings.Contains(said, "no handlers") {
		t.Errorf("an empty mux: %s", said)
	}
	bare := workers.NewMux()
	workers.Handle(bare, charge, workers.Handler[orderArgs]{Use: []workers.Middleware{nil}})
	if said := fails(t, func(tb intenttest.TB) { intenttest.New(tb, db.Pool, bare) }); !strings.Contains(said, "a Middleware is nil") {
		t.Errorf("a mux with faults: %s", said)
	}
	two := workers.NewMux()
	nothing := workers.Handler[orderArgs]{Do: func(context.Context, *workers.Job[orderArgs]) error { return nil }}
	workers.Handle(two, charge, nothing)
	workers.Handle(two, intent.Kind[orderArgs]{Name: "other.app.thing"}, nothing)
	if said := fails(t, func(tb intenttest.TB) { intenttest.New(tb, db.Pool, two) }); !strings.Contains(said, "is a task of application") {
		t.Errorf("a mux of two applications: %s", said)
	}
	snoozes := 0
	workers.Handle(mux, charge, workers.Handler[orderArgs]{Do: func(context.Context, *workers.Job[orderArgs]) error {
		snoozes++
		return workers.Snooze(0)
	}})
	kit := intenttest.New(t, db.Pool, mux)
	if _, err := charge.CreateAlone(t.Context(), db.Pool, orderArgs{}, intent.Opts{}); err != nil {
		t.Fatal(err)
	}
	if said := fails(t, func(tb intenttest.TB) { intenttest.New(tb, db.Pool, mux).DrainAll() }); !strings.Contains(said, "again and again") || snoozes != 200 {
		t.Errorf("a handler that snoozes for ever, %d times: %s", snoozes, said)
	}
	db.Run(t, "SELECT writ.pause('ann', 'a test of pauses', 'shop.order.charge')")
	if steps := kit.Drain(); len(steps) != 0 {
		t.Errorf("of a paused kind: %v", steps)
	}
	db.Run(t, "UPDATE writ.settings SET fingerprint = 'another database'")
	if said := fails(t, func(tb intenttest.TB) { intenttest.New(tb, db.Pool, mux) }); !strings.Contains(said, "copy that nobody adopted") {
		t.Errorf("a copy: %s", said)
	}
}
