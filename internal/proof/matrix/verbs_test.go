package matrix

import (
	"context"
	"errors"
	"testing"

	"github.com/writhq/writ/intent"
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

// deciding: a person's decision breaks; they cannot know whether it was taken, and decide again on what they saw. It
// counts once.
func deciding(name string, m moment) scenario {
	return func(t *testing.T, w *world) {
		v := verbs[name]
		w.start(relay, w.straight)
		w.start(worker, w.straight)
		id := w.create(manual, v.script...)
		w.awaitStatus(id, v.before)
		o := order{ID: id, Verb: name, Seen: w.get(id).Position()}
		w.strikeOnce(decider, m, v.text, o)
		refused, err := carryOut(context.Background(), decider, w.straight.Database, o)
		if refused != m.applied || !refused && err != nil {
			t.Errorf("decided again: %v; want a conflict: %t", err, m.applied)
		}
		if m.applied && !errors.Is(err, intent.ErrConflict) {
			t.Errorf("decided again: %v; want a conflict", err)
		}
		w.restsAt(id, v.after)
	}
}
