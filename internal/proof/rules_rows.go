package proof

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/writhq/writ/fsm"
)

// createdOnce is I1: each acknowledged create has exactly one row; unknown ones have 0 or 1; there are no others.
func createdOnce(c *court, s *story) (faults []fault) {
	inserts, deletes := s.inserts(), 0
	for _, ch := range s.changes {
		if ch.Op == "DELETE" {
			deletes++
		}
	}
	if inserts > 1 {
		faults = append(faults, faultf("created %d times", inserts))
	}
	switch {
	case s.row != nil && inserts == 0:
		faults = append(faults, faultf("a row that the history does not know"))
	case s.row == nil && inserts > deletes:
		faults = append(faults, faultf("created, never deleted, and gone").as(lost))
	case s.row != nil && len(s.changes) > 0:
		if last := s.changes[len(s.changes)-1]; last.To != s.row.State || last.Epoch != s.row.Epoch {
			faults = append(faults, faultf("the row is %s at epoch %d, by its history %s at %d", s.row.State, s.row.Epoch, last.To, last.Epoch))
		}
	}
	if c.Acks == nil {
		return faults
	}
	switch answer := told(s.acks); {
	case answer == Acknowledged && inserts == 0:
		faults = append(faults, faultf("acknowledged to its creator, and never there").as(lost))
	case len(s.acks) == 0 && inserts > 0:
		faults = append(faults, faultf("nobody created it, and it is there"))
	case answer == Refused && inserts > 0:
		faults = append(faults, faultf("its creator was told that it was not created, and it was"))
	}
	return faults
}

// told is what a creator knows in the end, after all that it tried under one id.
func told(acks []Ack) Answer {
	open := 0
	for _, a := range acks {
		switch a.Answer {
		case Acknowledged:
			return Acknowledged
		case Begun:
			open++
		case Refused:
			open--
		}
	}
	if open > 0 {
		return Unknown
	}
	return Refused
}

// epochsWithoutGap is the second half of I3: epochs rise by 1 without gaps, with each claim and each verdict but cancel; and by
// 1000 in a quarantine, which the log tells of.
func epochsWithoutGap(_ *court, s *story) (faults []fault) {
	var before *Change
	for i := range s.changes {
		ch := &s.changes[i]
		if before != nil && (ch.OldEpoch != before.Epoch || ch.From != before.To) {
			faults = append(faults, faultf("it changes from %s at epoch %d, but was %s at %d", ch.From, ch.OldEpoch, before.To, before.Epoch))
		}
		before = ch
		if ch.Op != "UPDATE" || ch.leaps() && s.quarantine(*ch) != nil {
			continue
		}
		step := ch.Epoch - ch.OldEpoch
		raises := ch.claims() || ch.moves() && byHand(ch.Event) && ch.Event != string(fsm.Cancel)
		// The reconciler's word on a dead worker of an idempotent kind is a verdict under an engine's event.
		may := raises || ch.moves() && s.kind.idempotent() && (ch.Event == string(fsm.Retried) || ch.Event == string(fsm.Failed))
		if step != 0 && step != 1 || raises && step != 1 || !may && step != 0 {
			faults = append(faults, faultf("epoch %d → %d by %s, %s → %s", ch.OldEpoch, ch.Epoch, ch.Event, ch.From, ch.To))
		}
	}
	return faults
}

// onlyLegal is I4: only legal transitions; nothing leaves sent or cancelled; error is left only by a person. A person's
// word stands in the log, with who and why.
func onlyLegal(_ *court, s *story) (faults []fault) {
	for i, ch := range s.changes {
		switch {
		case ch.Op == "INSERT":
			if i > 0 || ch.To != string(fsm.Pending) || ch.Epoch != 0 || ch.Attempt != 0 || ch.Flag != "" {
				faults = append(faults, faultf("created as %s at epoch %d, attempt %d", ch.To, ch.Epoch, ch.Attempt))
			}
		case ch.Op == "DELETE":
			if ch.From == string(fsm.Pending) || ch.From == string(fsm.Sending) {
				faults = append(faults, faultf("deleted while %s", ch.From))
			}
		case !ch.moves():
			if ch.OldFlag != "" && ch.Flag == "" {
				faults = append(faults, faultf("its flag (%s) was taken away without a decision", ch.OldFlag))
			}
			if ch.Flag != "" && ch.To != string(fsm.Sending) {
				faults = append(faults, faultf("flagged while %s", ch.To))
			}
		default:
			faults = append(faults, illegal(s, ch)...)
		}
	}
	return faults
}

func illegal(s *story, ch Change) []fault {
	author := fsm.Engine
	switch {
	case byHand(ch.Event):
		author = fsm.Hand
	case ch.Event == string(fsm.Quarantined):
		author = fsm.Restore
	}
	t, ok := fsm.Find(fsm.State(ch.From), ch.OldFlag != "", fsm.State(ch.To), author)
	if !ok || string(t.Event) != ch.Event {
		return []fault{faultf("%s%s → %s by %q is not a legal transition", ch.From, flagged(ch.OldFlag), ch.To, ch.Event)}
	}
	if author == fsm.Engine || slices.ContainsFunc(s.log, func(l Entry) bool {
		return l.Event == ch.Event && l.Epoch == ch.OldEpoch && l.Actor != "" && l.Why != ""
	}) {
		return nil
	}
	return []fault{faultf("%s at epoch %d is not in the log with who and why", ch.Event, ch.OldEpoch)}
}

// deadForSure belongs to I4: a worker is taken for dead only after a whole TTL of silence, as the log of that verdict itself
// says. A worker without a row has none to say.
func deadForSure(c *court, s *story) (faults []fault) {
	if c.TTL == 0 {
		return nil
	}
	for _, l := range s.log {
		if l.Actor != "reconciler" || l.Why != "worker-died" {
			continue
		}
		var said struct {
			Heartbeat *time.Time `json:"heartbeat_at"`
		}
		if err := json.Unmarshal([]byte(l.Evidence), &said); err != nil {
			faults = append(faults, faultf("its worker was taken for dead at epoch %d without evidence: %v", l.Epoch, err))
		} else if said.Heartbeat != nil && l.At.Sub(*said.Heartbeat) <= c.TTL {
			faults = append(faults, faultf("its worker was taken for dead at epoch %d after %v of silence; its TTL is %v", l.Epoch, l.At.Sub(*said.Heartbeat), c.TTL))
		}
	}
	return faults
}

// notBeforeItsTime is I5: no claim before run_at, nor of a row that waits for others.
func notBeforeItsTime(_ *court, s *story) (faults []fault) {
	for _, ch := range s.changes {
		if !ch.claims() {
			continue
		}
		if ch.At.Before(ch.OldRunAt) || ch.BeganAt.Before(ch.OldRunAt) {
			faults = append(faults, faultf("claimed at %s (its transaction began at %s), before its time %s", clock(ch.At), clock(ch.BeganAt), clock(ch.OldRunAt)))
		}
		if ch.WaitingOn > 0 {
			faults = append(faults, faultf("claimed while it waits for %d", ch.WaitingOn))
		}
	}
	return faults
}

// attemptsBounded is I11: attempts are counted one by one, and are at most what the kind allows between two acts of a
// person. What was handed back unbegun, or snoozed, is not counted.
func attemptsBounded(_ *court, s *story) (faults []fault) {
	for _, ch := range s.changes {
		step := ch.Attempt - ch.OldAttempt
		switch {
		case ch.Op != "UPDATE":
		case ch.claims():
			if step != 1 {
				faults = append(faults, faultf("attempt %d → %d by a claim", ch.OldAttempt, ch.Attempt))
			}
			if ch.Attempt > s.kind.MaxAttempts {
				faults = append(faults, faultf("attempt %d of at most %d", ch.Attempt, s.kind.MaxAttempts))
			}
		case ch.moves() && ch.Event == string(fsm.Retry) && s.probed(ch):
			if step != 0 {
				faults = append(faults, faultf("attempt %d → %d by a probe's retry; only a person begins anew", ch.OldAttempt, ch.Attempt))
			}
		case ch.moves() && ch.Event == string(fsm.Retry):
			if ch.Attempt != 0 {
				faults = append(faults, faultf("attempt %d after a person's retry; it begins anew", ch.Attempt))
			}
		case ch.moves() && ch.Event == string(fsm.Retried):
			if step != 0 && step != -1 {
				faults = append(faults, faultf("attempt %d → %d by a retry", ch.OldAttempt, ch.Attempt))
			}
		case step != 0:
			faults = append(faults, faultf("attempt %d → %d by %s", ch.OldAttempt, ch.Attempt, ch.Event))
		}
	}
	return faults
}

// publishedCommitted is I13: nothing published that was not committed. A hint, a handler or an effect of an id that no
// committed row has; a hint that was on its way before the commit that calls for it.
func publishedCommitted(_ *court, s *story) (faults []fault) {
	if s.inserts() == 0 {
		for what, n := range map[string]int{"hints": len(s.hints), "handlers": len(s.runs), "calls of the ledger": len(s.visits)} {
			if n > 0 {
				faults = append(faults, faultf("%d %s, and no such row was ever committed", n, what))
			}
		}
		return faults
	}
	calls := func(h Hint, ch Change) bool {
		switch h.Op {
		case "run":
			return ch.To == string(fsm.Pending)
		case "probe":
			return ch.To == string(fsm.Sending)
		}
		return ch.To == string(fsm.Error) || ch.To == string(fsm.Sent) && ch.Event == string(fsm.Happened) // the application's share in it
	}
	for _, h := range s.hints {
		if !slices.ContainsFunc(s.changes, func(ch Change) bool {
			return calls(h, ch) && ch.Epoch == h.Epoch && ch.At.Before(h.At)
		}) {
			faults = append(faults, faultf("a hint to %s it at epoch %d at %s, before any commit that calls for it", h.Op, h.Epoch, clock(h.At)))
		}
	}
	return faults
}

// nothingOpen is I8, at rest: nothing overdue pending, nothing unflagged with a dead worker, no recovery owed; all else
// is final, flagged, or waits for its time.
func nothingOpen(c *court, s *story) []fault {
	r := s.row
	switch {
	case r == nil:
	case r.State == string(fsm.Pending) && !r.RunAt.After(c.At) && r.WaitingOn == 0:
		return []fault{faultf("pending, and due since %s", clock(r.RunAt)).as(unfinished)}
	case r.State == string(fsm.Sending) && r.Flag == "" && !r.WorkerAlive:
		return []fault{faultf("sending, its worker dead, and not flagged").as(unfinished)}
	case r.State == string(fsm.Sending) && r.Flag == "":
		return []fault{faultf("sending still, though all is at rest").as(unfinished)}
	case r.Owed && r.State == string(fsm.Sending):
		return []fault{faultf("flagged, and its probe is still to be asked").as(unfinished)}
	case r.Owed:
		return []fault{faultf("its recovery function was never run").as(unfinished)}
	}
	return nil
}

// atRest is I9, of the whole: outbox and queues empty, no connection left, nor a worker that could not sign off.
func atRest(rest *Rest) (faults []fault) {
	if rest == nil {
		return nil
	}
	if rest.Outbox > 0 {
		faults = append(faults, faultf("%d rows in the outbox", rest.Outbox))
	}
	for queue, n := range rest.Queues {
		if n > 0 {
			faults = append(faults, faultf("%d messages in queue %s", n, queue))
		}
	}
	for _, name := range rest.Connections {
		faults = append(faults, faultf("a connection of %q is left", name))
	}
	for _, id := range rest.Workers {
		faults = append(faults, faultf("worker %s ended in good order, and holds something still", id))
	}
	return faults
}

// heldBy reports whether a worker claimed an epoch.
func (s *story) heldBy(epoch int, worker uuid.UUID) *Change {
	if c := s.claim(epoch); c != nil && c.Worker == worker {
		return c
	}
	return nil
}
