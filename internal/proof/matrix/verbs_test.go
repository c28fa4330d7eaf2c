package matrix

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

// verb is one of a person's decisions, with how the intent stands before, and after it was carried out once.
type verb struct {
	do     func(context.Context, intent.DB, intent.Verdict) (intent.Position, error)
	text   string // of its statement
	script []string
	before string
	after  end
}

var verbs map[string]verb

func init() { // carryOut, which the verbs' own scenario calls, looks the verbs up
	verbs = map[string]verb{
		"happened": {
			intent.Happened, "writ.happened",
			[]string{lostSign},
			"ambiguous",
			end{status: "sent", starts: 1, effects: 1, log: []string{"flagged", "happened"}},
		},
		"retry": {
			intent.Retry, "writ.retry",
			[]string{stopped},
			"error",
			end{status: "error", starts: 2, log: []string{"failed", "retry", "failed"}},
		},
		"give-up": {
			intent.GiveUp, "writ.give_up",
			[]string{lostSign},
			"ambiguous",
			end{status: "error", starts: 1, effects: 1, log: []string{"flagged", "give-up"}},
		},
		"cancel": {
			intent.Cancel, "writ.cancel",
			[]string{stopped},
			"error",
			end{status: "cancelled", starts: 1, log: []string{"failed", "cancel"}},
		},
	}
}

// deciding: a person's decision breaks, each of the four; they cannot know whether it was taken, and decide again on what
// they saw. It counts once.
func deciding(m moment) scenario {
	return func(t *testing.T, w *world) {
		w.start(relay, w.straight)
		w.start(worker, w.straight)
		wants := map[intent.ID]end{}
		for name, v := range verbs {
			id := w.create(manual, v.script...)
			w.awaitStatus(id, v.before)
			o := order{ID: id, Verb: name, Seen: w.get(id).Position()}
			w.strikeOnce(decider, m, v.text, o)
			_, err := carryOut(context.Background(), decider, w.straight.Database, o)
			switch {
			case m.applied && !errors.Is(err, intent.ErrConflict):
				t.Errorf("%s, applied and decided again: %v; want a conflict", name, err)
			case !m.applied && err != nil:
				t.Errorf("%s, not applied and decided again: %v", name, err)
			}
			wants[id] = v.after
		}
		w.restAt(wants)
	}
}

// recovering: a person gave up, and the worker breaks while it runs the kind's recovery function. It takes effect once.
func recovering(m moment) scenario {
	return func(t *testing.T, w *world) {
		w.start(relay, w.straight)
		fired := w.strike(worker, m, recovers)
		id := w.create(recoverable, lostSign)
		w.awaitStatus(id, "ambiguous")
		if _, err := carryOut(context.Background(), decider, w.straight.Database, order{ID: id, Verb: "give-up", Seen: w.get(id).Position()}); err != nil {
			t.Fatal(err)
		}
		w.met(fired)
		if !m.kills && !m.applied {
			// It is owed, and the reconciler has it run again when half a minute has passed.
			w.db.Run(t, "UPDATE writ.intents SET probe_at = probe_at - interval '1 min' WHERE id = $1", id)
			w.start(reconciles, w.straight)
		}
		w.again(worker, m)
		testkit.Until(t, soon, "nothing is owed any more", func() (bool, string) {
			e := w.events(id)
			return e[len(e)-1] == "recovered", fmt.Sprint(e)
		})
		w.restsAt(id, end{status: "error", starts: 1, effects: 1, log: []string{"flagged", "give-up", "recovered"}, receipts: 1})
	}
}
