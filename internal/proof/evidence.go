// Package proof counts what is lost or done twice. It holds three witnesses against each other: what the creators were
// told, the database with its whole history (a trigger that only proofs switch on), and the ledger of an outside system.
// [Check] verifies the invariants of docs/protocol.md on them.
//
// A proof in an ordinary test is [SwitchOnHistory], [NewLedger], whatever is to be proved, then [Gather] and [Check].
package proof

import (
	"time"

	"github.com/google/uuid"

	"github.com/writhq/writ/fsm"
	"github.com/writhq/writ/internal/proof/ledger"
)

// Evidence is all that the witnesses say, taken at rest: when nothing is to be done any more and all processes of the
// product have ended. A witness that was not there has nothing to say, and the checks that need it are not made: Acks,
// Runs, Hints and Rest may be nil.
type Evidence struct {
	Acks    []Ack          // what creators were told
	Changes []Change       // the database's history, in order
	Log     []Entry        // writ.log, in order
	Rows    []Row          // writ.intents as it stands
	Kinds   []Kind         // writ.kinds
	Visits  []ledger.Visit // the ledger
	Runs    []Run          // starts and ends of handlers
	Ended   map[uuid.UUID]End
	Hints   []Hint // what was seen on its way to the broker
	Freezes []Freeze
	// Receipts counts the rows that the hooks of job.Done and OnHappened wrote, by intent; nil: no kind has such a hook.
	Receipts map[uuid.UUID]int
	// Hooked are the kinds with both.
	Hooked map[string]bool
	// Steps are the kinds that do several things, one after the other, with a safe point after each: how many.
	Steps map[string]int
	Rest  *Rest
	TTL   time.Duration // of the workers, and of the reconciler's; zero: not known
	At    time.Time     // the database's clock when the rows were read
}

// Answer is what a creator was told.
type Answer string

// The answers. A creator writes Begun before it asks, so that its own death leaves an unknown behind, and not nothing.
const (
	Begun        Answer = "begun"
	Acknowledged Answer = "acknowledged" // the commit was answered
	Refused      Answer = "refused"      // certainly not committed: rolled back, or refused by the server
	Unknown      Answer = "unknown"      // the answer of the commit was lost
)

// Ack is one answer for one id.
type Ack struct {
	ID     uuid.UUID `json:"id"`
	Kind   string    `json:"kind"`
	Answer Answer    `json:"answer"`
	At     time.Time `json:"at"`
}

// Change is a committed change of an intent's row. Old fields are zero for an insert, new ones for a delete.
type Change struct {
	Seq         int64
	At          time.Time // of the commit
	BeganAt     time.Time // of its transaction
	XID         uint64
	Application string
	Synchronous string // synchronous_commit at the commit
	Op          string // INSERT, UPDATE, DELETE
	ID          uuid.UUID
	Kind        string
	From, To    string // states
	Event       string // empty: none
	Named       bool   // the statement changed state or event
	OldEpoch    int
	Epoch       int
	OldAttempt  int
	Attempt     int
	Generation  int
	Worker      uuid.UUID
	OldRunAt    time.Time
	RunAt       time.Time
	StartedAt   time.Time
	DeadlineAt  time.Time
	OldFlag     string // the reason; empty: not flagged
	Flag        string
	WaitingOn   int
}

// claims reports whether the change is a worker's claim.
func (c Change) claims() bool {
	return c.To == string(fsm.Sending) && c.From != c.To && c.Event != string(fsm.Quarantined)
}

// moves reports whether the state changed.
func (c Change) moves() bool { return c.Op == "UPDATE" && c.From != c.To }

// Entry is a line of writ.log.
type Entry struct {
	Seq      int64
	At       time.Time
	ID       uuid.UUID
	Epoch    int
	Event    string
	Actor    string
	Worker   uuid.UUID
	Why      string
	Evidence string
}

// Row is an intent as it stands.
type Row struct {
	ID          uuid.UUID
	Kind        string
	State       string
	Event       string
	Epoch       int
	Attempt     int
	Worker      uuid.UUID
	WorkerAlive bool
	RunAt       time.Time
	Flag        string // the reason; empty: not flagged
	Owed        bool   // a recovery that was not run yet, or a probe that is still to be asked
	WaitingOn   int
}

// Kind is what the workers declared.
type Kind struct {
	Name        string
	Class       string
	MaxAttempts int
	Settle      time.Duration
}

func (k Kind) idempotent() bool { return k.Class == "idempotent" }

// Said is what a handler returned, in one word.
type Said string

// What a handler can say.
const (
	SaidStarted Said = "started" // not returned yet
	SaidDone    Said = "done"
	SaidNotDone Said = "not-done" // NotDone, or an error before its marked effect
	SaidStop    Said = "stop"
	SaidSnooze  Said = "snooze"
	SaidUnknown Said = "unknown" // any other error, a timeout
	SaidPanic   Said = "panic"
	SaidOver    Said = "handed-over" // at a safe point: all up to it is done, and the rest is not
)

// Run is the start, or the end, of a handler.
type Run struct {
	ID     uuid.UUID `json:"id"`
	Epoch  int       `json:"epoch"`
	Worker uuid.UUID `json:"worker"`
	PID    int       `json:"pid"`
	At     time.Time `json:"at"`
	Said   Said      `json:"said"`
}

// End is how a worker process ended.
type End string

// The ends of a worker. Of one that drained, every outcome must have been written, or reported late.
const (
	Drained End = "drained" // by itself, holding nothing any more
	Killed  End = "killed"
)

// Hint is a hint that was seen on its way to the broker.
type Hint struct {
	At    time.Time `json:"at"`
	Op    string    `json:"op"`
	Epoch int       `json:"epoch"`
	ID    uuid.UUID `json:"id"`
}

// Freeze is a time in which a process was stopped (SIGSTOP). What it sends after such a time, later than deadline and
// settle, is the residual risk that docs/protocol.md names, and no fault of the protocol.
type Freeze struct {
	PID      int
	From, To time.Time
}

// Rest is what is left when all is at rest and the product's processes have ended.
type Rest struct {
	Outbox      int            // rows
	Queues      map[string]int // messages, by queue
	Connections []string       // of the product, by application name
	Workers     []uuid.UUID    // ended in good order, and their rows are there: they take them away only if they hold nothing
}
