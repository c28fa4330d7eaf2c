package matrix

import (
	"fmt"
	"strings"
	"testing"

	"github.com/writhq/writ/internal/proof/wire"
	"github.com/writhq/writ/internal/testkit"
)

// relaying: the transaction that deletes the published row breaks; the hint is published again, or its row is gone.
func relaying(m moment, published int) scenario {
	return func(_ *testing.T, w *world) {
		w.startCounting()
		fired := w.strike(relay, m, relayed)
		id := w.create(manual, done)
		w.met(fired)
		w.again(relay, m)
		w.awaitPublished(published)
		w.restsAt(id, sentOnce)
	}
}

// startCounting starts a worker on whose connection to the broker messages are counted.
func (w *world) startCounting() {
	w.t.Helper()
	w.start(worker, servers{Database: w.straight.Database, Broker: w.faulty.Broker, Ledger: w.straight.Ledger})
}

// awaitPublished waits until the broker has had the hint so many times.
func (w *world) awaitPublished(n int) {
	w.t.Helper()
	testkit.Until(w.t, soon, fmt.Sprintf("published %d times", n), func() (bool, string) {
		got := int(w.delivered.Load())
		return got == n, fmt.Sprint(got)
	})
}

// publishing is the relay's talk with the broker, broken at a message.
type publishing struct {
	at        wire.Matcher
	do        wire.Action
	kills     bool   // the relay, at that
	why       string // what its row in the outbox says then; empty: nothing is known
	published int    // how often the broker has it in the end
}

func (p publishing) scenario(t *testing.T, w *world) {
	w.startCounting()
	fired := w.strikeAt(relay, w.mq, wire.Rule{At: p.at, Do: p.do}, p.kills)
	id := w.create(manual, done)
	w.met(fired)
	if p.kills {
		w.start(relay, w.straight)
	}
	if p.why != "" {
		testkit.Until(t, soon, "the row says why it was not published", func() (bool, string) {
			said := testkit.Value[string](t, w.db, "SELECT coalesce(max(last_error), '') FROM writ.outbox")
			return strings.Contains(said, p.why), fmt.Sprintf("%q", said)
		})
	}
	w.awaitPublished(p.published)
	w.restsAt(id, sentOnce)
}
