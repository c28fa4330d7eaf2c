package matrix

import (
	"testing"

	"github.com/writhq/writ/internal/proof/wire"
)

// claiming: the claim's transaction breaks. A worker that lives finds out whether the claim is its own; one that was
// killed leaves the row pending, or sending for the reconciler to flag.
func claiming(m moment, want end) scenario {
	return func(_ *testing.T, w *world) {
		w.start(relay, w.straight)
		fired := w.strike(worker, m, claims)
		id := w.create(manual, done)
		w.met(fired)
		w.again(worker, m)
		w.start(reconciles, w.straight)
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
