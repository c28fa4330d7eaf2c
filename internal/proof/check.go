package proof

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Report is what came of a check.
type Report struct {
	Created   int // rows
	Sent      int
	Error     int
	Cancelled int
	Flagged   int // ever flagged
	Undecided int // flagged still
	Late      int // late reports: outcomes that came after a verdict
	Overslept int // effects after deadline + settle, of a process that had been frozen: the residual risk

	Lost       int // acknowledged and not there, or sent and never done
	Doubled    int // done twice though not idempotent
	Unfinished int // neither final nor flagged, and nobody at it

	Violations []Violation
}

// Violation is one invariant that does not hold for one intent.
type Violation struct {
	Invariant string // I1 … I13
	ID        uuid.UUID
	What      string
	Story     string // all that is known of the intent, in the order of time
}

func (v Violation) String() string { return fmt.Sprintf("%s %s: %s", v.Invariant, v.ID, v.What) }

// Line is the report in one line.
func (r Report) Line() string {
	return fmt.Sprintf("created %d sent %d error %d cancelled %d flagged %d (%d undecided) late %d overslept %d lost %d doubled %d unfinished %d",
		r.Created, r.Sent, r.Error, r.Cancelled, r.Flagged, r.Undecided, r.Late, r.Overslept, r.Lost, r.Doubled, r.Unfinished)
}

// Err is nil if every invariant holds.
func (r Report) Err() error {
	if len(r.Violations) == 0 {
		return nil
	}
	return fmt.Errorf("proof: %d violations: %s", len(r.Violations), r.tally())
}

// tally counts violations by invariant.
func (r Report) tally() string {
	counts := map[string]int{}
	for _, v := range r.Violations {
		counts[v.Invariant]++
	}
	var words []string
	for _, rule := range append(slices.Clone(rules), rule{name: "I9"}) {
		if n := counts[rule.name]; n > 0 {
			words = append(words, fmt.Sprintf("%s %d", rule.name, n))
			delete(counts, rule.name)
		}
	}
	return strings.Join(words, ", ")
}

// Print writes up to most violations with the stories of their intents.
func (r Report) Print(w io.Writer, most int) {
	told := map[uuid.UUID]bool{}
	for i, v := range r.Violations {
		if i == most {
			fmt.Fprintf(w, "and %d violations more: %s in all\n", len(r.Violations)-most, r.tally())
			return
		}
		fmt.Fprintln(w, v)
		if !told[v.ID] {
			told[v.ID] = true
			fmt.Fprint(w, v.Story)
		}
	}
}

// sort says what a fault counts as, besides being one.
type sort int

const (
	plain sort = iota
	lost
	doubled
	unfinished
)

// fault is what a rule has to say against a story.
type fault struct {
	what string
	sort sort
}

func faultf(format string, args ...any) fault { return fault{what: fmt.Sprintf(format, args...)} }

func (f fault) as(s sort) fault { f.sort = s; return f }

// rule is an invariant of one intent.
type rule struct {
	name string
	find func(*court, *story) []fault
}

// rules in the order of docs/protocol.md. I9 is of the whole, and I12 is for schedules, which do not exist yet.
var rules = []rule{
	{"I1", createdOnce},
	{"I2", effectAfterClaim},
	{"I3", startedOnce},
	{"I3", epochsWithoutGap},
	{"I4", onlyLegal},
	{"I4", deadForSure},
	{"I5", notBeforeItsTime},
	{"I6", notOnAGuess},
	{"I6", heldInQuarantine},
	{"I7", stateIsTrue},
	{"I8", nothingOpen},
	{"I10", outcomeKept},
	{"I11", attemptsBounded},
	{"I13", publishedCommitted},
}

// court is the evidence, prepared for the rules.
type court struct {
	*Evidence
	overslept map[uuid.UUID]bool
}

// frozen reports whether a process was stopped at any time between two.
func (c *court) frozen(pid int, from, to time.Time) bool {
	return slices.ContainsFunc(c.Freezes, func(f Freeze) bool { return f.PID == pid && f.From.Before(to) && f.To.After(from) })
}

// Check verifies I1 to I11 and I13 of docs/protocol.md. It assumes what they assume: truthful handlers and persons.
func Check(e Evidence) Report {
	c := &court{Evidence: &e, overslept: map[uuid.UUID]bool{}}
	var r Report
	for _, s := range stories(&e) {
		sorts := map[sort]bool{}
		for _, rule := range rules {
			for _, f := range rule.find(c, s) {
				sorts[f.sort] = true
				r.Violations = append(r.Violations, Violation{rule.name, s.id, f.what, s.String()})
			}
		}
		r.count(s, sorts)
	}
	r.Overslept = len(c.overslept)
	for _, f := range atRest(e.Rest) {
		r.Violations = append(r.Violations, Violation{Invariant: "I9", What: f.what})
	}
	return r
}

func (r *Report) count(s *story, sorts map[sort]bool) {
	for n, counts := range map[*int]bool{&r.Lost: sorts[lost], &r.Doubled: sorts[doubled], &r.Unfinished: sorts[unfinished]} {
		if counts {
			*n++
		}
	}
	if slices.ContainsFunc(s.changes, func(c Change) bool { return c.Flag != "" }) {
		r.Flagged++
	}
	for _, l := range s.log {
		if l.Event == "late-report" {
			r.Late++
		}
	}
	if s.row == nil {
		return
	}
	r.Created++
	switch {
	case s.row.State == "sent":
		r.Sent++
	case s.row.State == "error":
		r.Error++
	case s.row.State == "cancelled":
		r.Cancelled++
	case s.row.Flag != "":
		r.Undecided++
	}
}
