// Package intent is what an application sees of Writ: declare a kind of job once, create intents in your own
// transactions, read where they stand, and settle those that need a decision.
//
// An application that only creates intents depends on this package alone; it links neither the broker nor the workers.
package intent

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Kind declares one kind of job, as a value that creators and workers share. T is the type of its arguments: what
// encoding/json makes of it is the contract between both sides, so prefer ids to whole objects. Zero fields mean the
// defaults. The value is read only and may be copied and used concurrently.
type Kind[T any] struct {
	// Name is application.model.verb in lower case, like blog.comment.notify. Required.
	Name string

	// Queue that the hints of this kind go through. Default: the kind's own name. Kinds may share one; slow and fast
	// kinds are better apart.
	Queue string

	// Priority of the kind's hints before those of other kinds, where there is more to do than can be done at once. High and low ones go
	// through queues of their own: the Queue's name with .hi or .lo after it. Default: Normal.
	Priority Priority

	// Timeout of one attempt, measured by the worker from before its claim was sent. Then the handler's context is
	// cancelled. Default 60 s; at least 1 ms.
	Timeout time.Duration

	// Settle is how long after the deadline an outside effect may still land. Only after deadline + Settle does
	// «not there» mean that it was not done. Default 30 s; negative: none.
	Settle time.Duration

	// MaxAttempts between two acts of a person; snoozes are not counted. Default 10; 1: never retried by itself.
	MaxAttempts int

	// Backoff between attempts that were surely not done.
	Backoff Backoff

	// Idempotent says that a second run of the same intent does no harm: outcomes that nobody knows are then simply
	// retried, and never flagged. Two runs of it may overlap.
	Idempotent bool

	// Retention of finished rows.
	Retention Retention

	// ArgsVersion is written on each intent; raise it when T changes so that a worker must tell old from new. Workers bring older
	// ones up to date by Handler.Upgrade, and leave newer ones to newer workers. Default 1.
	ArgsVersion int

	// Schema that the arguments must fit: checked at creation, and before the handler is run, for creators in SQL. See package
	// intent/schema. Default: none; arguments must be such that they can be decoded into T.
	Schema Schema

	// MaxArgs bounds the encoded arguments, in bytes. Default 64 KiB; at most 1 MiB.
	MaxArgs int

	// Limits over all worker processes together: at most one of the kind as a whole, and one of each key within it. They are
	// defaults: what a person sets (SetLimit, writ limits set) counts before them. Default: none.
	Limits []Limit
}

// Priority of a kind: in each worker process, where hints of several priorities wait, nine of ten handlers that begin are not of low
// priority, and seven are of high priority; so a backlog of lower ones does not hold up the higher, and none starves. Where a process has kinds of
// a higher priority, a tenth of its slots, and one at least, is left to those.
type Priority int

// The priorities.
const (
	Normal Priority = iota
	High
	Low
)

// suffixes of the queues.
var suffixes = map[Priority]string{Normal: "", High: ".hi", Low: ".lo"}

// Schema is a contract on arguments beyond what T says. It is safe for concurrent use.
type Schema interface {
	// Check returns nil, or what does not fit.
	Check(args json.RawMessage) error
	// MarshalJSON returns the contract as a JSON Schema.
	MarshalJSON() ([]byte, error)
}

// Backoff is the delay before attempt n + 1: a random part (full jitter) of Min · Factor^(n-1), at most Max. It is kept
// in the database, so it survives restarts. (Exponential Backoff and Jitter, AWS Architecture Blog, 2015.)
type Backoff struct {
	Min    time.Duration // default 1 s
	Max    time.Duration // default 1 h
	Factor float64       // default 2; 1 to 1,000
}

// Retention is how long finished rows are kept. Forever keeps them for ever.
type Retention struct {
	Sent      time.Duration // default 7 days; never shorter than a creator's window of retries with the same id
	Error     time.Duration // default Forever
	Cancelled time.Duration // default 30 days
}

// Forever as a retention keeps rows for ever.
const Forever time.Duration = -1

// Defaults of a kind, from docs/protocol.md.
const (
	DefaultTimeout     = 60 * time.Second
	DefaultSettle      = 30 * time.Second
	DefaultMaxAttempts = 10
	DefaultMaxArgs     = 64 << 10
	DefaultBackoffMin  = time.Second
	DefaultBackoffMax  = time.Hour

	day = 24 * time.Hour
)

// Settings is a kind's declaration with its defaults filled in and without its type, as workers register it.
type Settings struct {
	Name, Queue     string // the queue's name is whole: with its priority
	Priority        Priority
	Timeout, Settle time.Duration
	MaxAttempts     int
	Backoff         Backoff
	Idempotent      bool
	Retention       Retention
	ArgsVersion     int
	Schema          Schema // nil: none
	MaxArgs         int
	Limits          []Limit
}

// Settings fills in the defaults and reports all faults of the declaration at once, each an *InvalidError.
func (k Kind[T]) Settings() (Settings, error) {
	s := Settings{
		Name: k.Name, Queue: cmp.Or(k.Queue, k.Name) + suffixes[k.Priority], Priority: k.Priority,
		Timeout: cmp.Or(k.Timeout, DefaultTimeout), Settle: max(0, cmp.Or(k.Settle, DefaultSettle)),
		MaxAttempts: cmp.Or(k.MaxAttempts, DefaultMaxAttempts),
		Backoff: Backoff{
			Min: cmp.Or(k.Backoff.Min, DefaultBackoffMin), Max: cmp.Or(k.Backoff.Max, DefaultBackoffMax),
			Factor: cmp.Or(k.Backoff.Factor, 2),
		},
		Idempotent: k.Idempotent,
		Retention: Retention{
			Sent: cmp.Or(k.Retention.Sent, 7*day), Error: cmp.Or(k.Retention.Error, Forever),
			Cancelled: cmp.Or(k.Retention.Cancelled, 30*day),
		},
		ArgsVersion: cmp.Or(k.ArgsVersion, 1), Schema: k.Schema, MaxArgs: cmp.Or(k.MaxArgs, DefaultMaxArgs),
	}
	var limits error
	s.Limits, limits = settleLimits(k.Limits)
	var faults []error
	bad := func(field, problem, fix string) { // called for a fault only: each creation comes along here
		faults = append(faults, &InvalidError{Field: "kind " + k.Name + ": " + field, Problem: problem, Fix: fix})
	}
	if err := checkName(k.Name); err != nil {
		faults = append(faults, err)
	}
	if !validQueue(s.Queue) {
		bad("Queue", fmt.Sprintf("%q is not one", s.Queue), "1 to 200 bytes of letters, digits, and . _ : -")
	}
	if s.Priority < Normal || s.Priority > Low {
		bad("Priority", fmt.Sprintf("is %d", s.Priority), "Normal, High or Low")
	}
	if s.Timeout < time.Millisecond {
		bad("Timeout", fmt.Sprintf("is %v", s.Timeout), "at least 1ms; zero is the default of 60s")
	}
	if s.MaxAttempts < 1 {
		bad("MaxAttempts", fmt.Sprintf("is %d", s.MaxAttempts), "at least 1; zero is the default of 10")
	}
	if b := s.Backoff; !(b.Min > 0 && b.Max >= b.Min && b.Factor >= 1 && b.Factor <= 1000) { // so that NaN is a fault
		bad("Backoff", fmt.Sprintf("is %v to %v by %v", b.Min, b.Max, b.Factor), "0 < Min <= Max, 1 <= Factor <= 1000")
	}
	if s.ArgsVersion < 1 {
		bad("ArgsVersion", fmt.Sprintf("is %d", s.ArgsVersion), "at least 1")
	}
	if s.MaxArgs < 1 || s.MaxArgs > 1<<20 {
		bad("MaxArgs", fmt.Sprintf("is %d", s.MaxArgs), "1 byte to 1 MiB")
	}
	if limits != nil {
		bad("Limits", limits.Error(), "see intent.Limit")
	}
	return s, errors.Join(faults...)
}

// checkName holds a kind's name to its format; sql/create.sql has the same rule for hand-written SQL.
func checkName(name string) error {
	return checkParts("kind", name, "use application.model.verb in lower case, like blog.comment.notify, at most 100 bytes", func(parts int) string {
		if parts != 3 {
			return fmt.Sprintf("has %d parts instead of 3", parts)
		}
		return ""
	})
}

// checkParts holds a name to what those of kinds and events have in common; count says what is wrong with so many parts.
func checkParts(field, name, fix string, count func(parts int) string) error {
	fault := func(format string, a ...any) error {
		return &InvalidError{Field: field, Problem: fmt.Sprintf(format, a...), Fix: fix}
	}
	parts := strings.Split(name, ".")
	switch problem := count(len(parts)); {
	case name == "":
		return fault("is empty")
	case len(name) > 100:
		return fault("has %d bytes", len(name))
	case problem != "":
		return fault("%q %s", name, problem)
	}
	for _, part := range parts {
		if !validPart(part) {
			return fault("%q: part %q must begin with a-z and hold only a-z, 0-9, _ and -", name, part)
		}
	}
	return nil
}

func validQueue(s string) bool {
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune("0123456789._:-", r) {
			return false
		}
	}
	return len(s) <= 200
}

func validPart(s string) bool {
	for i, r := range s {
		letter := r >= 'a' && r <= 'z'
		if !letter && (i == 0 || !strings.ContainsRune("0123456789_-", r)) {
			return false
		}
	}
	return s != ""
}
