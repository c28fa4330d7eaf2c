package matrix

import "testing"

// outcome: the transaction breaks that writes what a handler said. A worker that lives writes it again, and finds it
// applied where it was; where it died nobody knows, unless it was written.
func outcome(m moment, text string, want end, script ...string) scenario {
	return func(_ *testing.T, w *world) {
		w.start(relay, w.straight)
		fired := w.strike(worker, m, text)
		id := w.create(manual, script...)
		w.met(fired)
		w.again(worker, m)
		w.start(reconciles, w.straight)
		w.restsAt(id, want)
	}
}
