package matrix

import (
	"testing"
	"time"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

// orphaned: the reconciler breaks while it flags what a dead worker held.
func orphaned(m moment) scenario {
	return func(_ *testing.T, w *world) {
		w.start(relay, w.straight)
		p := w.spawn(worker, w.straight, order{})
		id := w.create(manual, hold)
		w.awaitEffect(id, 1)
		p.kill()
		fired := w.strike(reconciles, m, orphans)
		w.start(worker, w.straight)
		w.met(fired)
		w.again(reconciles, m)
		w.restsAt(id, end{status: "ambiguous", starts: 1, effects: 1, log: []string{"flagged"}})
	}
}

// requeuing: the broker lost the hint, and the reconciler breaks while it writes it again.
func requeuing(m moment) scenario {
	return func(t *testing.T, w *world) {
		w.start(relay, w.straight)
		// Due for so long that its hint is taken for lost at the first look, and not long enough for a second time.
		id := w.createWith(manual, intent.Opts{RunAt: time.Now().Add(-staleAfter * 3 / 2)}, done)
		testkit.Until(t, soon, "the hint is with the broker", func() (bool, string) { return w.messages() == 1, "it is not" })
		if _, err := w.ch.QueuePurge(w.queue, false); err != nil {
			t.Fatal(err)
		}
		fired := w.strike(reconciles, m, requeues)
		w.met(fired)
		w.start(worker, w.straight)
		w.again(reconciles, m)
		w.restsAt(id, end{status: "sent", starts: 1, effects: 1, log: []string{"requeued"}})
	}
}
