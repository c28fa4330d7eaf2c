// Package ledger is the outside world of the proof: a server that writes down each call it gets and each effect that it
// lets happen, and misbehaves on purpose. It is meant to run as a process of its own, which nobody kills: what it has
// written is the truth that the database is held against.
//
// It is truthful where a client can rely on it: an answer of [Refused], [Rejected] or [Busy] means that nothing happened,
// and [Done] that it did. All else leaves it open, as in the world outside.
package ledger

import (
	"time"

	"github.com/google/uuid"
)

// Behaviour is what the ledger does with one call.
type Behaviour string

// The behaviours. "Records" means that the effect has happened.
const (
	Done        Behaviour = "done"         // records, answers 200
	Refused     Behaviour = "refused"      // records nothing, answers 409: not done
	Rejected    Behaviour = "rejected"     // records nothing, answers 410: not done, and never will be
	Busy        Behaviour = "busy"         // records nothing, answers 429: not done, try later
	LateAnswer  Behaviour = "late-answer"  // records, and answers 200 after a while
	LateEffect  Behaviour = "late-effect"  // records after a while, within settle, even if the client has gone, and answers 200
	WrongAfter  Behaviour = "wrong-after"  // records, answers 500
	WrongBefore Behaviour = "wrong-before" // records nothing, answers 500
	Twice       Behaviour = "twice"        // records once, answers with a doubled and garbled response
	NeverAfter  Behaviour = "never-after"  // records, and never answers
	NeverBefore Behaviour = "never-before" // records nothing, and never answers
	KillAfter   Behaviour = "kill-after"   // records, kills its client, and answers nobody
	KillBefore  Behaviour = "kill-before"  // records nothing, and kills its client
)

// Behaviours lists all.
func Behaviours() []Behaviour {
	return []Behaviour{
		Done, Refused, Rejected, Busy, LateAnswer, LateEffect, WrongAfter, WrongBefore, Twice, NeverAfter, NeverBefore, KillAfter, KillBefore,
	}
}

// Call is what a handler sends, once for each time it is started.
type Call struct {
	ID     uuid.UUID `json:"id"`
	Key    string    `json:"key"` // the idempotency key
	Kind   string    `json:"kind"`
	Epoch  int       `json:"epoch"`
	Step   int       `json:"step,omitempty"` // of a job that does several things; zero: the only one
	Worker uuid.UUID `json:"worker"`
	PID    int       `json:"-"` // travels in a header

	// Settled is until when an effect of this call may still land: the handler's own deadline and the kind's settle. A
	// late effect stays within it.
	Settled time.Time `json:"settled"`
}

// Visit is a call as the ledger saw it.
type Visit struct {
	Call
	PID       int        `json:"pid"`
	At        time.Time  `json:"at"`       // when it came
	Recorded  *time.Time `json:"recorded"` // when its effect happened; nil: never
	Behaviour Behaviour  `json:"behaviour"`
	Claim     Claim      `json:"claim"`
}

// Claim is what the database said of the call's claim at the moment when the call came.
type Claim string

// What a witness finds.
const (
	NotAsked  Claim = ""          // or the database did not answer in time
	Committed Claim = "committed" // it is visible to others
	Missing   Claim = "missing"   // it is not: the effect outran its claim
)

// header carries the client's process id, which the ledger may kill.
const header = "X-Client-Pid"
