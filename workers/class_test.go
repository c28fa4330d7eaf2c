package workers_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/reconciler"
	"github.com/writhq/writ/workers"
)

// While a deployment rolls, one kind may be of two classes: that of the release before and that of the new one.

// slowly is asked with time to be killed in.
func slowly() intent.Kind[args] {
	k := asked
	k.Timeout = time.Minute
	return k
}

// probedChild is a worker process of its own that has a probe: it says when its handler is in its effect, where it stays.
func probedChild() {
	pool, err := pgxpool.New(context.Background(), os.Getenv("DATABASE_URL"))
	if err != nil {
		panic(err)
	}
	mux := workers.NewMux()
	workers.Handle(mux, slowly(), workers.Handler[args]{Probe: always(workers.CannotTell), Do: func(context.Context, *workers.Job[args]) error {
		fmt.Println("in its effect")
		select {}
	}})
	w, err := workers.New(pool, os.Getenv("AMQP_URL"), mux, workers.Config{
		Heartbeat: 50 * time.Millisecond, TTL: time.Second, Log: slog.New(slog.DiscardHandler),
	})
	if err == nil {
		err = w.Run(context.Background())
	}
	panic(err)
}

// spawn starts this binary as a child of a name, and waits until it says a line. The returned function kills it.
func (b *bench) spawn(name, line string) (kill func()) {
	b.t.Helper()
	process := exec.Command(os.Args[0])
	process.Env = append(os.Environ(), "WRIT_TEST_CHILD="+name, "DATABASE_URL="+b.db.URL)
	process.Stderr = os.Stderr
	out, err := process.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		b.t.Fatal(err)
	}
	kill = func() {
		b.t.Helper()
		if err := process.Process.Kill(); err != nil {
			b.t.Error(err)
		}
		_, _ = io.Copy(io.Discard, out)
		_ = process.Wait()
	}
	if said, err := bufio.NewReader(out).ReadString('\n'); err != nil || said != line+"\n" {
		kill()
		b.t.Fatalf("the child says %q, %v", said, err)
	}
	return kill
}

// redeclared starts a worker of the release before, and waits until its class is what is declared.
func (b *bench) redeclared(old intent.Kind[args], h workers.Handler[args], class string) {
	b.t.Helper()
	b.work(b.db.URL, h, old)
	b.until("it is declared anew", 20*time.Second, "count(*) = 1 FROM writ.kinds WHERE name = $1 AND class = $2", old.Name, class)
	b.until("both live", 20*time.Second, "count(DISTINCT classes) = 2 FROM writ.workers WHERE heartbeat_at + ttl > now() AND $1 = ANY (kinds)", old.Name)
}

// TestRolling_redeclaredIdempotent: a release gives an idempotent kind a probe. One of its processes dies in its effect, after one
// of the release before started again and declared the kind idempotent. It is not repeated: the probe is asked.
func TestRolling_redeclaredIdempotent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.create(slowly(), 1)
	kill := b.spawn("probed", "in its effect")
	repeated := func(context.Context, *workers.Job[args]) error {
		t.Error("it was repeated on a guess")
		return nil
	}
	b.work(b.db.URL, workers.Handler[args]{Do: repeated, Probe: always(workers.WasDone), Probing: quick}, slowly())
	b.until("another of the new ones lives", 20*time.Second, "count(*) = 2 FROM writ.workers")
	old := slowly()
	old.Idempotent = true
	b.redeclared(old, workers.Handler[args]{Do: repeated}, workers.Idempotent)
	kill()
	r, err := reconciler.New(b.db.Pool, reconciler.Config{Log: testkit.Log(t), WorkerTTL: time.Second, RequeueAfter: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	testkit.Until(t, 30*time.Second, "it is found", func() (bool, string) {
		report, err := r.Once(context.Background())
		return report.Flagged+report.Retried > 0, fmt.Sprint(report, err)
	})
	testkit.Until(t, 30*time.Second, "its probe has settled it", func() (bool, string) {
		// A hint that the older worker got, which has no probe, is lost; the time passes after which another one is sent.
		b.db.Run(t, "UPDATE writ.intents SET probe_at = now() - interval '15 s', requeues = 0 WHERE id = $1 AND flagged_at IS NOT NULL AND probe_at < now()", id)
		b.reconcile()
		i, err := intent.Get(context.Background(), b.db, id)
		return i.State == "sent" && i.Attempt == 1, fmt.Sprint(i.Status, i.Attempt, err, b.events(id))
	})
	if v := b.verdict(id); v.Event != "happened" || v.Actor != "probe" {
		t.Errorf("the verdict is %+v; want its probe's", v)
	}
}

// TestRolling_redeclaredManual: a release gives a manual kind a probe, and a process of the release before starts again and
// declares the kind manual. What the newer one's probe finds settles the row all the same.
func TestRolling_redeclaredManual(t *testing.T) {
	t.Parallel()
	for finding, want := range map[workers.Finding]struct {
		event string
		calls int
	}{workers.WasDone: {"happened", 1}, workers.WasNotDone: {"retry", 2}} {
		t.Run(want.event, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			var calls tally
			b.work(b.db.URL, workers.Handler[args]{Probe: always(finding), Probing: quick, Do: func(_ context.Context, j *workers.Job[args]) error {
				if calls.add(j.Args.N) == 1 {
					return errors.New("no answer came")
				}
				return nil
			}}, asked)
			b.until("the newer one declared it", 20*time.Second, "count(*) = 1 FROM writ.kinds WHERE name = $1 AND class = 'probed'", asked.Name)
			b.redeclared(asked, workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error {
				return workers.Snooze(20 * time.Millisecond) // until the newer one gets it
			}}, workers.Manual)
			id := b.create(asked, 1)
			testkit.Until(t, 30*time.Second, "it is sent", func() (bool, string) {
				b.db.Run(t, "UPDATE writ.intents SET probe_at = now() - interval '15 s', requeues = 0 WHERE id = $1 AND flagged_at IS NOT NULL AND probe_at < now()", id)
				b.reconcile()
				i, err := intent.Get(context.Background(), b.db, id)
				return i.State == "sent", fmt.Sprint(i.Status, err, b.events(id))
			})
			if v := b.verdict(id); v.Event != want.event || v.Actor != "probe" || calls.of(1) != want.calls {
				t.Errorf("after %d calls the verdict is %+v; want %s by the probe, and %d calls", calls.of(1), v, want.event, want.calls)
			}
		})
	}
}
