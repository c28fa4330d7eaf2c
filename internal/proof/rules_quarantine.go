package proof

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/writhq/writ/fsm"
)

// leap is by how much a quarantine raises the epochs of all that is open.
const leap = 1000

// fenced is what the log says of a row whose epoch a quarantine raised, and that it did not hold.
const fenced = "fenced"

// moved is what it says of a pending row whose time somebody changed.
const moved = "moved"

// leaps reports whether the change is a quarantine's.
func (c Change) leaps() bool { return c.Op == "UPDATE" && c.Epoch == c.OldEpoch+leap }

// quarantine is what the log says of such a change, with who and why; nil: nothing.
func (s *story) quarantine(c Change) *Entry {
	n := slices.IndexFunc(s.log, func(l Entry) bool {
		return (l.Event == string(fsm.Quarantined) || l.Event == fenced) && l.Epoch == c.OldEpoch && l.Actor != "" && l.Why != ""
	})
	if n < 0 {
		return nil
	}
	return &s.log[n]
}

// putOff reports whether somebody put the intent off between the moment that the database went back to and the quarantine:
// what was due before that may have been run in the lost time.
func (s *story) putOff(quarantine *Entry) bool {
	var told struct{ Since time.Time }
	if err := json.Unmarshal([]byte(quarantine.Evidence), &told); err != nil {
		return true // a quarantine that does not say since when lets nothing go on
	}
	return slices.ContainsFunc(s.log, func(l Entry) bool {
		return slices.Contains([]string{string(fsm.Retried), string(fsm.Retry), moved}, l.Event) && !l.At.Before(told.Since) && l.At.Before(quarantine.At)
	})
}

// heldInQuarantine belongs to I6: what may have been run in a past that the database has lost is held for its probe or a
// person, with a deadline as if it had been begun just now. Let go on is only what cannot have been run, or may be run
// again. Neither has a holder any more.
func heldInQuarantine(_ *court, s *story) (faults []fault) {
	for _, ch := range s.changes {
		if ch.Event == string(fsm.Quarantined) && ch.moves() && !ch.leaps() {
			faults = append(faults, faultf("quarantined at epoch %d, and its epoch is not beyond all that were used", ch.OldEpoch))
		}
		said := s.quarantine(ch)
		if !ch.leaps() || said == nil {
			continue // a leap that nobody asked for is a gap
		}
		if ch.From == string(fsm.Error) && ch.To == ch.From && said.Event == fenced {
			continue // that somebody retried it in the lost time is nothing to hold it for
		}
		if ch.Worker != uuid.Nil {
			faults = append(faults, faultf("in a quarantine at epoch %d, and held by worker %s still", ch.OldEpoch, ch.Worker))
		}
		if said.Event == fenced {
			doubtful := ch.From == string(fsm.Sending) || !ch.RunAt.After(ch.BeganAt) || s.putOff(said)
			if !s.kind.idempotent() && doubtful || ch.To != ch.From || ch.OldFlag != "" {
				faults = append(faults, faultf("let go on at epoch %d from %s%s, though it may have been run", ch.OldEpoch, ch.From, flagged(ch.OldFlag)))
			}
			continue
		}
		if ch.To != string(fsm.Sending) || ch.Flag == "" {
			faults = append(faults, faultf("quarantined at epoch %d, and left as %s%s", ch.OldEpoch, ch.To, flagged(ch.Flag)))
		}
		// The server keeps microseconds.
		if ch.DeadlineAt.Before(ch.BeganAt.Truncate(time.Microsecond)) {
			faults = append(faults, faultf("quarantined at epoch %d, and its deadline is %s: nobody waits for what was begun in the lost time", ch.OldEpoch, clock(ch.DeadlineAt)))
		}
	}
	return faults
}
