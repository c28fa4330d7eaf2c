package matrix

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/proof/wire"
	"github.com/writhq/writ/internal/testkit"
)

// restored: the database goes back to an earlier point while its relay and its worker live and work on; that worker even has a job in
// its hands that was begun before the point. A person makes a quarantine, adopts the database, decides what they can
// while it is still closed, and opens it; then the old worker comes with its outcome. One of these transactions breaks, known by
// text, and whoever made it makes it again. Nothing is run that may have been run already, but what is idempotent.
func restored(m moment, text string) scenario {
	return func(t *testing.T, w *world) {
		r := &restoration{world: w, moment: m, text: text}
		old := w.straight
		if text == reports {
			old = w.faulty
		}
		if text == reports && m.kills {
			r.zombie = w.spawn(worker, old, order{})
		} else {
			w.start(worker, old)
		}
		r.untilThePoint()
		w.remember()
		relaying, _ := w.start(relay, w.straight)
		r.afterThePoint()
		w.goBack()
		if testkit.Value[bool](t, w.db, "SELECT writ.is_open() OR fingerprint = writ.fingerprint() FROM writ.settings") {
			t.Fatal("the restored database takes itself for the one that was adopted")
		}
		w.awaitCopy(relaying)
		r.take(order{Verb: quarantines}, nil)
		r.take(order{Verb: pauses}, nil) // so that nothing is set going by the adoption
		r.take(order{Verb: adopts}, nil)
		r.take(order{ID: r.done, Verb: "happened", Seen: w.get(r.done).Position()}, intent.ErrConflict)
		r.mayStillLand(r.undone)
		r.take(order{ID: r.undone, Verb: "retry", Seen: w.get(r.undone).Position()}, intent.ErrConflict)
		r.take(order{Verb: resumes}, intent.ErrIllegal)
		w.awaitStatus(r.repeated, "sent")
		w.awaitStatus(r.undone, "error")
		r.finish()
	}
}

// handedBack: a worker hands an intent back, is cut off, and does not hear that it was committed; another one does it; and the
// database goes back to when the first one held it, in a way that nothing shows, as with a snapshot of its machine: a person knows,
// and has paused it. The first one's word comes there, too, before the quarantine: now it is due only later, and yet it was done.
func handedBack(t *testing.T, w *world) {
	w.start(relay, w.straight)
	w.start(worker, w.faulty)
	id := w.create(manual, later)
	testkit.Until(t, soon, "its handler is at work", func() (bool, string) { return len(w.ledger.of(started, id)) == 1, "it is not" })
	w.remember()
	w.start(worker, w.straight)
	fired := w.pg.On(wire.Rule{At: answerLost.at(retries), Do: wire.Call(func() { w.pg.Refuse(); w.mq.Refuse() }, wire.Cut)})
	w.ledger.release()
	w.met(fired)
	w.awaitStatus(id, "sent")
	w.goBack()
	w.db.Run(t, "UPDATE writ.settings SET fingerprint = writ.fingerprint(), paused_at = now(), paused_by = 'ann', paused_why = 'the machine was put back'")
	w.pg.Accept()
	w.awaitStatus(id, "scheduled")
	w.mustDo(order{Verb: quarantines})
	w.mustDo(order{Verb: resumes})
	w.mq.Accept()
	w.mustDo(order{ID: id, Verb: "happened", Seen: w.get(id).Position()})
	w.restsAt(id, end{status: "sent", starts: 2, effects: 1, log: []string{"retried", "quarantined", "happened"}})
}

// awaitCopy waits until the relay knows that the database is another one.
func (w *world) awaitCopy(relaying part) {
	w.t.Helper()
	testkit.Until(w.t, soon, "the relay sees that it is a copy", func() (bool, string) {
		err := relaying.Ready()
		return err != nil && strings.Contains(err.Error(), "copy that nobody adopted"), fmt.Sprint(err)
	})
}

// restoration is the cast: what is in the hands of a worker at the point, and what waits then, to be done, to fail and to be repeated after
// it; and what is created only after it.
type restoration struct {
	*world
	moment moment
	text   string
	zombie *process // if it is to be killed

	busy, done, undone, repeated, gone intent.ID
	quarantines                        int
}

func (r *restoration) untilThePoint() {
	_, stop := r.start(relay, r.straight)
	r.busy = r.create(manual, hold)
	r.awaitEffect(r.busy, 1)
	stop() // so that the others wait
	r.done, r.undone, r.repeated = r.create(manual, done), r.create(manual, stopped), r.create(repeatable, done)
}

func (r *restoration) afterThePoint() {
	r.gone = r.create(manual, done)
	r.awaitStatus(r.done, "sent")
	r.awaitStatus(r.undone, "error")
	r.awaitStatus(r.repeated, "sent")
	r.awaitStatus(r.gone, "sent")
}

// take carries out an act of the person; if it is the one that is to break, twice. again is what they are told the second time
// if it had been applied.
func (r *restoration) take(o order, again error) {
	r.t.Helper()
	text := o.Verb
	if v, ok := verbs[o.Verb]; ok {
		text = v.text
	}
	if text == r.text {
		r.strikeOnce(decider, r.moment, text, o)
		if text == quarantines && r.moment.applied {
			r.quarantines++
		}
	}
	err := r.do(o)
	if text != r.text || !r.moment.applied {
		again = nil
	}
	if !errors.Is(err, again) {
		r.t.Errorf("%s: %v; want %v", o.Verb, err, again)
	}
	if text == quarantines {
		r.quarantines++
	}
}

// mayStillLand: somebody whom the database has forgotten may have begun it a moment ago, so it is not simply tried again.
func (r *restoration) mayStillLand(id intent.ID) {
	r.t.Helper()
	_, err := intent.Retry(context.Background(), r.db, intent.Verdict{ID: id, Seen: r.get(id).Position(), Actor: "ann", Why: "the ledger was looked at"})
	if !errors.Is(err, intent.ErrNeedsOverride) {
		r.t.Errorf("retried at once: %v; want an override asked for", err)
	}
}

// finish lets the worker of before come with its outcome, and checks how all ends.
func (r *restoration) finish() {
	r.t.Helper()
	told := true
	if r.text == reports {
		end := func() { r.zombie.kill() }
		fired := r.pg.On(r.moment.rule(reports, end))
		r.ledger.release()
		r.met(fired)
		r.again(worker, r.moment)
		told = !r.moment.kills || r.moment.applied
	}
	r.ledger.release()
	busy := end{status: "ambiguous", starts: 1, effects: 1, log: r.log("quarantined")}
	if told {
		busy.log, busy.late = append(busy.log, "late-report"), "neither"
		r.awaitLate(r.busy)
	}
	r.restAt(map[intent.ID]end{
		r.busy:     busy,
		r.done:     {status: "sent", starts: 1, effects: 1, log: r.log("quarantined", "happened")},
		r.undone:   {status: "error", starts: 2, log: r.log("quarantined", "retry", "failed")},
		r.repeated: {status: "sent", starts: 2, effects: 2, log: r.log("fenced")},
	})
	if n := testkit.Value[int](r.t, r.db, "SELECT count(*) FROM writ.intents WHERE id = $1", r.gone); n != 0 || len(r.ledger.of(effected, r.gone)) != 1 {
		r.t.Errorf("what was created after the point has %d rows, and %d effects", n, len(r.ledger.of(effected, r.gone)))
	}
}

// log is an intent's, where the first event comes with each quarantine.
func (r *restoration) log(event string, then ...string) (events []string) {
	for range r.quarantines {
		events = append(events, event)
	}
	return append(events, then...)
}

// remember copies the database as it is, for goBack. Whoever works on it is cut off for a moment.
func (w *world) remember() {
	w.t.Helper()
	w.shut(fmt.Sprintf("CREATE DATABASE %s_then TEMPLATE %[1]s", w.db.Name))
}

// goBack puts the copy in the database's place: under its name, with other contents, and another identity.
func (w *world) goBack() {
	w.t.Helper()
	w.shut(fmt.Sprintf("ALTER DATABASE %s RENAME TO %[1]s_lost", w.db.Name))
	w.server(fmt.Sprintf("ALTER DATABASE %s_then RENAME TO %[1]s", w.db.Name))
}

// shut runs a statement while nobody is in the database.
func (w *world) shut(statement string) {
	w.t.Helper()
	w.server("ALTER DATABASE " + w.db.Name + " ALLOW_CONNECTIONS false")
	w.server("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = $1", w.db.Name)
	w.db.Reset()
	w.server(statement)
	if !strings.Contains(statement, "RENAME") {
		w.server("ALTER DATABASE " + w.db.Name + " ALLOW_CONNECTIONS true")
	}
	w.t.Cleanup(func() {
		for _, name := range []string{w.db.Name + "_then", w.db.Name + "_lost"} {
			w.server("DROP DATABASE IF EXISTS " + name + " WITH (FORCE)")
		}
	})
}

// server runs a statement on the server, in another database than the world's.
func (w *world) server(statement string, args ...any) {
	w.t.Helper()
	conn, err := pgx.Connect(context.Background(), testkit.DatabaseURL(w.t))
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(context.Background(), statement, args...); err != nil {
		w.t.Fatalf("%s: %v", statement, err)
	}
}
