package matrix

import (
	"fmt"
	"testing"

	"github.com/writhq/writ/internal/testkit"
)

// probing: a handler says that nobody knows, and the worker breaks at a transaction between that flag and the probe's
// verdict. There is one verdict, whoever asks.
func probing(m moment, text string) scenario {
	return func(t *testing.T, w *world) {
		w.start(relay, w.straight)
		fired := w.strike(worker, m, text)
		id := w.create(askable, lostSign)
		w.met(fired)
		w.again(worker, m)
		if m.kills || text == takes {
			w.askSoon(t)
		}
		w.start(reconciles, w.straight)
		w.restsAt(id, found)
	}
}

// askSoon lets the time pass after which an asking is due again that a dead worker took, or that nobody knows to have taken.
func (w *world) askSoon(t *testing.T) {
	t.Helper()
	w.db.Run(t, "UPDATE writ.intents SET probe_at = probe_at - interval '1 min' WHERE probe_at IS NOT NULL")
}

// askedByTheDead: the worker is killed in the middle of its probe.
func askedByTheDead(t *testing.T, w *world) {
	w.start(relay, w.straight)
	p := w.spawn(worker, w.straight, order{})
	id := w.create(askable, lostSign, slowly)
	w.awaitAsked(id.String())
	p.kill()
	w.ledger.release()
	w.askSoon(t)
	w.start(worker, w.straight)
	w.start(reconciles, w.straight)
	w.restsAt(id, found)
}

// overtaken: while the probe is out a person decides. The probe's answer, which breaks on its way, changes nothing, and is
// kept beside the verdict, once.
func overtaken(m moment) scenario {
	return func(t *testing.T, w *world) {
		w.start(relay, w.straight)
		w.start(worker, w.faulty)
		id := w.create(askable, lostSign, slowly)
		w.awaitAsked(id.String())
		if _, err := carryOut(t.Context(), decider, w.straight.Database, order{ID: id, Verb: "happened", Seen: w.get(id).Position()}); err != nil {
			t.Fatal(err)
		}
		fired := w.strikeRule(m, verdicts)
		w.ledger.release()
		w.met(fired)
		testkit.Until(t, soon, "a late report", func() (bool, string) { e := w.events(id); return len(e) == 3, fmt.Sprint(e) })
		late := found
		late.log, late.late = append(late.log[:2:2], "late-report"), "confirms"
		w.restsAt(id, late)
	}
}

// awaitAsked waits until a probe is out.
func (w *world) awaitAsked(id string) {
	w.t.Helper()
	testkit.Until(w.t, soon, "the probe is asked", func() (bool, string) {
		w.ledger.mu.Lock()
		defer w.ledger.mu.Unlock()
		n := w.ledger.asked[id]
		return n > 0, fmt.Sprint(n)
	})
}
