package matrix

import "testing"

// outcome: the transaction breaks that writes what a handler said. A worker that lives writes it again, and finds it
// applied where it was; where it died nobody knows, unless it was written.
func outcome(m moment, text string, want end, script ...string) scenario {
	return func(_ *testing.T, w *world) {
		id := w.strikeWork(m, text, manual, script...)
		w.restsAt(id, want)
	}
}
