package reconciler_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/reconciler"
)

// daily is a schedule whose time was so long ago today.
func daily(ago time.Duration) string {
	at := time.Now().UTC().Add(-ago)
	return fmt.Sprintf("%d %d * * *", at.Minute(), at.Hour())
}

// done is when a duty was noted to have been done; zero: never.
func (b *bench) done(duty reconciler.Duty) time.Time {
	b.t.Helper()
	return testkit.Value[time.Time](b.t, b.db, "SELECT coalesce(max(done_at), '0001-01-01 00:00:00+00') FROM writ.duties WHERE name = $1", string(duty))
}

// TestTakeover_missed: a duty that came due while the lease was with a leader that had died is done soon after somebody takes
// over, not a period later; one that the dead leader had done is not done again, and neither is one that never came.
func TestTakeover_missed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		schedule string
		done     time.Duration // ago; 0: never
		want     bool
	}{
		{"at a time of day", daily(2 * time.Minute), 24*time.Hour + 2*time.Minute, true},
		{"at a time of day, done", daily(2 * time.Minute), time.Minute, false},
		{"at a time of day, never yet", daily(2 * time.Minute), 0, false},
		{"at an interval", "@every 24h", 25 * time.Hour, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.declare("test.old.job", "manual")
			b.finished("test.old.job", "sent", 5, 8*24*time.Hour)
			if tt.done > 0 {
				b.db.Run(t, "INSERT INTO writ.duties VALUES ('prune', now() - $1::interval)", tt.done)
			}
			// The dead leader, whose lease goes on for a while.
			b.db.Run(t, "INSERT INTO writ.leader VALUES ('reconciler', writ.uuid_v7(), clock_timestamp(), '2 s')")
			r, _ := b.run(b.db.Pool, reconciler.Config{
				Lease: 600 * time.Millisecond, Schedule: "@every 1s", Schedules: map[reconciler.Duty]string{reconciler.Prune: tt.schedule},
			})
			if tt.want {
				testkit.Until(t, 20*time.Second, "what was missed is done", func() (bool, string) { n := b.count("test.old.job"); return n == 0, fmt.Sprint(n) })
				testkit.Until(t, 20*time.Second, "that is noted", func() (bool, string) {
					at := b.done(reconciler.Prune)
					return time.Since(at) < time.Minute, at.String()
				})
				return
			}
			testkit.Until(t, 20*time.Second, "it leads, and has gone through its duties", func() (bool, string) {
				return r.Leading() && !b.done(reconciler.Sweep).IsZero() && !b.done(reconciler.Prune).IsZero(), ""
			})
			if n := b.count("test.old.job"); n != 5 {
				t.Errorf("%d of 5 are left, hours before the schedule", n)
			}
		})
	}
}

// TestTakeover_unfinished: a duty that a leader has begun and not ended is not noted as done, so it is its successor's.
func TestTakeover_unfinished(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare("test.old.job", "manual")
	b.db.Run(t, "INSERT INTO writ.duties VALUES ('prune', now() - interval '25 h')")
	b.finished("test.old.job", "sent", 2000, 8*24*time.Hour)
	cfg := reconciler.Config{Schedules: map[reconciler.Duty]string{reconciler.Prune: daily(time.Minute)}}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	first := cfg
	first.Log, first.OnAct = testkit.Log(t), func(reconciler.Act) { stop() } // it is told when the first 1,000 are gone
	r, err := reconciler.New(b.db.Pool, first)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if n := b.count("test.old.job"); n != 1000 {
		t.Fatalf("%d of 2,000 are left; want 1,000", n)
	}
	b.run(b.db.Pool, cfg)
	testkit.Until(t, 20*time.Second, "the rest is pruned", func() (bool, string) { n := b.count("test.old.job"); return n == 0, fmt.Sprint(n) })
}

// TestTakeover_clockAhead: a leader whose clock was years ahead does not keep its successors from their duties.
func TestTakeover_clockAhead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare("test.old.job", "manual")
	b.finished("test.old.job", "sent", 5, 8*24*time.Hour)
	b.db.Run(t, "INSERT INTO writ.duties VALUES ('prune', now() + interval '10 years')")
	b.run(b.db.Pool, reconciler.Config{Schedules: map[reconciler.Duty]string{reconciler.Prune: "@every 2s"}})
	testkit.Until(t, 20*time.Second, "old rows are pruned", func() (bool, string) { n := b.count("test.old.job"); return n == 0, fmt.Sprint(n) })
	b.db.Run(t, "UPDATE writ.duties SET done_at = now() + interval '10 years'")
	if done, err := store.New(b.db.Pool).DutiesDone(context.Background()); err != nil || done["prune"] != 0 {
		t.Errorf("done %v ago, %v; want 0: just now at the latest", done["prune"], err)
	}
	if err := store.New(b.db.Pool).DutyDone(context.Background(), "prune", time.Minute); err != nil {
		t.Fatal(err)
	}
	if at := b.done(reconciler.Prune); at.After(time.Now()) {
		t.Errorf("noted as done at %s, which is to come", at)
	}
}

// TestPaused_missed: what came due while everything was paused is done when work goes on.
func TestPaused_missed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.declare("test.old.job", "manual")
	b.finished("test.old.job", "sent", 5, 8*24*time.Hour)
	b.db.Run(t, "INSERT INTO writ.duties VALUES ('prune', now() - interval '25 h')")
	b.db.Run(t, "SELECT writ.pause('ann', 'maintenance of the provider')")
	r, _ := b.run(b.db.Pool, reconciler.Config{Schedules: map[reconciler.Duty]string{reconciler.Prune: daily(time.Minute)}})
	testkit.Until(t, 10*time.Second, "it leads", func() (bool, string) { return r.Leading(), "" })
	b.db.Run(t, "SELECT writ.resume('ann', 'the provider is back')")
	testkit.Until(t, 20*time.Second, "what was missed is done", func() (bool, string) { n := b.count("test.old.job"); return n == 0, fmt.Sprint(n) })
}

// TestWindows: beside more rows than a look goes through, the next looks come to the last one soon.
func TestWindows(t *testing.T) {
	t.Parallel()
	b := setup(t)
	// Of these the hints are late, not lost.
	b.db.Run(t, `INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) SELECT now(), $2, id, 0, 'run' FROM unnest($1::uuid[]) AS id`,
		b.insert(job.Name, 21_000, 3*time.Minute), job.Name)
	lost := b.insert(job.Name, 1, 2*time.Minute)[0]
	gone := b.worker(0)
	held := b.insert(job.Name, 1, 0)[0]
	b.claim(gone, held)
	b.db.Run(t, "DELETE FROM writ.workers WHERE id = $1", gone)

	r, err := reconciler.New(b.db.Pool, reconciler.Config{Log: testkit.Log(t), WorkerTTL: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	want := reconciler.Report{Requeued: 1, Flagged: 1}
	if got, err := r.Rehearse(context.Background()); err != nil || got != want {
		t.Errorf("rehearsed %+v, %v; want %+v", got, err, want)
	}
	b.run(b.db.Pool, reconciler.Config{WorkerTTL: time.Second})
	began := time.Now()
	testkit.Until(t, 30*time.Second, "the last ones are found", func() (bool, string) {
		n := b.hints(lost)
		return n == 1 && b.get(held).FlaggedAt != nil, fmt.Sprint(n, " hints")
	})
	// Five windows, and three of the sweep once the database was seen for long enough.
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestCopy: on a restore in another cluster, of which only the system identifier is another, nothing is done.
func TestCopy(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.scene()
	b.db.Run(t, "UPDATE writ.settings SET fingerprint = regexp_replace(fingerprint, '^[^/]+', '1')")
	before := b.contents()
	report := b.once()
	if report.Left != 4 { // of dead workers, and nobody's here
		t.Errorf("%d left; want 4", report.Left)
	}
	if report.Left = 0; report != (reconciler.Report{}) || b.contents() != before {
		t.Errorf("on a copy it did %+v", report)
	}
}
