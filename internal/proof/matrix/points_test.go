package matrix

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

// walking is a handler of two steps, each of them an effect, with a safe point after each.
func walking(ctx context.Context, job *workers.Job[task], out recorder, word string) error {
	done := 0
	if _, err := job.Progress(ctx, &done); err != nil {
		return err
	}
	for step := done + 1; step <= 2; step++ {
		if err := out.record(ctx, effected, entry{job.ID(), job.Epoch(), job.WorkerID()}); err != nil {
			return err
		}
		if word == dawdle {
			if err := out.hold(ctx); err != nil {
				return err
			}
		}
		if err := job.SafePoint(ctx, step); err != nil {
			return err
		}
	}
	return nil
}

var (
	walked     = end{status: "sent", starts: 1, effects: 2}
	handedOver = end{status: "sent", starts: 2, effects: 2, log: []string{"retried"}}
	resumed    = end{status: "sent", starts: 2, effects: 2, log: []string{"flagged", "retry"}}
	stretched  = end{status: "sent", starts: 1, effects: 1}
)

// pointing: the transaction of the first safe point breaks. A worker that lives says it again and goes on; where it died nobody
// knows, but whoever decides that the rest was not done has the next one go on from what is saved.
func pointing(m moment, want end) scenario {
	return func(_ *testing.T, w *world) {
		id := w.strikeWork(m, points, long, walk)
		if want.status == resumed.status && m.kills {
			w.awaitStatus(id, "ambiguous")
			w.mustDo(order{ID: id, Verb: "retry", Seen: w.get(id).Position()})
		}
		w.restsAt(id, want)
	}
}

// handingOver: a worker is told to end in the middle of a job; the transaction breaks in which it hands it over.
func handingOver(m moment, want end) scenario {
	return func(t *testing.T, w *world) {
		w.start(relay, w.straight)
		var tell func()
		v := newVictim()
		if m.kills {
			p := w.spawn(worker, w.faulty, order{})
			v.is(p)
			tell = func() { _ = p.Process.Signal(syscall.SIGTERM) }
		} else {
			_, stop := w.start(worker, w.faulty)
			tell = func() { go stop() }
		}
		id := w.create(long, dawdle)
		w.awaitEffect(id, 1)
		fired := w.pg.On(m.rule(retries, v.kill))
		tell()
		testkit.Until(t, soon, "the worker says that it is shutting down", func() (bool, string) {
			return testkit.Value[bool](t, w.db, "SELECT coalesce(bool_or(draining), false) FROM writ.workers"), "it does not"
		})
		w.ledger.release()
		w.met(fired)
		w.start(worker, w.straight)
		w.start(reconciles, w.straight)
		w.restsAt(id, want)
		if n := testkit.Value[int](t, w.db, "SELECT (progress -> 'value')::int FROM writ.intents WHERE id = $1", id); n != want.effects {
			t.Errorf("its progress is %d; want %d", n, want.effects)
		}
	}
}

// stretching: the transaction breaks in which a handler gets more time. It asks again, and has it.
func stretching(m moment, want end) scenario {
	return func(t *testing.T, w *world) {
		id := w.strikeWork(m, extends, long, stretch)
		w.restsAt(id, want)
		i := w.get(id)
		if has := i.DeadlineAt.Sub(*i.StartedAt) > long.Timeout+time.Second; has == (m.kills && !m.applied) {
			t.Errorf("its deadline is %v after its start; killed: %t, committed: %t", i.DeadlineAt.Sub(*i.StartedAt), m.kills, m.applied)
		}
	}
}
