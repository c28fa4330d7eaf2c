package intenttest_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/intent/intenttest"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

type orderArgs struct {
	OrderID int     `json:"order_id"`
	Amount  float64 `json:"amount,omitempty"`
}

var (
	charge = intent.Kind[orderArgs]{Name: "shop.order.charge", MaxAttempts: 3}
	warm   = intent.Kind[orderArgs]{Name: "shop.cache.warm", Idempotent: true, MaxAttempts: 3}
)

func TestRequireCreated(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	ctx := t.Context()
	before, err := charge.CreateAlone(ctx, db.Pool, orderArgs{OrderID: 1}, intent.Opts{})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2040, 1, 2, 3, 4, 5, 678901234, time.UTC)
	full := intent.Opts{
		ID: intent.NewID(), Key: "order 2", RunAt: at, Subjects: []string{"order:2", "customer:1"}, TID: before.ID, Parent: before.ID,
		Trace: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Meta: map[string]any{"by": "ann", "n": 1},
	}
	errBack := errors.New("rolled back, as tests do")
	err = pgx.BeginFunc(ctx, db.Pool, func(tx pgx.Tx) error {
		if _, err := charge.Create(ctx, tx, orderArgs{2, 9.50}, full); err != nil {
			return err
		}
		if id := intenttest.RequireCreated(t, tx, charge, orderArgs{2, 9.50}, full); id != full.ID {
			t.Errorf("found %s; want %s", id, full.ID)
		}
		intenttest.RequireCreated(t, tx, charge, orderArgs{2, 9.50}, intent.Opts{})
		intenttest.RequireNone(t, tx, warm)
		if all := intenttest.AllCreated(t, tx, charge); len(all) != 1 || all[0].Args != (orderArgs{2, 9.50}) || all[0].Key != "order 2" || all[0].Parent != before.ID {
			t.Errorf("created in this transaction: %+v; want order 2 alone", all)
		}
		for what, want := range map[string]intent.Opts{
			"another ID": {ID: before.ID}, "another key": {Key: "order 3"}, "another run_at": {RunAt: at.Add(time.Second)}, "another subjects": {Subjects: []string{"order:2"}},
			"another tid": {TID: full.ID}, "another parent": {Parent: full.ID}, "another trace": {Trace: "00"}, "another meta": {Meta: map[string]any{"by": "bob"}},
		} {
			said := fails(t, func(tb intenttest.TB) { intenttest.RequireCreated(tb, tx, charge, orderArgs{2, 9.50}, want) })
			if !strings.Contains(said, what) {
				t.Errorf("%s is not told: %s", what, said)
			}
		}
		said := fails(t, func(tb intenttest.TB) {
			intenttest.RequireCreated(tb, tx, charge, orderArgs{OrderID: 1}, intent.Opts{})
		})
		if !strings.Contains(said, `"amount": 9.5`) || strings.Contains(said, before.ID.String()) {
			t.Errorf("what was created before this transaction, or not what was in it, is told: %s", said)
		}
		fails(t, func(tb intenttest.TB) { intenttest.RequireNone(tb, tx, charge) })
		return errBack
	})
	if !errors.Is(err, errBack) {
		t.Fatal(err)
	}
	intenttest.RequireCreated(t, db, charge, orderArgs{OrderID: 1}, intent.Opts{ID: before.ID}) // outside any transaction: all that is there
	if _, err := charge.CreateAlone(ctx, db.Pool, orderArgs{OrderID: 1}, intent.Opts{}); err != nil {
		t.Fatal(err)
	}
	if said := fails(t, func(tb intenttest.TB) {
		intenttest.RequireCreated(tb, db, charge, orderArgs{OrderID: 1}, intent.Opts{})
	}); !strings.Contains(said, "2 intents") {
		t.Errorf("created twice: %s", said)
	}
}

func TestRequireCreated_DatabaseSQL(t *testing.T) {
	t.Parallel()
	pool := testkit.Database(t).Pool
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := charge.Create(t.Context(), intent.SQL(tx), orderArgs{OrderID: 7}, intent.Opts{Key: "k", Subjects: []string{"a", "b"}}); err != nil {
		t.Fatal(err)
	}
	intenttest.RequireCreated(t, intent.SQL(tx), charge, orderArgs{OrderID: 7}, intent.Opts{Key: "k", Subjects: []string{"a", "b"}})
	intenttest.RequireNone(t, intent.SQL(tx), warm)
}

func TestRequireStatus(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	c, err := charge.CreateAlone(t.Context(), db.Pool, orderArgs{OrderID: 1}, intent.Opts{RunAt: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if i := intenttest.RequireStatus(t, db, c.ID, "scheduled"); i.ID != c.ID {
		t.Errorf("got intent %s", i.ID)
	}
	if said := fails(t, func(tb intenttest.TB) { intenttest.RequireStatus(tb, db, c.ID, "sent") }); !strings.Contains(said, "scheduled") {
		t.Errorf("it does not say why: %s", said)
	}
	fails(t, func(tb intenttest.TB) { intenttest.RequireStatus(tb, db, intent.NewID(), "sent") })
}

func TestDo(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	probe := func(context.Context, *workers.Attempt[orderArgs]) (workers.Answer, error) {
		return workers.Answer{}, nil
	}
	do := func(err error) workers.Handler[orderArgs] {
		return workers.Handler[orderArgs]{Do: func(context.Context, *workers.Job[orderArgs]) error { return err }, Probe: probe}
	}
	panics := workers.Handler[orderArgs]{Do: func(context.Context, *workers.Job[orderArgs]) error { panic("ouch") }}
	tests := map[string]struct {
		handler workers.Handler[orderArgs]
		job     intenttest.Job[orderArgs]
		status  string
		low     time.Duration
	}{
		"done":            {do(nil), intenttest.Job[orderArgs]{}, "sent", 0},
		"not done":        {do(workers.NotDone(boom)), intenttest.Job[orderArgs]{}, "retrying", 0},
		"asked to wait":   {do(workers.NotDone(workers.RetryAfter(2*time.Hour, boom))), intenttest.Job[orderArgs]{}, "retrying", 2 * time.Hour},
		"the last time":   {do(workers.NotDone(boom)), intenttest.Job[orderArgs]{Attempt: 3}, "error", 0},
		"stopped":         {do(workers.Stop(boom)), intenttest.Job[orderArgs]{}, "error", 0},
		"snoozed":         {do(workers.Snooze(time.Minute)), intenttest.Job[orderArgs]{}, "scheduled", time.Minute},
		"nobody knows":    {do(boom), intenttest.Job[orderArgs]{}, "ambiguous", 0},
		"a panic":         {panics, intenttest.Job[orderArgs]{}, "ambiguous", 0},
		"args of no sort": {do(nil), intenttest.Job[orderArgs]{RawArgs: []byte(`{"order_id": "seven"}`)}, "error", 0},
	}
	for name, tt := range tests {
		if got := intenttest.Do(t, charge, tt.handler, tt.job); got.Status != tt.status || got.Delay < tt.low || (got.Err == nil) != (tt.status == "sent") {
			t.Errorf("%s: %+v; want %s after %v or more", name, got, tt.status, tt.low)
		}
	}
	said := fails(t, func(tb intenttest.TB) {
		intenttest.Do(tb, charge, workers.Handler[orderArgs]{}, intenttest.Job[orderArgs]{})
	})
	if !strings.Contains(said, "Do is missing") {
		t.Errorf("a handler without Do: %s", said)
	}
}

// TestDo_Job: the handler sees the job that the test made, and what it leaves for the last transaction can be run.
func TestDo_Job(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	db.Run(t, "CREATE TABLE receipts (n int)")
	id := intent.NewID()
	handler := workers.Handler[orderArgs]{
		Do: func(_ context.Context, job *workers.Job[orderArgs]) error {
			if job.ID() != id || job.Attempt() != 2 || job.Key() != id.String()+"-1" || job.Args.OrderID != 7 || string(job.Meta()) != `{"by":"ann"}` {
				t.Errorf("the handler got job %s, attempt %d, key %s, %+v, meta %s", job.ID(), job.Attempt(), job.Key(), job.Args, job.Meta())
			}
			if job.Args.Amount < 0 {
				return workers.Stop(errors.New("negative"))
			}
			return job.Done(func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "INSERT INTO receipts VALUES ($1)", job.Args.OrderID)
				return err
			})
		},
		OnError: func(ctx context.Context, tx pgx.Tx, _ *workers.Job[orderArgs], cause error) error {
			_, err := tx.Exec(ctx, "INSERT INTO receipts VALUES (-1)")
			return errors.Join(err, errors.Unwrap(cause))
		},
	}
	for amount, want := range map[float64]int{1: 7, -1: -1} {
		r := intenttest.Do(t, charge, handler, intenttest.Job[orderArgs]{
			ID: id, Args: orderArgs{7, amount}, Attempt: 2, Generation: 1, Meta: map[string]any{"by": "ann"},
		})
		tx, err := db.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		shareErr := r.Share(t.Context(), tx)
		var n int
		if err := tx.QueryRow(t.Context(), "SELECT n FROM receipts").Scan(&n); err != nil || n != want {
			t.Errorf("%s: receipt %d, %v; want %d", r.Status, n, err, want)
		}
		if (shareErr != nil) != (amount < 0) {
			t.Errorf("%s: the share said %v", r.Status, shareErr)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	done := intenttest.Do(t, warm, workers.Handler[orderArgs]{Do: func(context.Context, *workers.Job[orderArgs]) error { return nil }}, intenttest.Job[orderArgs]{})
	if err := done.Share(t.Context(), nil); err != nil {
		t.Errorf("no share: %v", err)
	}
}

// TestSafePoints: a handler goes on from the progress that it is given, hands over at its first safe point when its worker shuts
// down, and its result and progress can be looked at.
func TestSafePoints(t *testing.T) {
	t.Parallel()
	kind := intent.Kind[struct{}]{Name: "shop.month.close"}
	handler := workers.Handler[struct{}]{
		MaxExtend: time.Hour,
		Do: func(ctx context.Context, job *workers.Job[struct{}]) error {
			var done int
			if _, err := job.Progress(ctx, &done); err != nil {
				return err
			}
			for done < 3 {
				done++
				if err := errors.Join(job.Extend(ctx, time.Minute), job.SafePoint(ctx, done)); err != nil {
					return err
				}
			}
			return job.Result([]int{done})
		},
	}
	r := intenttest.Do(t, kind, handler, intenttest.Job[struct{}]{Draining: true})
	if r.Status != "scheduled" || r.Delay != 0 || string(r.Progress) != "1" || !errors.Is(r.Err, workers.ErrHandOver) {
		t.Errorf("draining: %+v", r)
	}
	r = intenttest.Do(t, kind, handler, intenttest.Job[struct{}]{Progress: 2})
	if r.Status != "sent" || string(r.Progress) != "3" || string(r.Result) != "[3]" {
		t.Errorf("from its progress: %+v", r)
	}
}
