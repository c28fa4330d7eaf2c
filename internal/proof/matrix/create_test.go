package matrix

import (
	"context"
	"testing"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

// creation: the creator's transaction breaks; it cannot know whether the intent exists, and creates it again under the
// same id.
func creation(m moment) scenario {
	return func(t *testing.T, w *world) {
		w.startCounting()
		w.start(relay, w.straight)
		o := order{ID: intent.NewID(), Script: []string{done}}
		w.strikeOnce(creator, m, creates, o)
		if there := testkit.Value[bool](t, w.db, "SELECT EXISTS (SELECT FROM writ.intents WHERE id = $1)", o.ID); there != m.applied {
			t.Errorf("after the fault the intent exists: %t; want %t", there, m.applied)
		}
		existed, err := carryOut(context.Background(), creator, w.straight.Database, o)
		if err != nil || existed != m.applied {
			t.Errorf("created again: existed %t, %v; want %t", existed, err, m.applied)
		}
		w.awaitPublished(1) // I13: never what was not committed
		w.restsAt(o.ID, sentOnce)
	}
}
