package matrix

import (
	"testing"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/proof/wire"
)

// dying: the worker is killed in the middle of its handler, when the effect has happened.
func dying(kind intent.Kind[task], want end) scenario {
	return func(_ *testing.T, w *world) {
		w.start(relay, w.straight)
		p := w.spawn(worker, w.straight, order{})
		id := w.create(kind, hold)
		w.awaitEffect(id, 1)
		p.kill()
		w.ledger.release()
		w.start(worker, w.straight)
		w.start(reconciles, w.straight)
		w.restsAt(id, want)
	}
}

// beating: while a handler runs the worker's heartbeat breaks; it beats again, and nobody takes it for dead.
func beating(m moment) scenario {
	return func(_ *testing.T, w *world) {
		w.start(relay, w.straight)
		w.start(worker, w.faulty)
		w.start(reconciles, w.straight)
		id := w.create(manual, hold)
		w.awaitEffect(id, 1)
		w.met(w.pg.On(wire.Rule{At: m.at(beats), Do: wire.Cut}))
		w.met(w.pg.On(wire.Rule{At: wire.Committed(beats), Do: wire.Pass})) // it beats again
		w.ledger.release()
		w.restsAt(id, sentOnce)
	}
}

// abandoned: while a handler runs the broker is gone; the handler needs none, and neither does its outcome.
func abandoned(_ *testing.T, w *world) {
	w.start(relay, w.straight)
	w.start(worker, w.faulty)
	id := w.create(manual, hold)
	w.awaitEffect(id, 1)
	w.mq.Refuse()
	w.ledger.release()
	w.awaitStatus(id, "sent")
	w.mq.Accept()
	w.restsAt(id, sentOnce)
}
