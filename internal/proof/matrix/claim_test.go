package matrix

import (
	"context"
	"testing"

	"github.com/writhq/writ/internal/proof/wire"
)

// claiming: the claim's transaction breaks. A worker that lives finds out whether the claim is its own; one that was
// killed leaves the row pending, or sending for the reconciler to flag.
func claiming(m moment, want end) scenario {
	return func(_ *testing.T, w *world) {
		id := w.strikeWork(m, claims, manual, done)
		w.restsAt(id, want)
	}
}

// hinting: the worker's talk with the broker breaks at a message: the hint comes again.
func hinting(at wire.Matcher) scenario {
	return func(_ *testing.T, w *world) {
		w.start(relay, w.straight)
		fired := w.strikeAt(worker, w.mq, wire.Rule{At: at, Do: wire.Cut}, false)
		id := w.create(manual, done)
		w.met(fired)
		w.restsAt(id, sentOnce)
	}
}

// puttingBack: somebody holds the row, so the hint goes back to the outbox, and that breaks. It goes back again, once or
// twice, and the row is claimed when it is free.
func puttingBack(m moment) scenario {
	return func(t *testing.T, w *world) {
		id := w.create(manual, done)
		tx, err := w.db.Begin(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback(context.Background()) //nolint:errcheck // the second time it is over
		if _, err := tx.Exec(context.Background(), "SELECT FROM writ.intents WHERE id = $1 FOR UPDATE", id); err != nil {
			t.Fatal(err)
		}
		fired := w.strike(worker, m, putsBack)
		w.start(relay, w.straight)
		w.met(fired)
		if err := tx.Rollback(context.Background()); err != nil {
			t.Fatal(err)
		}
		w.restsAt(id, sentOnce)
	}
}

// Limits of a kind, for writ.set_limit.
const (
	startsLimited  = "starts => 5"
	runningLimited = "running => 1"
)

// leasing: the kind has a limit over all processes; the transaction breaks in which a worker asks for its share.
func leasing(limit, text string, m moment) scenario {
	return func(t *testing.T, w *world) {
		w.db.Run(t, "SELECT writ.set_limit($1, 'a person', 'the other side is slow', "+limit+")", manual.Name)
		id := w.strikeWork(m, text, manual, done)
		w.restsAt(id, sentOnce)
	}
}
