package workers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/reconciler"
	"github.com/writhq/writ/workers"
)

// asked is a kind whose probe can soon say not done.
var asked = intent.Kind[args]{
	Name: "test.job.ask", Timeout: 600 * time.Millisecond, Settle: 200 * time.Millisecond, MaxAttempts: 2,
	Backoff: intent.Backoff{Min: time.Millisecond, Max: 20 * time.Millisecond},
}

// quick asks again soon.
var quick = workers.Probing{Timeout: 500 * time.Millisecond, Most: 3, Backoff: intent.Backoff{Min: 20 * time.Millisecond, Max: 50 * time.Millisecond}}

// lost is a handler that says nothing of certain, once; the second attempt is well.
func lost(_ context.Context, j *workers.Job[args]) error {
	if j.Epoch() == 1 {
		return errors.New("no answer came")
	}
	return nil
}

// always is a probe that says the same each time.
func always(f workers.Finding) workers.Probe[args] {
	return func(context.Context, *workers.Attempt[args]) (workers.Answer, error) {
		return workers.Answer{Finding: f, Why: "the ledger was asked", Evidence: map[string]any{"looked": true}}, nil
	}
}

// probed starts a worker with a probe.
func (b *bench) probed(do func(context.Context, *workers.Job[args]) error, probe workers.Probe[args]) (*workers.Pool, func()) {
	b.t.Helper()
	return b.work(b.db.URL, workers.Handler[args]{Do: do, Probe: probe, Probing: quick}, asked)
}

// verdict is the log's line of a probe's verdict.
type verdict struct {
	Event, Actor, Why string
	Evidence          struct {
		Probe   struct{ Looked bool }
		Finding string
		From    string
		To      string
	}
}

func (b *bench) verdict(id intent.ID) (v verdict) {
	b.t.Helper()
	entries, err := intent.Timeline(context.Background(), b.db, id)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range entries {
		if slices.Contains([]string{"happened", "retry", "give-up"}, e.Event) {
			v.Event, v.Actor, v.Why = e.Event, e.Actor, e.Why
			if err := json.Unmarshal(e.Evidence, &v.Evidence); err != nil {
				b.t.Fatal(err)
			}
			return v
		}
	}
	b.t.Fatalf("no verdict on %s: %v", id, b.events(id))
	return v
}

// awaitPerson waits until the probe is not asked any more, and the flag stands.
func (b *bench) awaitPerson(id intent.ID) {
	b.t.Helper()
	testkit.Until(b.t, 20*time.Second, "only a person is left", func() (bool, string) {
		left := testkit.Value[bool](b.t, b.db, "SELECT flagged_at IS NOT NULL AND state = 'sending' AND probe_at IS NULL FROM writ.intents WHERE id = $1", id)
		return left, fmt.Sprint(b.events(id))
	})
}

func (b *bench) why(id intent.ID) string {
	b.t.Helper()
	line, err := intent.Why(context.Background(), b.db, id)
	if err != nil {
		b.t.Fatal(err)
	}
	return line
}

func TestProbe_done(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var got atomic.Pointer[workers.Attempt[args]]
	b.probed(lost, func(ctx context.Context, a *workers.Attempt[args]) (workers.Answer, error) {
		got.Store(a)
		return always(workers.WasDone)(ctx, a)
	})
	id := b.create(asked, 7)
	row := b.await(id, "sent")
	if row.Epoch != 2 || row.Attempt != 1 || row.FlaggedAt != nil {
		t.Errorf("epoch %d, attempt %d, flagged %v; want 2, 1 and no flag", row.Epoch, row.Attempt, row.FlaggedAt)
	}
	want := verdict{Event: "happened", Actor: "probe", Why: "the ledger was asked"}
	want.Evidence.Probe.Looked, want.Evidence.Finding, want.Evidence.From, want.Evidence.To = true, "done", "sending", "sent"
	if diff := cmp.Diff(want, b.verdict(id)); diff != "" {
		t.Errorf("verdict (-want +got):\n%s", diff)
	}
	a := got.Load()
	if a.Args.N != 7 || a.ID != id || a.Kind != asked.Name || a.Epoch != 1 || a.Attempt != 1 || a.Key != id.String() || a.Reason != "unknown" ||
		a.Error != "no answer came" || !a.StartedAt.Before(a.DeadlineAt) || a.SettledAt.Sub(a.DeadlineAt) != asked.Settle || a.FlaggedAt.IsZero() {
		t.Errorf("the probe got %+v", a)
	}
	if line := b.why(id); !strings.Contains(line, "probe said") || !strings.Contains(line, "the ledger was asked") {
		t.Errorf("why says %q", line)
	}
}

// TestProbe_notDone: before deadline + settle it is not believed, nor counted; after that the attempt is repeated, and the
// attempts are not counted anew; and when they are spent it ends in error, with its recovery function run.
func TestProbe_notDone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.db.Run(t, "CREATE TABLE failures (id uuid)")
	var asks tally
	b.work(b.db.URL, workers.Handler[args]{
		Do: func(_ context.Context, j *workers.Job[args]) error {
			if j.Args.N == 1 && j.Attempt() == 2 {
				return nil
			}
			return errors.New("no answer came")
		},
		Probe: func(ctx context.Context, a *workers.Attempt[args]) (workers.Answer, error) {
			asks.add(a.Args.N)
			return always(workers.WasNotDone)(ctx, a)
		},
		Probing: quick,
		OnError: func(ctx context.Context, tx pgx.Tx, j *workers.Job[args], _ error) error {
			_, err := tx.Exec(ctx, "INSERT INTO failures VALUES ($1)", j.ID())
			return err
		},
	}, asked)
	once, never := b.create(asked, 1), b.create(asked, 2)
	if row := b.await(once, "sent"); row.Attempt != 2 || row.Epoch != 3 {
		t.Errorf("attempt %d at epoch %d; want 2 and 3", row.Attempt, row.Epoch)
	}
	row := b.await(never, "error")
	if row.Attempt != 2 || row.Error == nil || !strings.Contains(*row.Error, "not done, says its probe") {
		t.Errorf("attempt %d, error %v; want 2, and what the probe said", row.Attempt, row.Error)
	}
	settled := testkit.Value[bool](t, b.db, `SELECT bool_and(l.at > (l.evidence ->> 'asked_at')::timestamptz
			AND (l.evidence ->> 'asked_at')::timestamptz > (f.evidence ->> 'started_at')::timestamptz + $1::interval)
		FROM writ.log l JOIN writ.log f ON f.intent_id = l.intent_id AND f.epoch = l.epoch AND f.event = 'flagged' WHERE l.event IN ('retry', 'give-up')`,
		asked.Timeout+asked.Settle)
	if !settled {
		t.Error("a probe that began before deadline + settle was believed that it was not done")
	}
	if n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.log WHERE event = 'probed' AND evidence ->> 'result' = 'early' AND (evidence ->> 'probes')::int = 0"); n < 2 {
		t.Errorf("%d early answers that were not counted; want one for each attempt at least", n)
	}
	testkit.Until(t, 10*time.Second, "recovered", func() (bool, string) {
		e := b.events(never)
		return e[len(e)-1] == "recovered", fmt.Sprint(e)
	})
	if n := testkit.Value[int](t, b.db, "SELECT count(*) FROM failures WHERE id = $1", never); n != 1 {
		t.Errorf("the recovery function ran %d times", n)
	}
	if n := asks.of(1); n > 10 {
		t.Errorf("the probe was asked %d times for one attempt", n)
	}
}

// TestProbe_neverTells: unknown for ever, an error, a panic, an ended goroutine, evidence that cannot be kept, a hang that
// ignores its context: a bounded number of askings, then a person; nothing spins, and the flag stays.
func TestProbe_neverTells(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	letGo := sync.OnceFunc(func() { close(release) })
	tests := map[string]struct {
		probe workers.Probe[args]
		says  string
	}{
		"unknown": {always(workers.CannotTell), "the ledger was asked"},
		"error": {func(context.Context, *workers.Attempt[args]) (workers.Answer, error) {
			return workers.Answer{}, errors.New("boom")
		}, "boom"},
		"panic": {func(context.Context, *workers.Attempt[args]) (workers.Answer, error) { panic("ouch") }, "panic: ouch"},
		"goexit": {func(context.Context, *workers.Attempt[args]) (workers.Answer, error) {
			runtime.Goexit()
			return workers.Answer{}, nil
		}, "goroutine"},
		"out of range": {always(workers.Finding(7)), "the ledger was asked"},
		"NUL": {func(context.Context, *workers.Attempt[args]) (workers.Answer, error) {
			return workers.Answer{Why: "a\x00b", Evidence: "a\x00b"}, nil
		}, "a\uFFFDb"},
		"not JSON": {func(context.Context, *workers.Attempt[args]) (workers.Answer, error) {
			return workers.Answer{Why: "who knows", Evidence: func() {}}, nil
		}, "who knows"},
		// It answers, and truly, but too late for anybody to use it.
		"hangs, then answers": {func(context.Context, *workers.Attempt[args]) (workers.Answer, error) {
			<-release
			return workers.Answer{Finding: workers.WasDone}, nil
		}, "did not answer within"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			var asks atomic.Int32
			b.probed(lost, func(ctx context.Context, a *workers.Attempt[args]) (workers.Answer, error) {
				asks.Add(1)
				return tt.probe(ctx, a)
			})
			id := b.create(asked, 1)
			b.awaitPerson(id)
			if strings.HasPrefix(name, "hangs") {
				t.Cleanup(letGo) // before its worker is stopped
			}
			if row := b.await(id, "ambiguous"); row.Epoch != 1 {
				t.Errorf("epoch %d; want 1", row.Epoch)
			}
			n := asks.Load()
			if counted := testkit.Value[int](t, b.db, "SELECT probes FROM writ.intents WHERE id = $1", id); counted != 3 || n < 3 || n > 6 {
				t.Errorf("asked %d times, %d counted; want 3 counted, and few more", n, counted)
			}
			if line := b.why(id); !strings.Contains(line, "asked 3 times and could not tell; it said: ") || !strings.Contains(line, tt.says) {
				t.Errorf("why says %q", line)
			}
			// Nobody asks again by himself, whatever the reconciler finds.
			r, err := reconciler.New(b.db.Pool, reconciler.Config{Log: testkit.Log(t)})
			if err != nil {
				t.Fatal(err)
			}
			if report, err := r.Once(context.Background()); err != nil || report.Probed != 0 {
				t.Errorf("the reconciler has it asked again: %+v, %v", report, err)
			}
			if _, err := intent.Happened(context.Background(), b.db, intent.Verdict{ID: id, Seen: b.await(id, "ambiguous").Position(), Actor: "ann", Why: "the ledger has it"}); err != nil {
				t.Errorf("a person's decision: %v", err)
			}
		})
	}
}

// TestProbe_hanging: probes that ignore their contexts keep their places and no more; handlers go on, so do other kinds'
// probes, and nothing piles up however many hints come.
func TestProbe_hanging(t *testing.T) {
	t.Parallel()
	b := setup(t)
	release := make(chan struct{})
	var running, most atomic.Int32
	other := asked
	other.Name = "test.job.other"
	mux := workers.NewMux()
	workers.Handle(mux, asked, workers.Handler[args]{Do: lost, Probing: quick, Probe: func(context.Context, *workers.Attempt[args]) (workers.Answer, error) {
		n := running.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-release
		running.Add(-1)
		return workers.Answer{Finding: workers.WasDone}, nil
	}})
	workers.Handle(mux, other, workers.Handler[args]{Do: lost, Probing: quick, Probe: always(workers.WasDone)})
	w, err := workers.New(b.db.Pool, testkit.AMQPURL(t), mux, workers.Config{
		Slots: 2, Heartbeat: 50 * time.Millisecond, TTL: time.Second, Log: testkit.Log(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.run(w.Run)
	defer close(release)
	var ids []intent.ID
	for n := range 20 {
		ids = append(ids, b.create(asked, n))
	}
	for _, id := range ids {
		b.await(id, "ambiguous")
	}
	testkit.Until(t, 10*time.Second, "all places hang", func() (bool, string) { n := running.Load(); return n == 4, fmt.Sprint(n) })
	for range 10 {
		b.db.Run(t, "INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) SELECT now(), kind, id, epoch, 'probe' FROM writ.intents WHERE state = 'sending'")
	}
	b.await(b.create(other, 1), "sent")
	if n := most.Load(); n != 4 {
		t.Errorf("%d probes ran at once; want 4 at most", n)
	}
}

// TestProbe_hangingElsewhere: what waits in a process whose probes all hang is asked about by another.
func TestProbe_hangingElsewhere(t *testing.T) {
	t.Parallel()
	b := setup(t)
	release := make(chan struct{})
	single := quick
	single.Slots = 1
	b.work(b.db.URL, workers.Handler[args]{Do: lost, Probing: single, Probe: func(context.Context, *workers.Attempt[args]) (workers.Answer, error) {
		<-release
		return workers.Answer{}, nil
	}}, asked)
	var ids []intent.ID
	for n := range 8 {
		ids = append(ids, b.create(asked, n))
	}
	for _, id := range ids {
		b.await(id, "ambiguous")
	}
	defer close(release)
	b.probed(lost, always(workers.WasDone))
	left := func() (n int) {
		return testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.intents WHERE state <> 'sent'")
	}
	testkit.Until(t, 100*time.Second, "all but the one that hangs are settled", func() (bool, string) { n := left(); return n <= 1, fmt.Sprint(n) })
}

// TestProbe_slots: handlers in all slots keep no probe waiting for long.
func TestProbe_slots(t *testing.T) {
	t.Parallel()
	b := setup(t)
	release := make(chan struct{})
	slow := asked
	slow.Name, slow.Timeout = "test.job.slow", time.Minute
	b.work(b.db.URL, workers.Handler[args]{Probe: always(workers.WasDone), Probing: quick, Do: func(ctx context.Context, j *workers.Job[args]) error {
		if j.Args.N > 0 {
			<-release
			return nil
		}
		return lost(ctx, j)
	}}, slow)
	defer close(release)
	for range 10 {
		b.create(slow, 1)
	}
	testkit.Until(t, 10*time.Second, "all slots are taken", func() (bool, string) {
		n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.intents WHERE state = 'sending'")
		return n == 10, fmt.Sprint(n)
	})
	id := b.orphan(slow)
	b.await(id, "sent")
}

// orphan makes an attempt whose worker died a while ago, and has the reconciler find it.
func (b *bench) orphan(k intent.Kind[args]) intent.ID {
	b.t.Helper()
	ctx := context.Background()
	id, dead := intent.NewID(), intent.NewID()
	b.db.Run(b.t, "INSERT INTO writ.workers (id, host, pid, version, kinds, slots, ttl) VALUES ($1, 'h', 1, '', '{}', 1, '1 s')", dead)
	b.db.Run(b.t, `INSERT INTO writ.intents (id, tid, kind, event, args) VALUES ($1, $1, $2, 'requested', '{"n": 0}')`, id, k.Name)
	got, err := store.New(b.db.Pool).Claim(ctx, dead, []store.Group{{Timeout: k.Timeout, IDs: []intent.ID{id}}})
	if err != nil || len(got) != 1 {
		b.t.Fatalf("claimed %d: %v", len(got), err)
	}
	b.db.Run(b.t, "DELETE FROM writ.workers WHERE id = $1", dead)
	r, err := reconciler.New(b.db.Pool, reconciler.Config{Log: testkit.Log(b.t), WorkerTTL: time.Second, RequeueAfter: time.Hour})
	if err != nil {
		b.t.Fatal(err)
	}
	testkit.Until(b.t, 20*time.Second, "flagged", func() (bool, string) { // on a busy machine its own look may be late
		report, err := r.Once(ctx)
		return report.Flagged == 1, fmt.Sprint(report, err)
	})
	return id
}

// TestProbe_deadWorker: what a dead worker held is asked about as soon as it is flagged, in another worker.
func TestProbe_deadWorker(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.probed(lost, always(workers.WasNotDone))
	b.await(b.create(job, 1), "ready") // no worker has this kind: the one that has asked goes on
	testkit.Until(t, 10*time.Second, "declared", func() (bool, string) {
		n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.kinds WHERE name = $1 AND class = 'probed' AND max_probes = 3", asked.Name)
		return n == 1, fmt.Sprint(n)
	})
	id := b.orphan(asked)
	if row := b.await(id, "sent"); row.Attempt != 2 || row.Epoch != 3 {
		t.Errorf("attempt %d at epoch %d; want 2 and 3: asked, not done, run again", row.Attempt, row.Epoch)
	}
	if v := b.verdict(id); v.Event != "retry" || v.Actor != "probe" {
		t.Errorf("verdict %s by %s", v.Event, v.Actor)
	}
}

// TestProbe_held: not done is no verdict while the worker lives whose handler has not returned: it may do it yet.
func TestProbe_held(t *testing.T) {
	t.Parallel()
	b := setup(t)
	release := make(chan struct{})
	b.probed(func(_ context.Context, j *workers.Job[args]) error {
		if j.Epoch() == 1 {
			<-release // past its deadline
		}
		return nil
	}, always(workers.WasNotDone))
	id := b.create(asked, 1)
	testkit.Until(t, 20*time.Second, "the probe was not believed", func() (bool, string) {
		n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.log WHERE intent_id = $1 AND event = 'probed' AND evidence ->> 'result' = 'held'", id)
		return n > 0, fmt.Sprint(b.events(id))
	})
	if row := b.await(id, "ambiguous"); row.Epoch != 1 {
		t.Errorf("epoch %d; want 1", row.Epoch)
	}
	close(release)
	if row := b.await(id, "sent"); row.Epoch != 1 {
		t.Errorf("sent at epoch %d; want 1: its own word counts", row.Epoch)
	}
}

// TestProbe_hints: lost and doubled hints, hints of other epochs, and a worker that died in the middle of its asking.
func TestProbe_hints(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var asks atomic.Int32
	entered, release := make(chan struct{}, 100), make(chan struct{})
	probe := func(ctx context.Context, a *workers.Attempt[args]) (workers.Answer, error) {
		asks.Add(1)
		entered <- struct{}{}
		<-release
		return always(workers.WasDone)(ctx, a)
	}
	_, stop := b.probed(lost, probe)
	b.await(b.create(asked, 1), "ambiguous")
	<-entered
	id := testkit.Value[intent.ID](t, b.db, "SELECT id FROM writ.intents")
	for range 20 {
		b.db.Run(t, "INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) SELECT now(), $1, $2, e, 'probe' FROM generate_series(0, 2) e", asked.Name, id)
	}
	testkit.Until(t, 10*time.Second, "the hints are gone", func() (bool, string) {
		n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.outbox")
		return n == 0, fmt.Sprint(n)
	})
	b.await(b.create(asked, 2), "ambiguous") // its hint goes through the queue behind theirs
	<-entered
	if n := asks.Load(); n != 2 {
		t.Errorf("asked %d times for two attempts", n)
	}
	close(release)
	b.await(id, "sent")
	stop()

	// All hints of a third are lost, and with them the worker that had taken one.
	lostID := b.flagged()
	b.probed(lost, always(workers.WasDone))
	if n := b.reconcile(); n != 1 {
		t.Fatalf("%d probes are asked again; want 1", n)
	}
	b.await(lostID, "sent")
}

// TestProbe_lostAnswers: the connection is cut before a probe's answer is sent, or after it was committed and before that
// was heard. The verdict counts once, and what was not found is counted once.
func TestProbe_lostAnswers(t *testing.T) {
	t.Parallel()
	faults := map[string]func(*testkit.Proxy) <-chan struct{}{
		"before": func(p *testkit.Proxy) <-chan struct{} { return p.CutBefore("writ.probed") },
		"answer": func(p *testkit.Proxy) <-chan struct{} { return p.LoseAnswer("writ.probed") },
	}
	for name, fault := range faults {
		for _, finding := range []workers.Finding{workers.WasDone, workers.WasNotDone, workers.CannotTell} {
			t.Run(name+"/"+finding.String(), func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				var fired <-chan struct{}
				armed := make(chan struct{})
				var proxy *testkit.Proxy
				settled := func(a *workers.Attempt[args]) bool {
					return testkit.Value[bool](t, b.db, "SELECT clock_timestamp() > $1", a.SettledAt)
				}
				proxy = b.faulty(workers.Handler[args]{Do: lost, Probing: quick, Probe: func(ctx context.Context, a *workers.Attempt[args]) (workers.Answer, error) {
					if finding == workers.WasDone || settled(a) {
						select {
						case <-armed:
						default:
							fired = fault(proxy)
							close(armed)
						}
					}
					return always(finding)(ctx, a)
				}}, asked)
				id := b.create(asked, 1)
				select {
				case <-armed:
				case <-time.After(20 * time.Second):
					t.Fatal("the probe was never asked")
				}
				select {
				case <-fired:
				case <-time.After(20 * time.Second):
					t.Fatal("the fault was never met")
				}
				if finding == workers.CannotTell {
					b.awaitPerson(id)
					counted := "FROM writ.log WHERE event = 'probed' AND evidence ->> 'result' IN ('again', 'person')"
					if n := testkit.Value[int](t, b.db, "SELECT count(*) "+counted); n != 3 {
						t.Errorf("%d answers were counted; want 3", n)
					}
					if n := testkit.Value[int](t, b.db, "SELECT count(DISTINCT evidence -> 'asking') "+counted); n != 3 {
						t.Errorf("answers to %d askings were counted; want 3: one of them was counted twice", n)
					}
					return
				}
				b.await(id, "sent")
				want := map[workers.Finding]int{workers.WasDone: 2, workers.WasNotDone: 3}[finding]
				row := b.await(id, "sent")
				verdicts := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.log WHERE actor = 'probe' AND event IN ('happened', 'retry')")
				if int(row.Epoch) != want || verdicts != 1 {
					t.Errorf("epoch %d, %d verdicts; want %d and 1", row.Epoch, verdicts, want)
				}
				if n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.log WHERE event = 'late-report'"); n != 0 {
					t.Errorf("%d late reports of its own verdict", n)
				}
			})
		}
	}
}

// TestProbe_person: a person decides while the probe is out. The probe's answer loses, cleanly; if it says otherwise it is
// kept beside the verdict, and why tells.
func TestProbe_person(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		finding workers.Finding
		decide  func(context.Context, intent.DB, intent.Verdict) (intent.Position, error)
		status  string
		late    string // meaning of the late report; empty: none
	}{
		"both say done":              {workers.WasDone, intent.Happened, "sent", "confirms"},
		"given up, though done":      {workers.WasDone, intent.GiveUp, "error", "contradicts"},
		"cannot tell after happened": {workers.CannotTell, intent.Happened, "sent", ""},
		"too early to contradict":    {workers.WasNotDone, intent.Happened, "sent", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			entered, release := make(chan struct{}, 10), make(chan struct{})
			_, stop := b.probed(lost, func(ctx context.Context, a *workers.Attempt[args]) (workers.Answer, error) {
				entered <- struct{}{}
				<-release
				return always(tt.finding)(ctx, a)
			})
			id := b.create(asked, 1)
			<-entered
			seen := b.await(id, "ambiguous")
			if _, err := tt.decide(context.Background(), b.db, intent.Verdict{ID: id, Seen: seen.Position(), Actor: "ann", Why: "she has looked outside"}); err != nil {
				t.Fatal(err)
			}
			close(release)
			if tt.late != "" {
				testkit.Until(t, 10*time.Second, "a late report", func() (bool, string) {
					e := b.events(id)
					return slices.Contains(e, "late-report"), fmt.Sprint(e)
				})
			}
			stop() // all is written
			row := b.await(id, tt.status)
			if row.Epoch != seen.Epoch+1 {
				t.Errorf("epoch %d; want %d: one verdict", row.Epoch, seen.Epoch+1)
			}
			meanings := testkit.Value[string](t, b.db, "SELECT coalesce(string_agg(evidence ->> 'meaning', ' '), '') FROM writ.log WHERE event = 'late-report'")
			if meanings != tt.late {
				t.Errorf("late reports %q; want %q", meanings, tt.late)
			}
			told := map[string]string{"": "", "confirms": "a late report of its probe confirmed the verdict", "contradicts": "a late report of its probe CONTRADICTED the verdict"}[tt.late]
			if line := b.why(id); !strings.Contains(line, told) {
				t.Errorf("why says %q; want %q in it", line, told)
			}
		})
	}
}

// TestProbe_lies: the documented residual risk and nothing more. A probe that says not done of what was done has it done
// again, once; one that says done of what was not has it never done. Both are on record.
func TestProbe_lies(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var effects tally
	b.probed(func(ctx context.Context, j *workers.Job[args]) error {
		effects.add(j.Args.N)
		return lost(ctx, j)
	}, always(workers.WasNotDone))
	id := b.create(asked, 1)
	b.await(id, "sent")
	if n := effects.of(1); n != 2 {
		t.Errorf("done %d times; want 2, on the word of the probe", n)
	}
	if v := b.verdict(id); v.Event != "retry" || v.Actor != "probe" || !v.Evidence.Probe.Looked {
		t.Errorf("on record is %+v", v)
	}
}

// TestProbe_paused: nobody is asked about a kind that a person paused, nor on a closed installation; afterwards it goes on.
func TestProbe_paused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var asks atomic.Int32
	b.probed(lost, func(ctx context.Context, a *workers.Attempt[args]) (workers.Answer, error) {
		asks.Add(1)
		return always(workers.WasDone)(ctx, a)
	})
	b.await(b.create(asked, 1), "sent") // it is up
	pause := "UPDATE writ.kinds SET paused_at = now(), paused_by = 'ann', paused_why = 'the provider is down'"
	resume := "UPDATE writ.kinds SET paused_at = NULL"
	for _, of := range []struct{ pause, resume string }{
		{pause, resume},
		{"UPDATE writ.settings SET paused_at = now(), paused_why = 'the provider is down'", "UPDATE writ.settings SET paused_at = NULL"},
	} {
		before := asks.Load()
		id := b.flagged()
		b.db.Run(t, of.pause)
		if n := b.reconcile(); n != 0 {
			t.Errorf("%d probes are asked of what is paused", n)
		}
		if of.pause != pause { // a worker knows of a paused kind; of a closed installation the statement does
			a, err := store.New(b.db.Pool).TakeProbe(context.Background(), store.Hint{ID: id, Epoch: 1, Kind: asked.Name}, time.Second)
			if a != nil || err != nil {
				t.Errorf("an asking was taken on a closed installation: %v, %v", a, err)
			}
		}
		if n := asks.Load(); n != before {
			t.Errorf("asked %d times of what is paused", n-before)
		}
		b.db.Run(t, of.resume)
		if n := b.reconcile(); n != 1 {
			t.Errorf("%d probes are asked after it was resumed; want 1", n)
		}
		b.await(id, "sent")
	}
}

// flagged makes a flagged attempt of a dead worker whose hint is lost.
func (b *bench) flagged() intent.ID {
	b.t.Helper()
	id := intent.NewID()
	b.db.Run(b.t, `INSERT INTO writ.intents (id, tid, kind, event, args) VALUES ($1, $1, $2, 'requested', '{"n": 3}')`, id, asked.Name)
	b.db.Run(b.t, "UPDATE writ.intents SET event = 'attempted', state = 'sending', epoch = 1, attempt = 1, started_at = now(), deadline_at = now() WHERE id = $1", id)
	b.db.Run(b.t, "UPDATE writ.intents SET flagged_at = now(), flag_reason = 'worker-died', probe_at = now() - interval '15 s' WHERE id = $1", id)
	return id
}

// reconcile looks once and returns how many probes are asked again.
func (b *bench) reconcile() int {
	b.t.Helper()
	r, err := reconciler.New(b.db.Pool, reconciler.Config{Log: testkit.Log(b.t)})
	if err != nil {
		b.t.Fatal(err)
	}
	report, err := r.Once(context.Background())
	if err != nil {
		b.t.Fatal(err)
	}
	return report.Probed
}

// TestProbing: faults of the declaration are reported by New, all at once.
func TestProbing(t *testing.T) {
	t.Parallel()
	mux := workers.NewMux()
	workers.Handle(mux, asked, workers.Handler[args]{Do: lost, Probe: always(workers.CannotTell), Probing: workers.Probing{
		Timeout: time.Nanosecond, Most: -1, Slots: -1, Backoff: intent.Backoff{Factor: 0.5},
	}})
	b := testkit.Database(t)
	_, err := workers.New(b.Pool, "amqp://127.0.0.1:1", mux, workers.Config{})
	for _, field := range []string{"Timeout", "Most", "Slots", "Backoff"} {
		if err == nil || !strings.Contains(err.Error(), "Probing."+field) {
			t.Errorf("the error does not name %s: %v", field, err)
		}
	}
}
