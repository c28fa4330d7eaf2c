package matrix

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

// The ways in which an intent of a bulk can end: each is tried again, and fails again.
var (
	failedOnce = end{status: "error", starts: 1, log: []string{"failed"}}
	triedAgain = end{status: "error", starts: 2, log: []string{"failed", "retry", "failed"}}
)

// bulk is a decision to retry six intents, two in a step. The fifth moves after the plan; and beside them is one that only
// another plan holds, which nobody carries out.
type bulk struct {
	*world
	id    intent.ID
	six   []intent.ID
	wants map[intent.ID]end
}

// errors makes intents that have failed.
func (w *world) errors(n int) (ids []intent.ID) {
	w.t.Helper()
	w.start(relay, w.straight)
	w.start(worker, w.straight)
	for range n {
		ids = append(ids, w.create(manual, stopped))
	}
	for _, id := range ids {
		w.awaitStatus(id, "error")
	}
	return ids
}

// do carries out an order, out of the fault's way.
func (w *world) do(o order) error {
	_, err := carryOut(context.Background(), decider, w.straight.Database, o)
	return err
}

func (w *world) mustDo(o order) {
	w.t.Helper()
	if err := w.do(o); err != nil {
		w.t.Fatalf("%s: %v", o.Verb, err)
	}
}

// planned is the newest bulk.
func (w *world) planned() intent.Bulk {
	w.t.Helper()
	bulks, err := intent.Bulks(context.Background(), w.db, 1)
	if err != nil || len(bulks) != 1 {
		w.t.Fatalf("%d bulks, %v", len(bulks), err)
	}
	return bulks[0]
}

func newBulk(w *world) *bulk {
	w.t.Helper()
	ids := w.errors(7)
	b := &bulk{world: w, six: ids[:6], wants: map[intent.ID]end{ids[6]: failedOnce}}
	w.mustDo(order{Verb: plans, IDs: ids[6:]})
	w.mustDo(order{Verb: plans, IDs: b.six})
	b.id = w.planned().ID
	moved := b.six[4]
	w.mustDo(order{ID: moved, Verb: "retry", Seen: w.get(moved).Position()})
	testkit.Until(w.t, soon, "it has moved, and failed again", func() (bool, string) {
		e := w.events(moved)
		return len(e) == 3, fmt.Sprint(e)
	})
	return b
}

// stands checks how far it has come.
func (b *bulk) stands(state string, done, refused int) {
	b.t.Helper()
	got, err := intent.GetBulk(context.Background(), b.db, b.id)
	if err != nil || got.State() != state || got.Total != 6 || got.Done != done || got.Refused != refused {
		b.t.Errorf("the bulk is %s, of %d rows %d are done and %d refused, %v; want %s, %d and %d", got.State(), got.Total, got.Done, got.Refused, err, state, done, refused)
	}
}

// ends checks that the first rows were decided, as many as were done, the one that had moved only by whoever moved it, and the
// rest not at all.
func (b *bulk) ends(done int) {
	b.t.Helper()
	for n, id := range b.six {
		b.wants[id] = failedOnce
		if n < done || n == 4 {
			b.wants[id] = triedAgain
		}
	}
	b.restAt(b.wants)
}

// inTheMiddle: an operator decides six, and breaks at the second of three steps. Each row is decided or is not, and whoever
// goes on decides none twice, none that has moved, and none that was not in the plan.
func inTheMiddle(m moment) scenario {
	return func(t *testing.T, w *world) {
		b := newBulk(w)
		m.nth = 2
		w.strikeOnce(decider, m, carries, order{Verb: carries, ID: b.id})
		b.stands("running", m.counts(4, 2), 0)
		w.mustDo(order{Verb: carries, ID: b.id})
		b.stands("ended", 5, 1)
		moved := testkit.Value[string](t, w.db, "SELECT code FROM writ.bulk_rows WHERE bulk_id = $1 AND intent_id = $2", b.id, b.six[4])
		if moved != "WR001" {
			t.Errorf("what had moved is refused with %s; want WR001", moved)
		}
		b.ends(6)
	}
}

// counts is one number if the transaction is applied when it breaks, and another if not.
func (m moment) counts(applied, not int) int {
	if m.applied {
		return applied
	}
	return not
}

// planning: an operator plans, and breaks; they cannot know whether it was planned, and plan again. Both plans are carried out, by
// two who do not know of each other: each row is decided once.
func planning(m moment) scenario {
	return func(t *testing.T, w *world) {
		ids := w.errors(3)
		o := order{Verb: plans, IDs: ids}
		w.strikeOnce(decider, m, plans, o)
		if n := testkit.Value[int](t, w.db, "SELECT count(*) FROM writ.bulks"); n != m.counts(1, 0) {
			t.Errorf("%d plans; want %d", n, m.counts(1, 0))
		}
		w.mustDo(o)
		bulks, err := intent.Bulks(context.Background(), w.db, 9)
		if err != nil {
			t.Fatal(err)
		}
		wants := map[intent.ID]end{}
		for n, b := range bulks {
			w.mustDo(order{Verb: carries, ID: b.ID})
			if b, err = intent.GetBulk(context.Background(), w.db, b.ID); err != nil || b.Done != 3 && n == 0 || b.Refused != 3 && n > 0 {
				t.Errorf("plan %d: %d done, %d refused, %v; want all done by the one and refused by the other", n, b.Done, b.Refused, err)
			}
		}
		for _, id := range ids {
			wants[id] = triedAgain
		}
		w.restAt(wants)
	}
}

// aborting: an operator has done two of six, and wants no more; the abort breaks, and they abort again. Nobody decides any
// more, nor does a runner that has not heard of it.
func aborting(m moment) scenario {
	return func(t *testing.T, w *world) {
		b := newBulk(w)
		w.mustDo(order{Verb: carries, ID: b.id, Steps: 1})
		o := order{Verb: aborts, ID: b.id}
		w.strikeOnce(decider, m, aborts, o)
		if err := w.do(o); m.applied != errors.Is(err, intent.ErrIllegal) || !m.applied && err != nil {
			t.Errorf("aborted again: %v; applied before: %t", err, m.applied)
		}
		b.aborted(2)
	}
}

// aborted checks that it is, after so many rows, and for good.
func (b *bulk) aborted(done int) {
	b.t.Helper()
	b.stands("aborted", done, 0)
	if err := b.do(order{Verb: carries, ID: b.id}); !errors.Is(err, intent.ErrIllegal) {
		b.t.Errorf("gone on with after its abort: %v; want it refused", err)
	}
	b.db.Run(b.t, "SELECT writ.bulk_step($1, 50)", b.id)
	b.stands("aborted", done, 0)
	b.ends(done)
}

// abortedMeanwhile: the second step is with the server, not committed or just committed, when somebody else aborts; and then its
// runner breaks. The abort has waited for the step, and says exactly what is done.
func abortedMeanwhile(m moment) scenario {
	return func(t *testing.T, w *world) {
		b := newBulk(w)
		m.nth = 2
		type answer struct {
			bulk intent.Bulk
			err  error
		}
		answers := make(chan answer, 1)
		m.meanwhile = func() {
			w.overtake(m, carries, aborts, func() {
				bulk, err := intent.AbortBulk(context.Background(), w.db, b.id, "bob", "the mailboxes are gone again")
				answers <- answer{bulk, err}
			})
		}
		w.strikeOnce(decider, m, carries, order{Verb: carries, ID: b.id})
		if a := <-answers; a.err != nil || a.bulk.Done != m.counts(4, 2) {
			t.Errorf("aborted: %d done, %v; want %d", a.bulk.Done, a.err, m.counts(4, 2))
		}
		b.aborted(m.counts(4, 2))
	}
}
