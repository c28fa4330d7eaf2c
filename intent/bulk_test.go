package intent_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/writhq/writ/fsm"
	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

// errorsOf makes n intents that ended in error, without a worker's round trip for each.
func errorsOf(t *testing.T, db *testkit.DB, n int) {
	t.Helper()
	db.Run(t, "INSERT INTO writ.intents (kind, args) SELECT 'blog.comment.notify', jsonb_build_object('id', g) FROM generate_series(1, $1::int) g", n)
	db.Run(t, "DELETE FROM writ.outbox")
	db.Run(t, "UPDATE writ.intents SET state = 'sending', event = 'attempted', epoch = epoch + 1, attempt = 1, started_at = now(), deadline_at = now() WHERE state = 'pending'")
	db.Run(t, `UPDATE writ.intents SET state = 'error', event = 'failed', finished_at = now(), failed_at = now(), error = 'no such customer ' || (args ->> 'id')
		WHERE state = 'sending'`)
}

func plan(t *testing.T, db *testkit.DB, verb fsm.Event, f intent.Filter, ids ...intent.ID) intent.ID {
	t.Helper()
	id, err := intent.PlanBulk(ctx, db, intent.BulkPlan{Verb: verb, Filter: f, IDs: ids, Actor: "ann", Why: "the customers are back"})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// rows are a bulk's, by intent.
func rows(t *testing.T, db *testkit.DB, bulk intent.ID) map[intent.ID]intent.BulkRow {
	t.Helper()
	out := map[intent.ID]intent.BulkRow{}
	err := intent.BulkRows(ctx, db, bulk, func(r intent.BulkRow) error { out[r.ID] = r; return nil })
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// decided is how many the log has.
func decided(t *testing.T, db *testkit.DB, event fsm.Event) int {
	t.Helper()
	return testkit.Value[int](t, db, "SELECT count(*) FROM writ.log WHERE event = $1", string(event))
}

func TestBulk(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	errorsOf(t, db, 120)
	bulk := plan(t, db, fsm.Retry, intent.Filter{Error: "no such customer 7"})
	if n := decided(t, db, fsm.Retry); n != 0 {
		t.Fatalf("a plan alone decided %d", n)
	}
	// What moves after the plan is refused, and what comes after it is not in it.
	moved := testkit.Value[intent.ID](t, db, "SELECT id FROM writ.intents WHERE args ->> 'id' = '7'")
	v := verdict(moved, intent.Position{State: "error", Epoch: 1})
	if _, err := intent.Happened(ctx, db, v); err != nil {
		t.Fatal(err)
	}
	gone := testkit.Value[intent.ID](t, db, "DELETE FROM writ.intents WHERE args ->> 'id' = '8' RETURNING id")
	errorsOf(t, db, 1)

	steps := 0
	got, err := intent.RunBulk(ctx, db, bulk, intent.BulkRun{Actor: "bob", Progress: func(intent.Bulk) { steps++ }})
	if err != nil {
		t.Fatal(err)
	}
	if got.State() != "ended" || got.Total != 120 || got.Done != 118 || got.Refused != 2 || steps < 3 {
		t.Errorf("bulk = %+v after %d steps; want 118 of 120 done, 2 refused", got, steps)
	}
	if n := testkit.Value[int](t, db, "SELECT count(*) FROM writ.intents WHERE state = 'pending'"); n != 118 {
		t.Errorf("%d are pending; want 118", n)
	}
	if n := testkit.Value[int](t, db, "SELECT count(*) FROM writ.outbox"); n != 118 {
		t.Errorf("%d hints; want 118", n)
	}
	n := testkit.Value[int](t, db, `SELECT count(*) FROM writ.log WHERE event = 'retry' AND actor = 'ann' AND why = 'the customers are back'
		AND evidence ->> 'bulk' = $1`, bulk.String())
	if n != 118 {
		t.Errorf("%d verdicts name ann, her reason and the bulk; want 118", n)
	}
	if n := testkit.Value[int](t, db, "SELECT count(*) FROM writ.log WHERE event = 'bulk-run' AND actor = 'bob'"); n != 1 {
		t.Errorf("the log has %d acts of bob, who ran it; want 1", n)
	}
	all := rows(t, db, bulk)
	want := intent.Position{State: "sent", Epoch: 2}
	if r := all[moved]; r.Result != "refused" || r.Code != "WR001" || r.Now == nil || *r.Now != want || !strings.Contains(r.Message, "happened by ann (seen in the mail log)") {
		t.Errorf("the one that moved: %+v, now %v; want a refusal with what changed", r, r.Now)
	}
	if r := all[gone]; r.Result != "refused" || r.Code != "WR002" {
		t.Errorf("the one that is gone: %+v; want a refusal", r)
	}
	results, err := intent.BulkResults(ctx, db, bulk)
	if err != nil || len(results) != 3 || results[0].Result != "done" || results[0].N != 118 {
		t.Errorf("results = %+v, %v; want done 118 and two refusals", results, err)
	}
	// Again: nothing is left to do.
	if again, err := intent.RunBulk(ctx, db, bulk, intent.BulkRun{Actor: "bob"}); err != nil || again.Done != 118 || decided(t, db, fsm.Retry) != 118 {
		t.Errorf("run again: %+v, %v", again, err)
	}
}

// One command settles what a dead worker held, whatever else is ambiguous.
func TestBulk_ofOneWorker(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	a, b, failed := create(t, db, comment{1}, intent.Opts{}).ID, create(t, db, comment{2}, intent.Opts{Subjects: []string{"c:2"}}).ID, create(t, db, comment{3}, intent.Opts{}).ID
	flag(t, db, a)
	flag(t, db, b)
	fail(t, db, failed)
	worker := testkit.Value[intent.ID](t, db, "SELECT worker_id FROM writ.intents WHERE id = $1", b)
	for name, f := range map[string]intent.Filter{
		"worker": {Worker: worker.String()}, "subject": {Subject: "c:2"},
		"worker and reason": {Worker: worker.String(), FlagReason: "unknown", Status: "ambiguous"},
	} {
		preview, err := intent.PreviewBulk(ctx, db, plan(t, db, fsm.GiveUp, f))
		want := []intent.BulkGroup{{Kind: notify.Name, Status: "ambiguous", FlagReason: "unknown", N: 1, Example: b}}
		if diff := cmp.Diff(want, preview); err != nil || diff != "" {
			t.Errorf("by %s (-want +got): %v\n%s", name, err, diff)
		}
	}
	for f, want := range map[intent.Filter]int{
		{Worker: "web-1"}:                                    3,
		{FlagReason: "unknown"}:                              2,
		{Status: "error"}:                                    1,
		{Error: "connection reset", Kind: notify.Name}:       3,
		{Since: time.Now().Add(-time.Hour)}:                  3,
		{Since: time.Now().Add(-time.Hour), Status: "error"}: 1,
	} {
		bulk, err := intent.GetBulk(ctx, db, plan(t, db, fsm.Retry, f))
		if err != nil || bulk.Total != want {
			t.Errorf("%+v chose %d, %v; want %d", f, bulk.Total, err, want)
		}
	}
	// The ids of somebody's selection, of which the legal ones count.
	bulk, err := intent.GetBulk(ctx, db, plan(t, db, fsm.GiveUp, intent.Filter{}, a, failed))
	if err != nil || bulk.Total != 1 {
		t.Errorf("of ids: %d, %v; want the ambiguous one", bulk.Total, err)
	}
}

func TestBulk_refused(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	errorsOf(t, db, 1)
	good := intent.BulkPlan{Verb: fsm.Retry, Actor: "ann", Why: "the customers are back"}
	for name, tt := range map[string]struct {
		change func(*intent.BulkPlan)
		want   error
	}{
		"without a reason":           {func(p *intent.BulkPlan) { p.Why = "because" }, intent.ErrInvalid},
		"without an actor":           {func(p *intent.BulkPlan) { p.Actor = " " }, intent.ErrInvalid},
		"by the engine":              {func(p *intent.BulkPlan) { p.Actor = "worker" }, intent.ErrInvalid},
		"no verb":                    {func(p *intent.BulkPlan) { p.Verb = "explode" }, intent.ErrInvalid},
		"no status":                  {func(p *intent.BulkPlan) { p.Filter.Status = "broken" }, intent.ErrInvalid},
		"an override of a cancel":    {func(p *intent.BulkPlan) { p.Verb, p.Override = fsm.Cancel, "it cannot land" }, intent.ErrInvalid},
		"nothing matches":            {func(p *intent.BulkPlan) { p.Filter.Kind = "no.such.kind" }, intent.ErrNotFound},
		"nothing that may be so":     {func(p *intent.BulkPlan) { p.Verb = fsm.GiveUp }, intent.ErrNotFound},
		"no ids":                     {func(p *intent.BulkPlan) { p.IDs = []intent.ID{} }, intent.ErrNotFound},
		"evidence that is not JSON":  {func(p *intent.BulkPlan) { p.Evidence = []byte("{") }, intent.ErrInvalid},
		"a reason with a NUL inside": {func(p *intent.BulkPlan) { p.Why = "the customers\x00 are back" }, intent.ErrInvalid},
	} {
		p := good
		tt.change(&p)
		if _, err := intent.PlanBulk(ctx, db, p); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v; want %v", name, err, tt.want)
		}
	}
	if n := testkit.Value[int](t, db, "SELECT count(*) FROM writ.bulks"); n != 0 {
		t.Errorf("%d plans were left behind", n)
	}
	missing := intent.NewID()
	_, getErr := intent.GetBulk(ctx, db, missing)
	_, runErr := intent.RunBulk(ctx, db, missing, intent.BulkRun{Actor: "ann"})
	_, abortErr := intent.AbortBulk(ctx, db, missing, "ann", "never mind, no bulk")
	for _, err := range []error{getErr, runErr, abortErr} {
		if !errors.Is(err, intent.ErrNotFound) {
			t.Errorf("a bulk that does not exist: %v; want ErrNotFound", err)
		}
	}
}

// Rows that may still land are refused one by one, unless the override says that none of them can.
func TestBulk_override(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	id := create(t, db, comment{1}, intent.Opts{}).ID
	flag(t, db, id)
	db.Run(t, "UPDATE writ.intents SET deadline_at = now() + interval '1 h' WHERE id = $1", id)
	bulk := plan(t, db, fsm.Retry, intent.Filter{Status: "ambiguous"})
	preview, err := intent.PreviewBulk(ctx, db, bulk)
	if err != nil || len(preview) != 1 || preview[0].NeedOverride != 1 {
		t.Errorf("preview = %+v, %v; want one that needs an override", preview, err)
	}
	if got, err := intent.RunBulk(ctx, db, bulk, intent.BulkRun{Actor: "ann"}); err != nil || got.Refused != 1 || rows(t, db, bulk)[id].Code != "WR004" {
		t.Errorf("without an override: %+v, %v; want it refused with WR004", got, err)
	}
	bulk, err = intent.PlanBulk(ctx, db, intent.BulkPlan{
		Verb: fsm.Retry, Filter: intent.Filter{Status: "ambiguous"}, Actor: "ann", Why: "the plug was pulled at ten", Override: "I pulled its plug",
		NewKey: intent.FreshKey, Evidence: []byte(`"INC-7"`),
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := intent.RunBulk(ctx, db, bulk, intent.BulkRun{Actor: "ann"}); err != nil || got.Done != 1 {
		t.Fatalf("with an override: %+v, %v", got, err)
	}
	evidence := testkit.Value[map[string]any](t, db, "SELECT evidence FROM writ.log WHERE event = 'retry'")
	if evidence["override"] != "I pulled its plug" || evidence["evidence"] != "INC-7" || evidence["bulk"] != bulk.String() {
		t.Errorf("evidence = %v", evidence)
	}
	if i, err := intent.Get(ctx, db, id); err != nil || i.IdempotencyKey != id.String()+"-1" {
		t.Errorf("key = %s, %v; want a new one", i.IdempotencyKey, err)
	}
}

// A process that dies in the middle leaves whole steps, and another one goes on.
func TestRunBulk_killedInTheMiddle(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	errorsOf(t, db, 200)
	bulk := plan(t, db, fsm.Cancel, intent.Filter{Status: "error"})
	killed, kill := context.WithCancel(ctx)
	got, err := intent.RunBulk(killed, db, bulk, intent.BulkRun{Actor: "ann", Rate: 200, Progress: func(b intent.Bulk) {
		if b.Done >= 80 {
			kill()
		}
	}})
	if !errors.Is(err, context.Canceled) || got.State() != "running" {
		t.Fatalf("killed: %+v, %v", got, err)
	}
	// Whatever became of the last step: the rows, the results and the log say the same.
	same := func() (cancelled, done, logged int) {
		cancelled = testkit.Value[int](t, db, "SELECT count(*) FROM writ.intents WHERE state = 'cancelled'")
		done = testkit.Value[int](t, db, "SELECT count(*) FROM writ.bulk_rows WHERE result = 'done'")
		logged = decided(t, db, fsm.Cancel)
		return cancelled, done, logged
	}
	var cancelled, done, logged int
	testkit.Until(t, 10*time.Second, "the cut step has ended", func() (bool, string) {
		running := testkit.Value[int](t, db, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%bulk_step%' AND state = 'active'")
		return running == 0, fmt.Sprint(running)
	})
	if cancelled, done, logged = same(); cancelled != done || done != logged || done < 80 || done == 200 {
		t.Fatalf("after the kill: %d cancelled, %d results, %d in the log; want the same, not yet all", cancelled, done, logged)
	}
	// Two go on at once.
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if _, err := intent.RunBulk(ctx, db, bulk, intent.BulkRun{Actor: "bob", Rate: 10_000}); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	b, err := intent.GetBulk(ctx, db, bulk)
	if cancelled, done, logged = same(); err != nil || b.State() != "ended" || b.Done != 200 || cancelled != 200 || done != 200 || logged != 200 {
		t.Errorf("at the end: %+v, %v, %d cancelled, %d results, %d in the log; want 200 of each", b, err, cancelled, done, logged)
	}
}

func TestAbortBulk(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	errorsOf(t, db, 300)
	bulk := plan(t, db, fsm.Retry, intent.Filter{Kind: notify.Name})
	begun, aborted := make(chan struct{}), make(chan int, 1)
	go func() {
		<-begun
		b, err := intent.AbortBulk(ctx, db, bulk, "eve", "the provider is down again")
		if err != nil || b.State() != "aborted" {
			t.Errorf("abort: %+v, %v", b, err)
		}
		aborted <- decided(t, db, fsm.Retry)
	}()
	var once sync.Once
	b, err := intent.RunBulk(ctx, db, bulk, intent.BulkRun{Actor: "ann", Rate: 100, Progress: func(intent.Bulk) { once.Do(func() { close(begun) }) }})
	if err != nil || b.State() != "aborted" || b.AbortedBy == nil || *b.AbortedBy != "eve" || b.Done == 0 || b.Done == 300 {
		t.Fatalf("run: %+v, %v; want it aborted on the way", b, err)
	}
	if at := <-aborted; decided(t, db, fsm.Retry) != at || at != b.Done {
		t.Errorf("%d were decided when the abort returned, %d later, %d by the bulk; want the same", at, decided(t, db, fsm.Retry), b.Done)
	}
	if n := testkit.Value[int](t, db, "SELECT count(*) FROM writ.log WHERE event = 'bulk-aborted' AND actor = 'eve'"); n != 1 {
		t.Errorf("the log has %d aborts by eve; want 1", n)
	}
	if _, err := intent.RunBulk(ctx, db, bulk, intent.BulkRun{Actor: "ann"}); !errors.Is(err, intent.ErrIllegal) {
		t.Errorf("run after the abort: %v; want ErrIllegal", err)
	}
	if _, err := intent.AbortBulk(ctx, db, bulk, "eve", "the provider is down again"); !errors.Is(err, intent.ErrIllegal) {
		t.Errorf("abort again: %v; want ErrIllegal", err)
	}
}

// A canary, then the rest at a rate. The rate is one for all who work at it.
func TestRunBulk_limitAndRate(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	errorsOf(t, db, 61)
	bulk := plan(t, db, fsm.Retry, intent.Filter{Status: "error"})
	if b, err := intent.RunBulk(ctx, db, bulk, intent.BulkRun{Actor: "ann", Limit: 1}); err != nil || b.Done != 1 || b.State() != "running" {
		t.Fatalf("canary: %+v, %v", b, err)
	}
	began := time.Now()
	var both sync.WaitGroup
	for _, rate := range []float64{60, 0} { // who gives none keeps to that of the other
		both.Go(func() {
			if rate == 0 {
				testkit.Until(t, 10*time.Second, "the rate is set", func() (bool, string) {
					b, err := intent.GetBulk(ctx, db, bulk)
					return err == nil && b.Rate != nil, fmt.Sprint(b, err)
				})
			}
			if _, err := intent.RunBulk(ctx, db, bulk, intent.BulkRun{Actor: "ann", Rate: rate}); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	// 60 rows at 60 a second take a second, of which the last step need not be waited for.
	if took := time.Since(began); took < 700*time.Millisecond {
		t.Errorf("two runners took %v for 60 rows at 60 a second", took)
	}
	if b, err := intent.GetBulk(ctx, db, bulk); err != nil || b.Done != 61 {
		t.Errorf("bulk = %+v, %v", b, err)
	}
	if _, err := intent.RunBulk(ctx, db, plan(t, db, fsm.Cancel, intent.Filter{}), intent.BulkRun{Actor: "ann", Rate: -1}); !errors.Is(err, intent.ErrInvalid) {
		t.Errorf("a negative rate: %v; want ErrInvalid", err)
	}
}

// A row in somebody's hands does not hold the others up.
func TestRunBulk_pastALock(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	errorsOf(t, db, 20)
	bulk := plan(t, db, fsm.Retry, intent.Filter{Status: "error"})
	tx, err := db.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "SELECT FROM writ.intents WHERE args ->> 'id' = '1' FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	b, err := intent.RunBulk(ctx, db, bulk, intent.BulkRun{Actor: "ann", Progress: func(b intent.Bulk) {
		if b.Done == 19 {
			_ = tx.Rollback(ctx)
		}
	}})
	if err != nil || b.Done != 20 {
		t.Errorf("bulk = %+v, %v; want all done once the lock was gone", b, err)
	}
}

// Two operators decide the same at once: one does, the other learns what changed.
func TestDecide_twoAtOnce(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	for range 20 {
		id := create(t, db, comment{1}, intent.Opts{}).ID
		flag(t, db, id)
		seen := intent.Position{State: "sending", Epoch: 1, Flagged: true}
		ann, bob := verdict(id, seen), verdict(id, seen)
		bob.Actor, bob.Why = "bob", "the provider has no such charge"
		var both sync.WaitGroup
		var annErr, bobErr error
		both.Go(func() { _, annErr = intent.Happened(ctx, db, ann) })
		both.Go(func() { _, bobErr = intent.Retry(ctx, db, bob) })
		both.Wait()
		lost, got, says := bobErr, intent.Position{State: "sent", Epoch: 2}, "happened by ann (seen in the mail log)"
		if annErr != nil {
			lost, got, says = annErr, intent.Position{State: "pending", Epoch: 2}, "retry by bob (the provider has no such charge)"
		}
		var conflict *intent.ConflictError
		if (annErr == nil) == (bobErr == nil) || !errors.As(lost, &conflict) || conflict.Got != got || !strings.Contains(lost.Error(), says) {
			t.Fatalf("ann: %v, bob: %v; want one to succeed and the other's conflict to say %q", annErr, bobErr, says)
		}
		if n := testkit.Value[int](t, db, "SELECT count(*) FROM writ.log WHERE intent_id = $1 AND event IN ('happened', 'retry')", id); n != 1 {
			t.Fatalf("the log has %d verdicts; want 1", n)
		}
	}
}
