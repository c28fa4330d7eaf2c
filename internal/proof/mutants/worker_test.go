package mutants_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

// retry is a person's, of a row that is taken for dead while its worker lives.
func (r *rig) retry(id intent.ID) {
	r.t.Helper()
	r.db.Run(r.t, "UPDATE writ.intents SET flagged_at = now(), flag_reason = 'worker-died' WHERE id = $1", id)
	_, err := intent.Retry(context.Background(), r.db, intent.Verdict{
		ID: id, Seen: r.get(id).Position(), Actor: "ann", Why: "it must go on now", Override: "the outside system is switched off",
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// TestOldHint: a hint of an epoch that the row has left claims nothing.
func TestOldHint(t *testing.T) {
	t.Parallel()
	r := setup(t)
	var ran calls
	w := r.work(r.db.URL, job, func(_ context.Context, j *workers.Job[args]) error {
		ran.add(j)
		if j.Args.N == 1 {
			return workers.Snooze(time.Hour)
		}
		return nil
	}, workers.Config{})
	id := r.create(job, 1)
	r.await(id, "scheduled")
	// Due now, at epoch 1, with nothing but a hint of epoch 0.
	r.db.Run(t, "UPDATE writ.intents SET run_at = now() - interval '1 s' WHERE id = $1 AND set_config('session_replication_role', 'replica', true) <> ''", id)
	r.db.Run(t, "DELETE FROM writ.outbox WHERE intent_id = $1", id)
	r.hint(id, 0)
	testkit.Until(t, patience, "the old hint is moot", func() (bool, string) {
		if n := len(ran.of(1)); n > 1 {
			t.Fatalf("a hint of epoch 0 started the handler at epoch %d", ran.of(1)[1])
		}
		return w.hints(t, "moot") == 1, fmt.Sprint(w.hints(t, "moot"))
	})
	if got := r.get(id); got.Epoch != 1 {
		t.Errorf("epoch %d; want 1", got.Epoch)
	}
}

// TestTwoSlots: an outcome of an attempt is not written to the next attempt, though the same worker holds both.
func TestTwoSlots(t *testing.T) {
	t.Parallel()
	r := setup(t)
	entered, first, second := make(chan int), make(chan struct{}), make(chan struct{})
	r.work(r.db.URL, job, func(_ context.Context, j *workers.Job[args]) error {
		entered <- j.Epoch()
		if j.Epoch() == 1 {
			<-first
			return nil
		}
		<-second
		return workers.Stop(errors.New("no"))
	}, workers.Config{})
	id := r.create(job, 1)
	<-entered
	r.retry(id)
	if epoch := <-entered; epoch != 3 {
		t.Fatalf("the second attempt is at epoch %d; want 3", epoch)
	}
	defer sync.OnceFunc(func() { close(second) })()
	close(first)
	testkit.Until(t, patience, "a late report", func() (bool, string) {
		got := r.get(id)
		if got.State != "sending" || got.Epoch != 3 {
			t.Fatalf("the late outcome of epoch 1 made the row %s at epoch %d, while its second attempt runs", got.State, got.Epoch)
		}
		return r.logged(id, "late-report") == 1, got.Status
	})
	second <- struct{}{}
	r.await(id, "error")
}

// TestDoubledHint: a hint that comes again while its attempt runs starts nothing, whatever answers are lost.
func TestDoubledHint(t *testing.T) {
	t.Parallel()
	r := setup(t)
	var ran calls
	entered, release := make(chan struct{}, 10), make(chan struct{})
	proxy, w := r.faulty(job, func(_ context.Context, j *workers.Job[args]) error {
		ran.add(j)
		entered <- struct{}{}
		<-release
		return nil
	})
	defer close(release)
	id := r.create(job, 1)
	<-entered
	proxy.LoseAnswer("'attempted'")
	r.hint(id, 0)
	testkit.Until(t, patience, "the doubled hint is held", func() (bool, string) {
		if epochs := ran.of(1); len(epochs) > 1 {
			t.Fatalf("the handler runs twice side by side, at epochs %v", epochs)
		}
		return w.hints(t, "held") == 1, fmt.Sprint(ran.of(1))
	})
}

// TestDoubledHint_afterUnknown: a hint that comes again after its attempt was flagged does not start it again, when the
// answer to its vain claim is lost.
func TestDoubledHint_afterUnknown(t *testing.T) {
	t.Parallel()
	r := setup(t)
	var ran calls
	proxy, w := r.faulty(job, func(_ context.Context, j *workers.Job[args]) error {
		ran.add(j)
		return errors.New("who knows")
	})
	id := r.create(job, 1)
	r.await(id, "ambiguous")
	sent := 0.0
	again := func() {
		r.hint(id, 0)
		sent++
	}
	testkit.Until(t, patience, "its outcome is forgotten by the worker", func() (bool, string) {
		again()
		return w.hints(t, "moot") > 0, fmt.Sprint(w.hints(t, "moot"))
	})
	fired := proxy.LoseAnswer("'attempted'")
	testkit.Until(t, patience, "a claim's answer is lost", func() (bool, string) {
		select {
		case <-fired:
			return true, ""
		default:
			again()
			return false, "not lost"
		}
	})
	// Each hint but the first must be found worth nothing, also the one whose answer was lost.
	testkit.Until(t, patience, "all hints are settled", func() (bool, string) {
		if epochs := ran.of(1); len(epochs) > 1 {
			t.Fatalf("an attempt that nobody knows the outcome of was started again, at epochs %v", epochs)
		}
		return w.idle(t) >= sent, fmt.Sprintf("%v of %v", w.idle(t), sent)
	})
}

// TestLateClaim: a claim whose answer comes after its deadline starts no handler.
func TestLateClaim(t *testing.T) {
	t.Parallel()
	r := setup(t)
	kind := job
	kind.Name, kind.Timeout = "test.teeth.late", 500*time.Millisecond
	var ran calls
	proxy, _ := r.faulty(kind, func(_ context.Context, j *workers.Job[args]) error {
		ran.add(j)
		return nil
	})
	r.await(r.create(kind, 0), "sent") // the worker is well
	fired := proxy.LoseAnswer("'attempted'")
	id := r.create(kind, 1)
	<-fired
	proxy.Refuse()
	testkit.Until(t, patience, "its deadline has passed", func() (bool, string) {
		return testkit.Value[bool](t, r.db, "SELECT deadline_at < clock_timestamp() FROM writ.intents WHERE id = $1", id), ""
	})
	proxy.Accept()
	r.await(id, "sent")
	if epochs := ran.of(1); slices.Contains(epochs, 1) {
		t.Errorf("the handler was started at epochs %v; that of epoch 1 was past its deadline by then", epochs)
	}
}

// notice is a log handler that tells of the first warning about hints.
type notice struct {
	slog.Handler
	once sync.Once
	told chan struct{}
}

func (n *notice) Handle(ctx context.Context, rec slog.Record) error {
	rec.Attrs(func(a slog.Attr) bool {
		if a.Key == "hints" {
			n.once.Do(func() { close(n.told) })
		}
		return true
	})
	return n.Handler.Handle(ctx, rec)
}

// TestUnclaimedHint: a hint whose claim was never sent goes back to the broker when its worker ends.
func TestUnclaimedHint(t *testing.T) {
	t.Parallel()
	r := setup(t)
	done := func(context.Context, *workers.Job[args]) error { return nil }
	proxy, url := testkit.ProxyTo(t, r.db.URL)
	n := &notice{Handler: testkit.Log(t).Handler(), told: make(chan struct{})}
	w := r.work(url, job, done, workers.Config{Log: slog.New(n)})
	r.await(r.create(job, 0), "sent") // the worker is well, and believed to be for a while
	proxy.Refuse()
	w.pool.Reset() // a lost connection would leave it open whether the claim was sent; a refused one does not
	id := r.create(job, 1)
	<-n.told
	w.stop()
	r.work(r.db.URL, job, done, workers.Config{})
	r.await(id, "sent")
}

// TestClaim_isDurable: a claim is committed synchronously, whatever the database's default is.
func TestClaim_isDurable(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.db.Run(t, "CREATE TABLE public.commits (event text, how text)")
	r.db.Run(t, `CREATE FUNCTION public.note_commit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
		INSERT INTO public.commits VALUES (NEW.event, current_setting('synchronous_commit')); RETURN NULL; END $$`)
	// At the end of the transaction: what counts is the setting that the commit meets.
	r.db.Run(t, `CREATE CONSTRAINT TRIGGER note_commit AFTER UPDATE ON writ.intents DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION public.note_commit()`)
	r.db.Run(t, "ALTER DATABASE "+r.db.Name+" SET synchronous_commit = off")
	r.work(r.db.URL, job, func(context.Context, *workers.Job[args]) error { return nil }, workers.Config{})
	r.await(r.create(job, 1), "sent")
	rows := map[string]string{}
	for _, event := range []string{"attempted", "succeeded"} {
		rows[event] = testkit.Value[string](t, r.db, "SELECT string_agg(DISTINCT how, ',') FROM public.commits WHERE event = $1", event)
	}
	if diff := cmp.Diff(map[string]string{"attempted": "on", "succeeded": "on"}, rows); diff != "" {
		t.Errorf("synchronous_commit (-want +got):\n%s", diff)
	}
}
