package proof

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/writhq/writ/internal/proof/ledger"
)

// fabric fabricates the evidence of one intent, step by step, each a second after the one before.
type fabric struct {
	Evidence
	id     uuid.UUID
	kind   string
	worker uuid.UUID
	now    time.Time
	row    Row
	runAt  time.Time
	done   time.Time // deadline
}

const (
	timeout = 5 * time.Second
	settle  = 3 * time.Second
	pid     = 4711
)

func fabricate(class string) *fabric {
	f := &fabric{
		id: uuid.New(), kind: "proof.test." + class, worker: uuid.New(), now: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC),
	}
	f.Acks, f.Runs, f.Hints = []Ack{}, []Run{}, []Hint{}
	f.Kinds = []Kind{{Name: f.kind, Class: class, MaxAttempts: 3, Settle: settle}}
	f.Ended = map[uuid.UUID]End{f.worker: Drained}
	f.Receipts, f.Hooked = map[uuid.UUID]int{}, map[string]bool{f.kind: true}
	f.row = Row{ID: f.id, Kind: f.kind, State: "pending"}
	f.runAt = f.now
	return f
}

func (f *fabric) tick() time.Time {
	f.now = f.now.Add(time.Second)
	return f.now
}

// change writes a change of the row to its present values, with what was before.
func (f *fabric) change(op string, old Row) {
	at := f.tick()
	c := Change{
		Seq: int64(len(f.Changes)), At: at, BeganAt: at.Add(-time.Millisecond), Synchronous: "on", Op: op, ID: f.id, Kind: f.kind, From: old.State,
		To: f.row.State, Event: f.row.Event, Named: f.row.Event != old.Event || f.row.State != old.State, OldEpoch: old.Epoch, Epoch: f.row.Epoch,
		OldAttempt: old.Attempt, Attempt: f.row.Attempt, Worker: f.row.Worker, OldRunAt: f.runAt, RunAt: f.runAt, DeadlineAt: f.done,
		OldFlag: old.Flag, Flag: f.row.Flag,
	}
	if op == "INSERT" {
		c.From = ""
	}
	f.Changes = append(f.Changes, c)
}

func (f *fabric) create() *fabric {
	f.Acks = append(f.Acks, Ack{f.id, f.kind, Begun, f.tick()})
	f.change("INSERT", Row{})
	f.Acks = append(f.Acks, Ack{f.id, f.kind, Acknowledged, f.tick()})
	return f.hint()
}

func (f *fabric) hint() *fabric {
	f.Hints = append(f.Hints, Hint{f.tick(), "run", f.row.Epoch, f.id})
	return f
}

func (f *fabric) claim() *fabric {
	old := f.row
	f.row.State, f.row.Event, f.row.Worker = "sending", "attempted", f.worker
	f.row.Epoch++
	f.row.Attempt++
	f.done = f.now.Add(time.Second + timeout)
	f.change("UPDATE", old)
	return f
}

func (f *fabric) run(said Said) *fabric {
	f.Runs = append(f.Runs, Run{f.id, f.row.Epoch, f.worker, pid, f.tick(), said})
	return f
}

func (f *fabric) visit(b ledger.Behaviour) *fabric {
	v := ledger.Visit{
		Call: ledger.Call{ID: f.id, Key: f.id.String(), Kind: f.kind, Epoch: f.row.Epoch, Worker: f.worker},
		PID:  pid, At: f.tick(), Behaviour: b, Claim: ledger.Committed,
	}
	if b == ledger.Done || b == ledger.WrongAfter {
		at := f.now.Add(time.Millisecond)
		v.Recorded = &at
	}
	f.Visits = append(f.Visits, v)
	return f
}

// attempt is a claim, a start, a call and what the handler said.
func (f *fabric) attempt(b ledger.Behaviour, said Said) *fabric {
	return f.claim().run(SaidStarted).visit(b).run(said)
}

func (f *fabric) outcome(state, event string) *fabric {
	old := f.row
	f.row.State, f.row.Event, f.row.Flag = state, event, ""
	f.change("UPDATE", old)
	if event == "succeeded" {
		f.Receipts[f.id]++
	} else {
		f.entry(old.Epoch, event, "worker", f.worker)
	}
	return f
}

func (f *fabric) entry(epoch int, event, actor string, worker uuid.UUID) {
	f.Log = append(f.Log, Entry{At: f.now, ID: f.id, Epoch: epoch, Event: event, Actor: actor, Worker: worker, Why: "as the test says"})
}

func (f *fabric) flag(actor string) *fabric {
	old := f.row
	f.row.Flag = "unknown"
	f.change("UPDATE", old)
	f.entry(f.row.Epoch, "flagged", actor, f.worker)
	return f
}

// verdict is a person's word, a probe's, or the reconciler's on an idempotent kind.
func (f *fabric) verdict(state, event, actor string) *fabric {
	old := f.row
	f.row.State, f.row.Event, f.row.Flag = state, event, ""
	if event != "cancel" {
		f.row.Epoch++
	}
	if event == "retry" && actor != "probe" {
		f.row.Attempt = 0
	}
	f.change("UPDATE", old)
	f.entry(old.Epoch, event, actor, f.worker)
	if event == "happened" { // by OnHappened
		f.Receipts[f.id]++
	}
	return f
}

// quarantine is a person's, of all that is open: it holds the row, or only raises its epoch.
func (f *fabric) quarantine(event string) *fabric {
	old := f.row
	f.row.Epoch += leap
	f.row.Worker = uuid.Nil
	if event != fenced {
		f.row.State, f.row.Event, f.row.Flag = "sending", event, event
		f.done = f.now.Add(time.Second + timeout)
	}
	f.change("UPDATE", old)
	f.entry(old.Epoch, event, "ann", old.Worker)
	f.Log[len(f.Log)-1].Evidence = fmt.Sprintf(`{"since": %q}`, f.now.Add(-time.Hour).Format(time.RFC3339Nano))
	return f
}

// late is a late report of the worker on an attempt that somebody else has settled.
func (f *fabric) late(epoch int) *fabric {
	f.entry(epoch, lateReport, "worker", f.worker)
	return f
}

// snoozed hands the attempt back.
func (f *fabric) snoozed() *fabric {
	old := f.row
	f.row.State, f.row.Event = "pending", "retried"
	f.row.Attempt--
	f.change("UPDATE", old)
	f.entry(old.Epoch, "retried", "worker", f.worker)
	return f.hint()
}

// rest ends the fabrication.
func (f *fabric) rest() Evidence {
	f.At = f.tick()
	f.row.RunAt = f.runAt
	f.Rows = []Row{f.row}
	f.Rest = &Rest{Queues: map[string]int{"q": 0}}
	return f.Evidence
}

// together joins evidences, as of one database.
func together(all ...Evidence) Evidence {
	out := Evidence{
		Acks: []Ack{}, Runs: []Run{}, Hints: []Hint{}, Ended: map[uuid.UUID]End{}, Receipts: map[uuid.UUID]int{}, Hooked: map[string]bool{}, Steps: map[string]int{},
		Rest: &Rest{},
	}
	for _, e := range all {
		out.Acks, out.Changes, out.Log = append(out.Acks, e.Acks...), append(out.Changes, e.Changes...), append(out.Log, e.Log...)
		out.Rows, out.Kinds, out.Visits = append(out.Rows, e.Rows...), append(out.Kinds, e.Kinds...), append(out.Visits, e.Visits...)
		out.Runs, out.Hints, out.Freezes = append(out.Runs, e.Runs...), append(out.Hints, e.Hints...), append(out.Freezes, e.Freezes...)
		maps.Copy(out.Ended, e.Ended)
		maps.Copy(out.Receipts, e.Receipts)
		maps.Copy(out.Steps, e.Steps)
		for kind := range e.Hooked {
			out.Hooked[kind] = true
		}
		if out.At.Before(e.At) {
			out.At = e.At
		}
	}
	return out
}

// find returns the invariants that a report says are violated, each once.
func find(r Report) []string {
	var names []string
	for _, v := range r.Violations {
		names = append(names, v.Invariant)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
