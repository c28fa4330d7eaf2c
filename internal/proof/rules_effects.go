package proof

import (
	"maps"
	"slices"

	"github.com/writhq/writ/fsm"
	"github.com/writhq/writ/internal/proof/ledger"
)

// effectAfterClaim is I2: each outside effect, and each start of a handler, has a claim of the same id, epoch and worker
// committed before it, and committed so that a crash of the server does not lose it.
func effectAfterClaim(_ *court, s *story) (faults []fault) {
	for _, v := range s.visits {
		claim := s.heldBy(v.Epoch, v.Worker)
		switch {
		case claim == nil:
			faults = append(faults, faultf("worker %s called at epoch %d, and has no claim of it", v.Worker, v.Epoch))
		case !claim.At.Before(v.At):
			faults = append(faults, faultf("called at %s at epoch %d, claimed at %s", clock(v.At), v.Epoch, clock(claim.At)))
		case v.Claim == ledger.Missing:
			faults = append(faults, faultf("called at epoch %d before others could see the claim", v.Epoch))
		}
	}
	for _, r := range s.runs {
		claim := s.heldBy(r.Epoch, r.Worker)
		switch {
		case claim == nil:
			faults = append(faults, faultf("worker %s ran it at epoch %d, and has no claim of it", r.Worker, r.Epoch))
		case r.Said == SaidStarted && !claim.At.Before(r.At):
			faults = append(faults, faultf("its handler started at %s at epoch %d, claimed at %s", clock(r.At), r.Epoch, clock(claim.At)))
		}
	}
	for _, ch := range s.changes {
		if ch.claims() && ch.Synchronous == "off" {
			faults = append(faults, faultf("the claim of epoch %d was committed asynchronously", ch.Epoch))
		}
	}
	return faults
}

// startedOnce is the first half of I3: at most one start of a handler, and at most one call of it, per epoch.
func startedOnce(_ *court, s *story) (faults []fault) {
	type step struct{ epoch, step int }
	starts, calls := map[int]int{}, map[step]int{}
	for _, r := range s.runs {
		if r.Said == SaidStarted {
			starts[r.Epoch]++
		}
	}
	for _, v := range s.visits {
		calls[step{v.Epoch, v.Step}]++
	}
	for epoch, n := range starts {
		if n > 1 {
			faults = append(faults, faultf("%d handlers were started at epoch %d", n, epoch))
		}
	}
	for at, n := range calls {
		if n > 1 {
			faults = append(faults, faultf("called %d times at epoch %d, step %d", n, at.epoch, at.step))
		}
	}
	return faults
}

// notOnAGuess is I6: between the claims of two effects of one intent stands a not-done outcome, a person, or an idempotent
// kind; and as handlers and persons are truthful, and effects land within settle, there is at most one effect. Of a job of
// several steps this is so of each step: what was not done is the rest of it.
func notOnAGuess(c *court, s *story) (faults []fault) {
	if s.kind.idempotent() {
		return nil
	}
	effects := s.effects()
	for _, ch := range s.changes {
		if !ch.moves() || ch.Event != string(fsm.Retried) {
			continue
		}
		if ch.Epoch != ch.OldEpoch {
			faults = append(faults, faultf("retried at epoch %d without a word of its handler or a person", ch.OldEpoch))
			continue
		}
		for _, r := range s.runs {
			if r.Epoch == ch.Epoch && r.Worker == ch.Worker && slices.Contains([]Said{SaidDone, SaidUnknown, SaidPanic}, r.Said) {
				faults = append(faults, faultf("retried at epoch %d, though its handler said %s", ch.Epoch, r.Said))
			}
		}
		if c.Steps[s.kind.Name] == 0 && slices.ContainsFunc(effects, func(v ledger.Visit) bool { return v.Epoch == ch.Epoch }) {
			faults = append(faults, faultf("retried as not done at epoch %d, and it was done", ch.Epoch))
		}
	}
	for _, step := range steps(effects) {
		faults = append(faults, c.onlyOnce(s, step)...)
	}
	return faults
}

// steps parts effects by step, each in their order.
func steps(effects []ledger.Visit) [][]ledger.Visit {
	byStep := map[int][]ledger.Visit{}
	for _, v := range effects {
		byStep[v.Step] = append(byStep[v.Step], v)
	}
	out := make([][]ledger.Visit, 0, len(byStep))
	for _, n := range slices.Sorted(maps.Keys(byStep)) {
		out = append(out, byStep[n])
	}
	return out
}

// onlyOnce is what notOnAGuess says of the effects of one step.
func (c *court) onlyOnce(s *story, effects []ledger.Visit) (faults []fault) {
	for i := 1; i < len(effects); i++ {
		if !s.reason(effects[i-1].Epoch, effects[i].Epoch) {
			faults = append(faults, faultf("claimed again at epoch %d after %d on a guess", effects[i].Epoch, effects[i-1].Epoch))
		}
	}
	truly := 0
	for _, v := range effects {
		switch c.landing(s, v) {
		case inTime:
			truly++
		case overslept:
			c.overslept[s.id] = true
		case beyond:
			truly++
			faults = append(faults, faultf("the effect of epoch %d landed at %s, after deadline and settle, and its process was never frozen", v.Epoch, clock(*v.Recorded)))
		}
	}
	if truly > 1 {
		faults = append(faults, faultf("done %d times", truly).as(doubled))
	}
	return faults
}

// reason reports whether between the claims of two epochs anybody said that it was not done.
func (s *story) reason(first, second int) bool {
	return slices.ContainsFunc(s.changes, func(ch Change) bool {
		said := ch.Event == string(fsm.Retried) || byHand(ch.Event)
		return ch.moves() && said && ch.OldEpoch >= first && ch.OldEpoch < second
	})
}

type landing int

const (
	inTime landing = iota
	overslept
	beyond
)

// landing says whether an effect came within deadline and settle of its claim; and if not, whether a freeze explains it.
func (c *court) landing(s *story, v ledger.Visit) landing {
	claim := s.claim(v.Epoch)
	switch {
	case claim == nil || !v.Recorded.After(claim.DeadlineAt.Add(s.kind.Settle)):
		return inTime
	case c.frozen(v.PID, claim.At, *v.Recorded):
		return overslept
	}
	return beyond
}

// stateIsTrue is I7, at rest: sent means done, in the attempt that says so; error by not-done, pending and cancelled mean
// never done, unless idempotent. What a person decided is exempt. The application's own row, written by the hook of
// job.Done, or by OnHappened after a verdict, is there exactly once if it is sent, and never else.
func stateIsTrue(c *court, s *story) (faults []fault) {
	sent := 0
	for _, ch := range s.changes {
		if ch.moves() && (ch.Event == string(fsm.Succeeded) || ch.Event == string(fsm.Happened)) {
			sent++
		}
		if ch.moves() && ch.Event == string(fsm.Succeeded) {
			if n := c.Steps[s.kind.Name]; n > 0 {
				if done := len(steps(s.effects())); done != n {
					faults = append(faults, faultf("sent at epoch %d with %d of %d steps done", ch.Epoch, done, n).as(lost))
				}
				continue
			}
			if !slices.ContainsFunc(s.effects(), func(v ledger.Visit) bool { return v.Epoch == ch.Epoch && v.Worker == ch.Worker }) {
				faults = append(faults, faultf("sent at epoch %d, and never done in it", ch.Epoch).as(lost))
			}
		}
	}
	for _, ch := range s.changes {
		if ch.moves() && ch.Event == string(fsm.Happened) && s.probed(ch) && len(s.effects()) == 0 {
			faults = append(faults, faultf("its probe said at epoch %d that it happened, and it was never done", ch.OldEpoch).as(lost))
		}
	}
	if c.Hooked[s.kind.Name] && s.receipts != sent {
		faults = append(faults, faultf("%d receipts of the application; want %d", s.receipts, sent))
	}
	if s.row == nil || s.decided() || s.kind.idempotent() || c.Steps[s.kind.Name] > 0 {
		return faults
	}
	if n := len(s.effects()); n > 0 && s.row.State != string(fsm.Sent) && s.row.State != string(fsm.Sending) {
		faults = append(faults, faultf("%s, and done %d times", s.row.State, n))
	}
	return faults
}

// outcomeKept is I10: what a handler returned in a worker that ended in good order was written as it was said, or stands in
// the log as a late report; and nothing was written in its name that it had not said.
func outcomeKept(c *court, s *story) (faults []fault) {
	if c.Runs != nil {
		faults = s.unsaid()
	}
	for _, r := range s.runs {
		if r.Said == SaidStarted {
			continue
		}
		events := s.writtenBy(r)
		if len(events) == 0 && c.Ended[r.Worker] == Drained {
			faults = append(faults, faultf("its handler said %s at epoch %d, and nothing was written, nor reported late", r.Said, r.Epoch))
		}
		for _, event := range events {
			if !slices.Contains(s.fitting(r.Said), event) {
				faults = append(faults, faultf("its handler said %s at epoch %d, and %s was written", r.Said, r.Epoch, event))
			}
		}
	}
	return faults
}

// unsaid finds outcomes that were written in a worker's name before its handler said so. An attempt that was handed back
// unbegun has no handler.
func (s *story) unsaid() (faults []fault) {
	for _, ch := range s.changes {
		if !ch.worded() {
			continue
		}
		started, said := false, false
		for _, r := range s.runs {
			if r.Epoch == ch.Epoch && r.Worker == ch.Worker {
				started = true
				said = said || r.Said != SaidStarted && !r.At.After(ch.At)
			}
		}
		if !said && (started || ch.Event != string(fsm.Retried)) {
			faults = append(faults, faultf("%s was written at epoch %d before its handler had said anything", ch.Event, ch.Epoch))
		}
	}
	return faults
}

// worded reports whether the change is a worker's own word on an attempt.
func (c Change) worded() bool {
	return c.moves() && c.Epoch == c.OldEpoch && slices.Contains([]string{string(fsm.Succeeded), string(fsm.Retried), string(fsm.Failed)}, c.Event)
}

// writtenBy lists what was written of a handler's outcome: the events of its worker at its epoch, and late-report.
func (s *story) writtenBy(r Run) (events []string) {
	for _, ch := range s.changes {
		if ch.worded() && ch.Worker == r.Worker && ch.Epoch == r.Epoch {
			events = append(events, ch.Event)
		}
	}
	for _, l := range s.log {
		if l.Epoch == r.Epoch && l.Worker == r.Worker && l.Actor == "worker" && (l.Event == "flagged" || l.Event == lateReport) {
			events = append(events, l.Event)
		}
	}
	return events
}

const lateReport = "late-report"

// fitting lists what may be written where a handler said something. A flag may always come first: overdue, unwritten, or
// a hook that failed; and a late report is kept whatever was said.
func (s *story) fitting(said Said) []string {
	always := []string{"flagged", lateReport}
	switch said {
	case SaidDone:
		return append(always, string(fsm.Succeeded))
	case SaidNotDone:
		return append(always, string(fsm.Retried), string(fsm.Failed))
	case SaidSnooze, SaidOver:
		return append(always, string(fsm.Retried))
	case SaidStop:
		return append(always, string(fsm.Failed))
	}
	if s.kind.idempotent() {
		return append(always, string(fsm.Retried), string(fsm.Failed))
	}
	return always
}
