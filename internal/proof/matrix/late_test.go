package matrix

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

// thawing brings it so far: a worker's machine has been frozen, with the effect behind it; the worker was taken for dead, and
// its row was flagged. When it thaws it says that it is done.
func thawing(w *world) (p *process, id intent.ID) {
	w.t.Helper()
	w.start(relay, w.straight)
	w.start(reconciles, w.straight)
	p = w.spawn(worker, w.faulty, order{})
	w.endInOrder(p)
	id = w.create(manual, hold)
	w.awaitEffect(id, 1)
	p.freeze()
	w.awaitStatus(id, "ambiguous")
	w.ledger.release()
	return p, id
}

// tooLate: a person decides while the worker is frozen. Its outcome comes after that, and breaks while it is kept as a late
// report: it never changes the row, and is told once beside the verdict, if its worker lives to tell it.
func tooLate(m moment, verb, meaning string) scenario {
	return func(t *testing.T, w *world) {
		p, id := thawing(w)
		w.mustDo(order{ID: id, Verb: verb, Seen: w.get(id).Position()})
		fired := w.pg.On(m.rule(reports, p.kill))
		p.thaw()
		w.met(fired)
		want := verbs[verb].after
		if !m.kills || m.applied {
			want.log, want.late = append(slices.Clone(want.log), "late-report"), meaning
			w.awaitLate(id)
		}
		w.again(worker, m)
		w.restsAt(id, want)
	}
}

// awaitLate waits for a late report.
func (w *world) awaitLate(id intent.ID) {
	w.t.Helper()
	testkit.Until(w.t, soon, "a late report", func() (bool, string) {
		e := w.events(id)
		return slices.Contains(e, "late-report"), fmt.Sprint(e)
	})
}

// inBetween: a person gives up at the very moment at which the worker's outcome is with the server, and its connection breaks.
// Whichever is committed first counts; the other one is a late report, or a refused verdict.
func inBetween(m moment) scenario {
	return func(t *testing.T, w *world) {
		p, id := thawing(w)
		o := order{ID: id, Verb: "give-up", Seen: w.get(id).Position()}
		verdict := make(chan error, 1)
		m.meanwhile = func() { w.overtake(m, sends, "writ.give_up", func() { verdict <- w.do(o) }) }
		m.nth = 2 // somebody has the row locked, so it is left out of the batch and written singly, which may take longer
		fired := w.pg.On(m.rule(sends, p.kill))
		release := w.lock(id)
		p.thaw()
		w.awaitBackend(sends, "wait_event_type = 'Lock'")
		release()
		w.met(fired)
		if err := <-verdict; m.applied != errors.Is(err, intent.ErrConflict) || !m.applied && err != nil {
			t.Errorf("the verdict: %v; the outcome was applied before it: %t", err, m.applied)
		}
		want := end{status: "sent", starts: 1, effects: 1, log: []string{"flagged", "succeeded"}}
		if !m.applied {
			want = verbs["give-up"].after
		}
		if !m.applied && !m.kills {
			want.log, want.late = append(slices.Clone(want.log), "late-report"), "contradicts"
			w.awaitLate(id)
		}
		w.again(worker, m)
		w.restsAt(id, want)
	}
}

// lock holds an intent's row until release.
func (w *world) lock(id intent.ID) (release func()) {
	w.t.Helper()
	ctx := context.Background()
	tx, err := w.db.Begin(ctx)
	if err == nil {
		_, err = tx.Exec(ctx, "SELECT FROM writ.intents WHERE id = $1 FOR UPDATE", id)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(ctx); err != nil {
			w.t.Error(err)
		}
	}
}
