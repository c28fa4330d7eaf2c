package proof

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/writhq/writ/fsm"
	"github.com/writhq/writ/internal/proof/ledger"
)

// story is all that is known of one intent.
type story struct {
	id       uuid.UUID
	kind     Kind
	acks     []Ack
	changes  []Change
	log      []Entry
	visits   []ledger.Visit
	runs     []Run
	hints    []Hint
	row      *Row
	receipts int
}

// effects are the visits that were recorded.
func (s *story) effects() []ledger.Visit {
	return slices.DeleteFunc(slices.Clone(s.visits), func(v ledger.Visit) bool { return v.Recorded == nil })
}

// claim returns the claim of an epoch, or nil.
func (s *story) claim(epoch int) *Change {
	for i := range s.changes {
		if c := &s.changes[i]; c.claims() && c.Epoch == epoch {
			return c
		}
	}
	return nil
}

// decided reports whether a person, or a hand-written statement, ever moved it. A probe is no person: it is held to the truth.
func (s *story) decided() bool {
	return slices.ContainsFunc(s.changes, func(c Change) bool { return c.moves() && byHand(c.Event) && !s.probed(c) })
}

// probed reports whether a change is a probe's verdict.
func (s *story) probed(c Change) bool {
	return slices.ContainsFunc(s.log, func(l Entry) bool { return l.Actor == "probe" && l.Event == c.Event && l.Epoch == c.OldEpoch })
}

func (s *story) inserts() (n int) {
	for _, c := range s.changes {
		if c.Op == "INSERT" {
			n++
		}
	}
	return n
}

// byHand reports whether an event is a verdict's.
func byHand(event string) bool {
	return slices.ContainsFunc(fsm.Transitions(), func(t fsm.Transition) bool { return string(t.Event) == event && t.By == fsm.Hand })
}

// line is one moment of a story.
type line struct {
	at   time.Time
	text string
}

// String tells the whole story in the order of time.
func (s *story) String() string {
	var lines []line
	add := func(at time.Time, format string, args ...any) {
		lines = append(lines, line{at, fmt.Sprintf(format, args...)})
	}
	for _, a := range s.acks {
		add(a.At, "creator   %s", a.Answer)
	}
	for _, c := range s.changes {
		add(c.At, "database  %s", c)
	}
	for _, e := range s.log {
		add(e.At, "log       %s epoch %d by %s%s: %s %s", e.Event, e.Epoch, e.Actor, of(e.Worker), e.Why, e.Evidence)
	}
	for _, h := range s.hints {
		add(h.At, "hint      %s at epoch %d", h.Op, h.Epoch)
	}
	for _, r := range s.runs {
		add(r.At, "handler   %s, epoch %d%s pid %d", r.Said, r.Epoch, of(r.Worker), r.PID)
	}
	for _, v := range s.visits {
		claim := ""
		if v.Claim != ledger.NotAsked {
			claim = ", its claim is " + string(v.Claim)
		}
		add(v.At, "ledger    called, epoch %d%s pid %d, key %s: %s%s", v.Epoch, of(v.Worker), v.PID, v.Key, v.Behaviour, claim)
		if v.Recorded != nil {
			add(*v.Recorded, "ledger    the effect of epoch %d%s happens", v.Epoch, of(v.Worker))
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return a.at.Compare(b.at) })
	var b strings.Builder
	fmt.Fprintf(&b, "intent %s, kind %s (%s, at most %d attempts, settle %v)\n", s.id, s.kind.Name, s.kind.Class, s.kind.MaxAttempts, s.kind.Settle)
	for _, l := range lines {
		fmt.Fprintf(&b, "  %s  %s\n", l.at.UTC().Format("15:04:05.000000"), strings.TrimSpace(l.text))
	}
	if s.row == nil {
		b.WriteString("  there is no row\n")
	} else {
		fmt.Fprintf(&b, "  at rest: %s%s, epoch %d, attempt %d%s\n", s.row.State, flagged(s.row.Flag), s.row.Epoch, s.row.Attempt, of(s.row.Worker))
	}
	return b.String()
}

// String tells what the change did.
func (c Change) String() string {
	switch c.Op {
	case "INSERT":
		return fmt.Sprintf("created %s, run_at %s, transaction %d", c.To, clock(c.RunAt), c.XID)
	case "DELETE":
		return fmt.Sprintf("deleted as %s", c.From)
	}
	what := cmp.Or(c.Event, "(no event)")
	if !c.Named {
		what = "update"
	}
	return fmt.Sprintf("%s: %s%s → %s%s, epoch %d → %d, attempt %d → %d%s, run_at %s, deadline %s, transaction %d (synchronous_commit %s) of %s",
		what, c.From, flagged(c.OldFlag), c.To, flagged(c.Flag), c.OldEpoch, c.Epoch, c.OldAttempt, c.Attempt, of(c.Worker), clock(c.RunAt),
		clock(c.DeadlineAt), c.XID, c.Synchronous, c.Application)
}

func clock(t time.Time) string {
	if t.Unix() == 0 || t.IsZero() {
		return "none"
	}
	return t.UTC().Format("15:04:05.000000")
}

func flagged(why string) string {
	if why == "" {
		return ""
	}
	return " (flagged: " + why + ")"
}

func of(worker uuid.UUID) string {
	if worker == uuid.Nil {
		return ""
	}
	return ", worker " + worker.String()[:13]
}

// stories sorts the evidence by intent, in the order of ids, which is that of creation.
func stories(e *Evidence) []*story {
	kinds := map[string]Kind{}
	for _, k := range e.Kinds {
		kinds[k.Name] = k
	}
	byID := map[uuid.UUID]*story{}
	of := func(id uuid.UUID) *story {
		s := byID[id]
		if s == nil {
			// What no worker ever declared has the defaults, and the strictest class.
			s = &story{id: id, kind: Kind{Class: "manual", MaxAttempts: 10, Settle: 30 * time.Second}}
			byID[id] = s
		}
		return s
	}
	named := func(s *story, kind string) {
		if k, ok := kinds[kind]; ok {
			s.kind = k
		} else if kind != "" {
			s.kind.Name = kind
		}
	}
	for _, a := range e.Acks {
		of(a.ID).acks = append(of(a.ID).acks, a)
	}
	for _, v := range e.Visits {
		of(v.ID).visits = append(of(v.ID).visits, v)
		named(of(v.ID), v.Kind)
	}
	for _, r := range e.Runs {
		of(r.ID).runs = append(of(r.ID).runs, r)
	}
	for _, h := range e.Hints {
		of(h.ID).hints = append(of(h.ID).hints, h)
	}
	for _, l := range e.Log {
		if l.ID != uuid.Nil { // the installation's own
			of(l.ID).log = append(of(l.ID).log, l)
		}
	}
	for _, c := range e.Changes {
		of(c.ID).changes = append(of(c.ID).changes, c)
		named(of(c.ID), c.Kind)
	}
	for i, r := range e.Rows {
		of(r.ID).row = &e.Rows[i]
		named(of(r.ID), r.Kind)
	}
	for id, n := range e.Receipts {
		of(id).receipts = n
	}
	out := make([]*story, 0, len(byID))
	for _, s := range byID {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *story) int { return slices.Compare(a.id[:], b.id[:]) })
	return out
}
