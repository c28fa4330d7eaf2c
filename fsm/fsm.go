// Package fsm holds the state machine of an intent: its states, its events and the one table of legal
// transitions. The database enforces the same table by trigger (sql/guard.sql); a test walks every pair
// on a real server against this package, so that the two cannot drift apart.
//
// Nothing here does I/O; every function is safe for concurrent use.
package fsm

import (
	"slices"

	"github.com/looplab/fsm"
)

// State is where an intent stands.
type State string

// The five states. Ambiguous is not one of them: it is a flag on Sending.
const (
	Pending   State = "pending"   // not begun, or to be tried again at run_at
	Sending   State = "sending"   // claimed by a worker; the outside world may have been touched
	Sent      State = "sent"      // done; final
	Error     State = "error"     // given up; only a person moves it on
	Cancelled State = "cancelled" // never to be run; final
)

// States lists all states in the order of an intent's life.
func States() []State { return []State{Pending, Sending, Sent, Error, Cancelled} }

// Event is what moves an intent from one state to another.
type Event string

// The events of the engine, and those of a verdict: a person's verb, a probe's answer, or a hand-written
// UPDATE, which the database treats as one of them.
const (
	Requested Event = "requested" // the application created it
	Attempted Event = "attempted" // a worker claimed it
	Succeeded Event = "succeeded" // the worker that held it did it
	Retried   Event = "retried"   // surely not done, or idempotent: to be tried again
	Failed    Event = "failed"    // surely not done and not to be tried again
	Happened  Event = "happened"  // verdict: it was done
	Retry     Event = "retry"     // verdict: it was not done, try again
	GiveUp    Event = "give-up"   // verdict: stop here
	Cancel    Event = "cancel"    // never run it
)

// Quarantined is the event of a quarantine: the database lost its past, and the row may have been run in it.
const Quarantined Event = "quarantined"

// Author says which kind of statement asks for a transition.
type Author string

// The engine names its event in the statement that changes the state. A hand-written statement, the four
// verbs and a probe's verdict leave the event column alone and the database fills it in. A restore is the
// quarantine's alone, which has a door of its own in the database.
const (
	Engine  Author = "engine"
	Hand    Author = "hand"
	Restore Author = "restore"
)

// Transition is one row of the table.
type Transition struct {
	From    State
	Flagged Flag // what the row's flag must be
	Event   Event
	To      State
	By      Author
}

// Flag is a transition's demand on the ambiguous flag.
type Flag string

// A worker's own report counts whether the row was flagged meanwhile or not; a verdict moves a sending row
// only when it is flagged.
const (
	AnyFlag     Flag = "any"
	OnlyFlagged Flag = "flagged"
)

var table = []Transition{
	{Pending, AnyFlag, Attempted, Sending, Engine},
	{Sending, AnyFlag, Succeeded, Sent, Engine},
	{Sending, AnyFlag, Retried, Pending, Engine},
	{Sending, AnyFlag, Failed, Error, Engine},
	{Sending, OnlyFlagged, Happened, Sent, Hand},
	{Sending, OnlyFlagged, Retry, Pending, Hand},
	{Sending, OnlyFlagged, GiveUp, Error, Hand},
	{Error, AnyFlag, Happened, Sent, Hand},
	{Error, AnyFlag, Retry, Pending, Hand},
	{Error, AnyFlag, Cancel, Cancelled, Hand},
	{Pending, AnyFlag, Cancel, Cancelled, Hand},
	{Pending, AnyFlag, Quarantined, Sending, Restore}, // and flagged at once
}

// Transitions returns a copy of the whole table.
func Transitions() []Transition { return slices.Clone(table) }

// Find returns the transition that author may make between two states, given whether the row is flagged.
func Find(from State, flagged bool, to State, author Author) (Transition, bool) {
	for _, t := range table {
		if t.From == from && t.To == to && t.By == author && (flagged || t.Flagged == AnyFlag) {
			return t, true
		}
	}
	return Transition{}, false
}

// Verbs lists the verdict events that are legal in a position: the ways out that a person is shown.
func Verbs(from State, flagged bool) []Event {
	var verbs []Event
	for _, t := range table {
		if t.By == Hand && t.From == from && (flagged || t.Flagged == AnyFlag) {
			verbs = append(verbs, t.Event)
		}
	}
	return verbs
}

// Final reports whether nothing leaves the state.
func Final(s State) bool {
	return !slices.ContainsFunc(table, func(t Transition) bool { return t.From == s })
}

// ambiguous is how the flag is drawn: a flagged Sending row, beside the plain one.
const ambiguous = "sending_flagged"

// Machine returns a looplab/fsm machine of the table, standing at Pending. A flagged Sending is a node of
// its own there, because the library knows no conditions on a transition. The returned machine belongs to
// the caller.
func Machine() *fsm.FSM {
	events := fsm.Events{{Name: "flagged", Src: []string{string(Sending)}, Dst: ambiguous}}
	for _, t := range table {
		var src []string
		if t.Flagged == AnyFlag {
			src = append(src, string(t.From))
		}
		if t.From == Sending {
			src = append(src, ambiguous)
		}
		to := string(t.To)
		if t.By == Restore {
			to = ambiguous
		}
		events = append(events, fsm.EventDesc{Name: string(t.Event), Src: src, Dst: to})
	}
	return fsm.NewFSM(string(Pending), events, nil)
}

// Diagram draws the table as a Mermaid state diagram, the one in docs/states.md.
func Diagram() (string, error) {
	return fsm.VisualizeForMermaidWithGraphType(Machine(), fsm.StateDiagram)
}
