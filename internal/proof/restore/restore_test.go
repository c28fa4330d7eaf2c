package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

var word = intent.Word{Actor: "ann", Why: "db1 restored to noon (INC-431)"}

// cast is who is where when the point is made that the server will go back to.
type cast struct {
	sent, errors, unknown, later           []intent.ID // settled, or not due
	queued, repeated, untouched            []intent.ID // pending and due
	running, returning, zombies, lateGhost []intent.ID // being sent
	lost                                   []intent.ID // created after the point
}

// TestRestore is the runbook, After a restore. Between the point and the loss all sorts of things happen that the
// restored database does not know: what was pending is done, what was being done is finished, persons decide, intents are
// created. The old workers even outlive the loss, with jobs in their hands.
func TestRestore(t *testing.T) {
	t.Parallel()
	t.Run("settled by persons", func(t *testing.T) {
		t.Parallel()
		var c cast
		w := newWorld(t, persons)
		held := w.lostAndAdopted(&c)
		w.tooEarly(c.queued[0])
		w.open("zombie") // what the old workers have in their hands is done now, and is too late to count
		w.reported(slices.Concat(c.zombies, c.lateGhost))
		happened, retried := w.settle(word)
		t.Logf("%d held: %d had happened, %d had not", len(held), happened-len(c.errors), retried)
		w.rest(&c, held)
	})
	t.Run("settled by probes", func(t *testing.T) {
		t.Parallel()
		var c cast
		w := newWorld(t, probes)
		held := w.lostAndAdopted(&c)
		w.tooEarly(c.queued[0])
		w.open(answering)
		w.open("zombie")
		w.reported(slices.Concat(c.zombies, c.lateGhost))
		w.all("sent", held...) // by themselves: nobody decides anything
		w.probed(held, c.untouched)
		w.all("error", c.errors...) // nobody is asked about what is known, as far as this database knows it: a person looks
		if happened, retried := w.settle(word); happened != len(c.errors) || retried != 0 {
			t.Errorf("a person found %d done and %d not; want the %d errors done, and nothing else left", happened, retried, len(c.errors))
		}
		w.rest(&c, held)
	})
}

// lostAndAdopted works on, loses the server, goes back to the point, puts what may have been run into quarantine and adopts
// the database. It returns what the quarantine holds. New workers run then, beside those that are left.
func (w *world) lostAndAdopted(c *cast) (held []intent.ID) {
	t, ctx := w.t, context.Background()
	t.Helper()
	if err := w.stack.BackUpPostgres(ctx); err != nil {
		t.Fatal(err)
	}
	w.db.Reset()
	w.run(w.db, post, crawl, repeat)
	// Its workers have not been deployed yet, or are gone: so it waits. Nobody knows that it has a probe.
	w.db.Run(t, "INSERT INTO writ.kinds (name, queue, class, timeout, settle) VALUES ($1, $1, 'manual', $2, $3)", fresh.Name, fresh.Timeout, fresh.Settle)
	since := w.beforeThePoint(c)
	w.afterThePoint(c)
	if err := w.stack.RestorePostgres(ctx, "noon"); err != nil {
		t.Fatal(err)
	}
	w.db.Reset()

	// It starts closed, by itself, and says why.
	settings, err := store.New(w.db.Pool).Settings(ctx)
	if err != nil || settings.Adopted || settings.Open {
		t.Fatalf("the restored database: %+v, %v; want it closed", settings, err)
	}
	w.open("ghost") // old workers report to it what they have done: it takes nothing before it is adopted, and holds these, too
	w.silent(2 * time.Second)
	q, err := intent.Quarantine(ctx, w.db, since, word, nil)
	held = slices.Concat(c.unknown, c.queued, c.untouched, c.running, c.returning, c.zombies, c.lateGhost)
	want := intent.Quarantined{Flagged: int64(len(held)), Fenced: int64(len(c.later) + len(c.repeated)), Errors: int64(len(c.errors))}
	if err != nil || q != want {
		t.Fatalf("quarantined %+v, %v; want %+v", q, err, want)
	}
	w.silent(time.Second)
	w.db.Run(t, "SELECT writ.adopt($1, $2)", word.Actor, word.Why)
	if err := intent.Resume(ctx, w.db, "", word); err != nil { // it was paused at the point
		t.Fatal(err)
	}
	w.run(w.db, post, crawl, repeat, fresh)
	return held
}

// probed holds that each of these was settled by its probe's word alone, with evidence, and these of them by a «not done».
func (w *world) probed(held, notDone []intent.ID) {
	w.t.Helper()
	const settled = `SELECT count(DISTINCT intent_id) FROM writ.log WHERE actor = 'probe' AND event = $2 AND why LIKE 'the ledger %' AND intent_id = ANY ($1)`
	if n := testkit.Value[int](w.t, w.db, settled, held, "happened"); n != len(held)-len(notDone) {
		w.t.Errorf("probes found %d done; want %d", n, len(held)-len(notDone))
	}
	if n := testkit.Value[int](w.t, w.db, settled, notDone, "retry"); n != len(notDone) {
		w.t.Errorf("probes found %d not done; want %d", n, len(notDone))
	}
	const decided = `SELECT count(*) FROM writ.log WHERE actor <> 'probe' AND event IN ('happened', 'retry', 'give-up', 'cancel') AND intent_id = ANY ($1)`
	if n := testkit.Value[int](w.t, w.db, decided, held); n != 0 {
		w.t.Errorf("%d of them were decided by somebody else", n)
	}
}

// rest waits until all that is due has come to its end, and holds that against the ledger.
func (w *world) rest(c *cast, held []intent.ID) {
	w.t.Helper()
	w.all("sent", slices.Concat(held, c.sent, c.errors, c.repeated)...)
	w.all("scheduled", c.later...)
	w.check(c, held)
}

// beforeThePoint brings the cast where the database will remember it.
func (w *world) beforeThePoint(c *cast) (point time.Time) {
	ctx := context.Background()
	c.sent = w.create(post, task{}, 40)
	c.errors = w.create(post, task{Answer: stopped}, 3)
	c.unknown = w.create(post, task{Answer: unknown}, 2)
	c.later = w.createAt(post, task{}, 3, time.Now().Add(time.Hour))
	c.running = w.create(crawl, task{Before: "release"}, 6)
	c.returning = w.create(crawl, task{After: "release"}, 4)
	c.zombies = w.create(crawl, task{Before: "zombie"}, 3)
	c.lateGhost = w.create(crawl, task{After: "ghost"}, 3)
	w.all("sent", c.sent...)
	w.all("error", c.errors...)
	w.all("ambiguous", c.unknown...)
	w.all("running", slices.Concat(c.running, c.returning, c.zombies, c.lateGhost)...)
	w.reached(slices.Concat(c.returning, c.lateGhost)...)
	// A pause keeps them pending: it counts from the next claim on.
	if err := intent.Pause(ctx, w.db, "", intent.Word{Actor: "bob", Why: "maintenance of the provider"}); err != nil {
		w.t.Fatal(err)
	}
	c.queued = w.create(post, task{}, 20)
	c.repeated = w.create(repeat, task{}, 5)
	c.untouched = w.create(fresh, task{}, 5)
	point = testkit.Value[time.Time](w.t, w.db, "SELECT clock_timestamp()")
	w.db.Run(w.t, "SELECT pg_create_restore_point('noon')")
	return point
}

// afterThePoint is what will be forgotten.
func (w *world) afterThePoint(c *cast) {
	ctx := context.Background()
	if err := intent.Resume(ctx, w.db, "", intent.Word{Actor: "bob", Why: "the provider is back"}); err != nil {
		w.t.Fatal(err)
	}
	w.open("release")
	w.open(mended)
	c.lost = w.create(post, task{}, 10)
	for _, id := range c.errors { // a person has them tried again, and they succeed
		i, err := intent.Get(ctx, w.db, id)
		if err != nil {
			w.t.Fatal(err)
		}
		if _, err := intent.Retry(ctx, w.db, intent.Verdict{ID: id, Seen: i.Position(), Actor: "bob", Why: "the mailbox is there now"}); err != nil {
			w.t.Fatal(err)
		}
	}
	w.all("sent", slices.Concat(c.queued, c.repeated, c.running, c.returning, c.lost, c.errors)...)
}

// tooEarly: while a worker that nobody remembers may still be at it, nothing is retried without an override.
func (w *world) tooEarly(id intent.ID) {
	w.t.Helper()
	i, err := intent.Get(context.Background(), w.db, id)
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = intent.Retry(context.Background(), w.db, intent.Verdict{ID: id, Seen: i.Position(), Actor: "ann", Why: "it must not pass"})
	if !errors.Is(err, intent.ErrNeedsOverride) {
		w.t.Errorf("retried at once: %v; want an override asked for", err)
	}
}

// reported waits until the old workers' outcomes are in the log, as late reports.
func (w *world) reported(ids []intent.ID) {
	w.t.Helper()
	testkit.Until(w.t, soon, "the late reports are in", func() (bool, string) {
		n := testkit.Value[int](w.t, w.db, "SELECT count(DISTINCT intent_id) FROM writ.log WHERE event = 'late-report' AND intent_id = ANY ($1)", ids)
		return n == len(ids), fmt.Sprint(n)
	})
}

// check holds the end against the ledger: nothing was done twice that may not be, nothing that the database still knows
// of is undone, and each that was held says so in its log.
func (w *world) check(c *cast, held []intent.ID) {
	w.t.Helper()
	for _, id := range slices.Concat(held, c.sent, c.errors) {
		if n := w.happened(id); n != 1 {
			w.t.Errorf("%s was done %d times; want once", id, n)
		}
	}
	for _, id := range c.repeated {
		if n := w.happened(id); n != 2 {
			w.t.Errorf("idempotent %s was done %d times; want it run again", id, n)
		}
	}
	for _, id := range c.later {
		if n := w.happened(id); n != 0 {
			w.t.Errorf("%s was done %d times before its time", id, n)
		}
	}
	// What was created since is gone; the outside knows it by keys that the database does not.
	if n := testkit.Value[int](w.t, w.db, "SELECT count(*) FROM writ.intents WHERE id = ANY ($1)", c.lost); n != 0 {
		w.t.Errorf("%d intents of the lost time are there", n)
	}
	if n := testkit.Value[int](w.t, w.db, "SELECT count(*) FROM writ.log WHERE event = 'quarantined' AND intent_id = ANY ($1)", held); n != len(held) {
		w.t.Errorf("the log tells of %d of %d that were held", n, len(held))
	}
	testkit.Until(w.t, soon, "only what is due later waits", func() (bool, string) {
		n := testkit.Value[int](w.t, w.db, "SELECT count(*) FROM writ.outbox WHERE due_at < now() + interval '1 min'")
		return n == 0, fmt.Sprint(n, " in the outbox")
	})
	if n := testkit.Value[int](w.t, w.db, "SELECT count(*) FROM writ.outbox"); n != len(c.later) {
		w.t.Errorf("%d hints wait for their time; want %d", n, len(c.later))
	}
}
