package matrix

import (
	"context"
	"errors"
	"testing"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

// quarantining: a quarantine breaks; the person cannot know whether it was made, and makes it again. What is being done,
// what waits and what is flagged are held, by the old epochs nothing is done any more, and nothing is held in part.
func quarantining(m moment) scenario {
	return func(t *testing.T, w *world) {
		ctx := context.Background()
		w.start(relay, w.straight)
		w.start(worker, w.straight)
		unsure := w.create(manual, lostSign)
		w.awaitStatus(unsure, "ambiguous")
		busy := w.create(manual, hold)
		w.awaitEffect(busy, 1)
		if err := intent.Pause(ctx, w.db, "", ann); err != nil {
			t.Fatal(err)
		}
		waits := w.create(manual, done)
		w.strikeOnce(decider, m, quarantines, order{Verb: quarantines})

		held := testkit.Value[int](t, w.db, "SELECT count(*) FROM writ.intents WHERE flag_reason = 'quarantined' AND epoch >= 1000")
		if want := map[bool]int{true: 3}[m.applied]; held != want {
			t.Errorf("%d of 3 are held; want %d", held, want)
		}
		if _, err := carryOut(ctx, decider, w.straight.Database, order{Verb: quarantines}); err != nil {
			t.Errorf("made again: %v", err)
		}
		if err := intent.Resume(ctx, w.db, "", ann); err != nil {
			t.Fatal(err)
		}
		_, err := carryOut(ctx, decider, w.straight.Database, order{Verb: quarantines})
		if !errors.Is(err, intent.ErrIllegal) {
			t.Errorf("made while work goes on: %v; want it refused", err)
		}
		w.ledger.release() // the worker that was busy all the while returns, too late to count
		log := []string{"quarantined"}
		if m.applied {
			log = append(log, "quarantined")
		}
		w.restAt(map[intent.ID]end{
			unsure: {status: "ambiguous", starts: 1, effects: 1, log: append([]string{"flagged"}, log...)},
			busy:   {status: "ambiguous", starts: 1, effects: 1, log: append(log, "late-report"), late: "neither"},
			waits:  {status: "ambiguous", log: log},
		})
	}
}
