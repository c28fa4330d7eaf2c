package proof

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/writhq/writ/internal/proof/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// legal histories, of which each must pass.
func legal() map[string]Evidence {
	return map[string]Evidence{
		"sent": fabricate("manual").create().attempt(ledger.Done, SaidDone).outcome("sent", "succeeded").rest(),
		"not done, then sent": fabricate("manual").create().attempt(ledger.Refused, SaidNotDone).outcome("pending", "retried").hint().
			attempt(ledger.Done, SaidDone).outcome("sent", "succeeded").rest(),
		"stopped":    fabricate("manual").create().attempt(ledger.Rejected, SaidStop).outcome("error", "failed").rest(),
		"snoozed":    fabricate("manual").create().attempt(ledger.Busy, SaidSnooze).snoozed().attempt(ledger.Done, SaidDone).outcome("sent", "succeeded").rest(),
		"cancelled":  fabricate("manual").create().verdict("cancelled", "cancel", "ann").rest(),
		"happened":   fabricate("manual").create().attempt(ledger.WrongAfter, SaidUnknown).flag("worker").verdict("sent", "happened", "ann").rest(),
		"given up":   fabricate("manual").create().attempt(ledger.WrongAfter, SaidUnknown).flag("worker").verdict("error", "give-up", "ann").rest(),
		"undecided":  fabricate("manual").create().attempt(ledger.WrongBefore, SaidPanic).flag("worker").rest(),
		"late truth": fabricate("manual").create().claim().run(SaidStarted).visit(ledger.Done).flag("reconciler").run(SaidDone).outcome("sent", "succeeded").rest(),
		"retried by a person": fabricate("manual").create().attempt(ledger.WrongBefore, SaidUnknown).flag("worker").verdict("pending", "retry", "ann").hint().
			attempt(ledger.Done, SaidDone).outcome("sent", "succeeded").rest(),
		"retried by a probe": fabricate("probed").create().attempt(ledger.WrongBefore, SaidUnknown).flag("worker").verdict("pending", "retry", "probe").hint().
			attempt(ledger.Done, SaidDone).outcome("sent", "succeeded").rest(),
		"sent by a probe, with the application's share": edit(
			fabricate("probed").create().attempt(ledger.WrongAfter, SaidUnknown).flag("worker").verdict("sent", "happened", "probe").rest(), shared),
		"sent by a probe": fabricate("probed").create().attempt(ledger.WrongAfter, SaidUnknown).flag("worker").verdict("sent", "happened", "probe").rest(),
		"idempotent, twice": fabricate("idempotent").create().attempt(ledger.WrongAfter, SaidUnknown).outcome("pending", "retried").hint().
			attempt(ledger.Done, SaidDone).outcome("sent", "succeeded").rest(),
		"idempotent, its worker died": fabricate("idempotent").create().claim().run(SaidStarted).visit(ledger.Done).verdict("pending", "retried", "reconciler").hint().
			attempt(ledger.Done, SaidDone).outcome("sent", "succeeded").rest(),
		"unknown creation": edit(fabricate("manual").rest(), func(e *Evidence) { e.Acks = []Ack{{ID: e.Rows[0].ID, Answer: Begun}}; e.Rows = nil }),
		"late report": edit(fabricate("manual").create().attempt(ledger.WrongAfter, SaidUnknown).flag("reconciler").verdict("sent", "happened", "ann").rest(), func(e *Evidence) {
			e.Log = append(e.Log, Entry{ID: e.Rows[0].ID, Epoch: 1, Event: lateReport, Actor: "worker", Worker: e.Runs[0].Worker})
		}),
		"killed before its outcome": edit(fabricate("manual").create().attempt(ledger.Done, SaidDone).flag("reconciler").verdict("sent", "happened", "ann").rest(), func(e *Evidence) {
			e.Ended[e.Runs[0].Worker] = Killed
			e.Log = slices.DeleteFunc(e.Log, func(l Entry) bool { return l.Event == "flagged" })
		}),
		"its worker died": edit(fabricate("manual").create().claim().run(SaidStarted).visit(ledger.Done).flag("reconciler").verdict("sent", "happened", "ann").rest(), func(e *Evidence) {
			e.TTL, e.Log[0].Why = 3*time.Second, "worker-died"
			e.Log[0].Evidence = fmt.Sprintf(`{"heartbeat_at": %q}`, e.Log[0].At.Add(-4*time.Second).Format(time.RFC3339Nano))
		}),
		"held in a quarantine": fabricate("manual").create().quarantine("quarantined").verdict("pending", "retry", "ann").hint().
			attempt(ledger.Done, SaidDone).outcome("sent", "succeeded").rest(),
		"held twice": fabricate("manual").create().quarantine("quarantined").quarantine("quarantined").verdict("pending", "retry", "ann").hint().
			attempt(ledger.Done, SaidDone).outcome("sent", "succeeded").rest(),
		"done, and held in a quarantine": fabricate("manual").create().attempt(ledger.Done, SaidDone).quarantine("quarantined").late(1).verdict("sent", "happened", "ann").rest(),
		"idempotent, let go on":          fabricate("idempotent").create().quarantine(fenced).hint().attempt(ledger.Done, SaidDone).outcome("sent", "succeeded").rest(),
		"not due, let go on": edit(fabricate("manual").create().quarantine(fenced).verdict("cancelled", "cancel", "ann").rest(), func(e *Evidence) {
			e.Changes[1].RunAt = e.Changes[1].At.Add(time.Hour)
		}),
		"handed over at a safe point": stepped(fabricate("manual").create().attempt(ledger.Done, SaidOver).snoozed().attempt(ledger.Done, SaidDone).outcome("sent", "succeeded").rest(), 1, 2),
		"overslept": edit(twice(), func(e *Evidence) {
			late := e.Changes[1].DeadlineAt.Add(settle + time.Second)
			e.Visits[0].Recorded = &late
			e.Freezes = []Freeze{{PID: pid, From: e.Visits[0].At, To: late}}
		}),
	}
}

// stepped makes a history that of a job of two steps, each call one of them.
func stepped(e Evidence, steps ...int) Evidence {
	const kind = "proof.test.stepped"
	e.Steps, e.Hooked[kind] = map[string]int{kind: 2}, true
	e.Kinds[0].Name, e.Rows[0].Kind = kind, kind
	for i := range e.Changes {
		e.Changes[i].Kind = kind
	}
	for i, step := range steps {
		e.Visits[i].Step, e.Visits[i].Kind = step, kind
	}
	return e
}

// twice is a person's retry of what was done after all.
func twice() Evidence {
	return fabricate("manual").create().attempt(ledger.WrongAfter, SaidUnknown).flag("worker").verdict("pending", "retry", "ann").hint().
		attempt(ledger.Done, SaidDone).outcome("sent", "succeeded").rest()
}

func edit(e Evidence, change func(*Evidence)) Evidence {
	change(&e)
	return e
}

func TestCheck_legal(t *testing.T) {
	t.Parallel()
	var all []Evidence
	for name, e := range legal() {
		all = append(all, e)
		if r := Check(e); len(r.Violations) > 0 {
			t.Errorf("%s: %v\n%s", name, r.Violations, r.Violations[0].Story)
		}
	}
	r := Check(together(all...))
	want := Report{Created: 25, Sent: 20, Error: 2, Cancelled: 2, Undecided: 1, Flagged: 15, Late: 2, Overslept: 1}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("all together (-want +got):\n%s", diff)
	}
}

// TestCheck_violations: each fabricated violation is found, under its own name.
func TestCheck_violations(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		from string // a legal history
		edit func(*Evidence)
		want []string
		says string
	}{
		{"an acknowledged one is not there", "unknown creation", func(e *Evidence) { e.Acks[0].Answer = Acknowledged }, []string{"I1"}, "never there"},
		{"its row has vanished", "cancelled", func(e *Evidence) { e.Rows = nil }, []string{"I1"}, "gone"},
		{"created twice", "cancelled", func(e *Evidence) { e.Changes = append(e.Changes[:1:1], e.Changes...) }, []string{"I1", "I3", "I4"}, "2 times"},
		{"refused and there", "cancelled", func(e *Evidence) { e.Acks[1].Answer = Refused }, []string{"I1"}, "was told"},
		{"nobody's", "cancelled", func(e *Evidence) { e.Acks = []Ack{} }, []string{"I1"}, "nobody"},
		{"the history is not whole", "sent", func(e *Evidence) { e.Changes = e.Changes[:2] }, []string{"I1", "I10", "I7"}, "by its history"},

		{"an effect without a claim", "sent", func(e *Evidence) { e.Visits[0].Worker = uuid.New() }, []string{"I2", "I7"}, "no claim"},
		{"a handler without a claim", "sent", func(e *Evidence) { e.Runs[0].Epoch = 7 }, []string{"I2"}, "ran it"},
		{"a claim lost in a crash", "sent", func(e *Evidence) {
			e.Changes, e.Rows[0].State, e.Rows[0].Epoch = e.Changes[:1], "pending", 0
			e.Receipts = nil
			e.Rows[0].RunAt = e.At.Add(time.Hour)
		}, []string{"I10", "I2", "I7"}, "no claim"},
		{"an effect before its claim", "sent", func(e *Evidence) { e.Visits[0].At = e.Changes[1].At.Add(-time.Millisecond) }, []string{"I2"}, "claimed at"},
		{"a start before its claim", "sent", func(e *Evidence) { e.Runs[0].At = e.Changes[1].At.Add(-time.Millisecond) }, []string{"I2"}, "started at"},
		{"a claim that nobody can see", "sent", func(e *Evidence) { e.Visits[0].Claim = ledger.Missing }, []string{"I2"}, "could see"},
		{"an asynchronous claim", "sent", func(e *Evidence) { e.Changes[1].Synchronous = "off" }, []string{"I2"}, "asynchronously"},

		{"a step done twice", "handed over at a safe point", func(e *Evidence) { e.Visits[1].Step = 1 }, []string{"I6", "I7"}, "done 2 times"},
		{"a step left out", "handed over at a safe point", func(e *Evidence) { e.Visits = e.Visits[:1] }, []string{"I7"}, "1 of 2 steps"},
		{"not handed over at a safe point", "handed over at a safe point", func(e *Evidence) { e.Steps = nil }, []string{"I6"}, "it was done"},
		{"a step called twice", "handed over at a safe point", func(e *Evidence) { e.Visits[1].Epoch, e.Visits[1].Step = 1, 1 }, []string{"I3", "I6", "I7"}, "called 2"},

		{"started twice", "sent", func(e *Evidence) { e.Runs = append(e.Runs, e.Runs[0]) }, []string{"I3"}, "2 handlers"},
		{"called twice", "stopped", func(e *Evidence) { e.Visits = append(e.Visits, e.Visits[0]) }, []string{"I3"}, "called 2"},
		{"a gap in the epochs", "stopped", func(e *Evidence) {
			e.Changes[1].Epoch, e.Changes[2].OldEpoch = 3, 3
			e.Runs, e.Visits = nil, nil
		}, []string{"I3"}, "0 → 3"},
		{"a claim that raises no epoch", "happened", func(e *Evidence) {
			for i := range e.Changes {
				e.Changes[i].Epoch, e.Changes[i].OldEpoch = 0, 0
			}
			e.Rows[0].Epoch, e.Runs, e.Visits, e.Log[1].Epoch = 0, nil, nil, 0
		}, []string{"I3"}, "0 → 0"},
		{"an unseen change", "sent", func(e *Evidence) { e.Changes[2].OldEpoch = 5; e.Changes[2].Epoch = 5; e.Rows[0].Epoch = 5 }, []string{"I10", "I3", "I7"}, "but was"},

		{"from sent to error", "sent", func(e *Evidence) {
			last := e.Changes[2]
			last.From, last.To, last.Event = "sent", "error", "failed"
			e.Changes, e.Rows[0].State = append(e.Changes, last), "error"
		}, []string{"I10", "I4", "I7"}, "not a legal transition"},
		{"a person moves what is not flagged", "happened", func(e *Evidence) { e.Changes[3].OldFlag = "" }, []string{"I4"}, "not a legal transition"},
		{"a verdict without who and why", "happened", func(e *Evidence) { e.Log[1].Actor = "" }, []string{"I4"}, "not in the log"},
		{"deleted while open", "undecided", func(e *Evidence) {
			e.Changes = append(e.Changes, Change{Op: "DELETE", ID: e.Rows[0].ID, Kind: e.Rows[0].Kind, From: "sending", OldEpoch: 1})
			e.Rows = nil
		}, []string{"I4"}, "deleted"},
		{"a flag taken away", "undecided", func(e *Evidence) {
			last := e.Changes[2]
			last.OldFlag, last.Flag = last.Flag, ""
			e.Changes = append(e.Changes, last)
		}, []string{"I4"}, "taken away"},
		{"created as sent", "sent", func(e *Evidence) {
			e.Changes, e.Runs, e.Visits, e.Hints, e.Receipts = e.Changes[:1], nil, nil, nil, nil
			e.Changes[0].To, e.Rows[0].Epoch = "sent", 0
		}, []string{"I4"}, "created as"},

		{"taken for dead too soon", "undecided", func(e *Evidence) {
			e.TTL, e.Log[0].Actor, e.Log[0].Why = 3*time.Second, "reconciler", "worker-died"
			e.Log[0].Evidence = fmt.Sprintf(`{"heartbeat_at": %q}`, e.Log[0].At.Add(-2*time.Second).Format(time.RFC3339Nano))
			e.Runs = nil
		}, []string{"I4"}, "after 2s of silence"},
		{"taken for dead without evidence", "undecided", func(e *Evidence) {
			e.TTL, e.Log[0].Actor, e.Log[0].Why, e.Runs = 3*time.Second, "reconciler", "worker-died", nil
		}, []string{"I4"}, "without evidence"},

		{"claimed before its time", "sent", func(e *Evidence) { e.Changes[1].OldRunAt = e.Changes[1].At.Add(time.Second) }, []string{"I5"}, "before its time"},
		{"claimed while it waits", "sent", func(e *Evidence) { e.Changes[1].WaitingOn = 2 }, []string{"I5"}, "waits for 2"},

		{"done twice", "retried by a person", func(e *Evidence) { at := e.Visits[0].At; e.Visits[0].Recorded = &at }, []string{"I6"}, "done 2 times"},
		{"retried on an unknown", "not done, then sent", func(e *Evidence) { e.Runs[1].Said = SaidUnknown }, []string{"I10", "I6"}, "said unknown"},
		{"retried though done", "not done, then sent", func(e *Evidence) { at := e.Visits[0].At; e.Visits[0].Recorded = &at }, []string{"I6"}, "it was done"},
		{"claimed again on a guess", "retried by a person", func(e *Evidence) {
			at := e.Visits[0].At
			e.Visits[0].Recorded = &at
			e.Changes = slices.Delete(e.Changes, 3, 4)
		}, []string{"I13", "I3", "I6"}, "guess"},
		{"a manual kind retried for the dead", "retried by a person", func(e *Evidence) { e.Changes[3].Event = "retried" }, []string{"I3", "I6"}, "without a word"},
		{"landed after settle", "overslept", func(e *Evidence) { e.Freezes = nil }, []string{"I6"}, "never frozen"},
		{"the wrong process was frozen", "overslept", func(e *Evidence) { e.Freezes[0].PID++ }, []string{"I6"}, "never frozen"},

		{"let go on, though it may have been run", "not due, let go on", func(e *Evidence) { e.Changes[1].RunAt = e.Changes[1].BeganAt }, []string{"I6"}, "may have been run"},
		{"let go on from an attempt", "done, and held in a quarantine", func(e *Evidence) { e.Log[0].Event = fenced }, []string{"I6"}, "from sending"},
		{"let go on, though put off in the lost time", "not due, let go on", func(e *Evidence) {
			put := e.Log[0]
			put.Event, put.At = "retried", put.At.Add(-time.Minute)
			e.Log = append([]Entry{put}, e.Log...)
		}, []string{"I6"}, "let go on at epoch 0 from pending"},
		{"left pending in a quarantine", "not due, let go on", func(e *Evidence) { e.Log[0].Event = "quarantined" }, []string{"I6"}, "left as pending"},
		{"a deadline that lies behind", "held in a quarantine", func(e *Evidence) { e.Changes[1].DeadlineAt = e.Changes[1].BeganAt.Add(-time.Second) }, []string{"I6"}, "nobody waits"},
		{"a holder in a quarantine", "held in a quarantine", func(e *Evidence) { e.Changes[1].Worker = e.Runs[0].Worker }, []string{"I6"}, "held by worker"},
		{"an epoch that was used", "held in a quarantine", func(e *Evidence) { e.Changes[1].Epoch, e.Changes[2].OldEpoch = 1, 1 }, []string{"I3", "I4", "I6"}, "beyond all"},
		{"a quarantine that nobody made", "held in a quarantine", func(e *Evidence) { e.Log = e.Log[1:] }, []string{"I3", "I4"}, "quarantined at epoch 0 is not in the log"},
		{"a leap that nobody made", "idempotent, let go on", func(e *Evidence) { e.Log = nil }, []string{"I3"}, "0 → 1000"},
		{"a claim in the name of a quarantine", "idempotent, let go on", func(e *Evidence) { e.Changes[2].Event = "quarantined" }, []string{"I11", "I2", "I3", "I4", "I6"}, "quarantined"},

		{"sent and never done", "sent", func(e *Evidence) { e.Visits = nil }, []string{"I7"}, "never done"},
		{"error and done", "stopped", func(e *Evidence) { at := e.Visits[0].At; e.Visits[0].Recorded = &at }, []string{"I7"}, "and done 1"},
		{"a receipt too many", "sent", func(e *Evidence) { e.Receipts[e.Rows[0].ID]++ }, []string{"I7"}, "2 receipts"},
		{"never done, says no probe", "sent by a probe", func(e *Evidence) { e.Visits[0].Recorded = nil }, []string{"I7"}, "it was never done"},
		{"no receipt of what a probe says was done", "sent by a probe", func(e *Evidence) { clear(e.Receipts) }, []string{"I7"}, "0 receipts"},
		{"no receipt", "sent", func(e *Evidence) { clear(e.Receipts) }, []string{"I7"}, "0 receipts"},

		{"pending at rest", "cancelled", func(e *Evidence) { e.Changes, e.Rows[0].State = e.Changes[:1], "pending" }, []string{"I8"}, "due since"},
		{"sending for the dead", "undecided", func(e *Evidence) { e.Changes, e.Rows[0].Flag = e.Changes[:2], "" }, []string{"I8"}, "worker dead"},
		{"sending still", "undecided", func(e *Evidence) {
			e.Changes, e.Rows[0].Flag, e.Rows[0].WorkerAlive = e.Changes[:2], "", true
		}, []string{"I8"}, "sending still"},
		{"a recovery owed", "stopped", func(e *Evidence) { e.Rows[0].Owed = true }, []string{"I8"}, "recovery"},

		{"a probe that nobody asks", "undecided", func(e *Evidence) { e.Rows[0].Owed = true }, []string{"I8"}, "still to be asked"},

		{"a share in no verdict", "sent", shared, []string{"I13"}, "a hint to recover it"},

		{"an outbox row left", "sent", func(e *Evidence) { e.Rest.Outbox = 1 }, []string{"I9"}, "outbox"},
		{"a message left", "sent", func(e *Evidence) { e.Rest.Queues["q"] = 1 }, []string{"I9"}, "queue q"},
		{"a connection left", "sent", func(e *Evidence) { e.Rest.Connections = []string{"writ worker"} }, []string{"I9"}, "writ worker"},

		{"a worker that holds something", "sent", func(e *Evidence) { e.Rest.Workers = []uuid.UUID{e.Runs[0].Worker} }, []string{"I9"}, "holds something"},

		{"an outcome of somebody else", "sent", func(e *Evidence) { e.Runs[1].At = e.Changes[2].At.Add(time.Millisecond) }, []string{"I10"}, "before its handler"},
		{"an outcome of nobody", "sent", func(e *Evidence) { e.Runs = []Run{} }, []string{"I10"}, "before its handler"},
		{"an outcome swallowed", "happened", func(e *Evidence) { e.Log = e.Log[1:] }, []string{"I10"}, "nothing was written"},
		{"another outcome than said", "stopped", func(e *Evidence) { e.Runs[1].Said = SaidDone }, []string{"I10"}, "failed was written"},

		{"one attempt too many", "sent", func(e *Evidence) { e.Kinds[0].MaxAttempts = 0 }, []string{"I11"}, "at most 0"},
		{"a claim that counts no attempt", "sent", func(e *Evidence) { e.Changes[1].OldAttempt = 1 }, []string{"I11"}, "by a claim"},
		{"a retry that keeps attempts", "retried by a person", func(e *Evidence) { e.Changes[3].Attempt = 1; e.Changes[4].OldAttempt = 0 }, []string{"I11"}, "begins anew"},

		{"a probe's retry that begins anew", "retried by a probe", func(e *Evidence) { e.Changes[3].Attempt = 0; e.Changes[4].OldAttempt, e.Changes[4].Attempt = 0, 1 }, []string{"I11"}, "only a person"},

		{"a hint of what was rolled back", "unknown creation", func(e *Evidence) { e.Hints = []Hint{{ID: e.Acks[0].ID, Op: "run"}} }, []string{"I13"}, "ever committed"},
		{"a hint before the commit", "sent", func(e *Evidence) { e.Hints[0].At = e.Changes[0].At.Add(-time.Millisecond) }, []string{"I13"}, "before any commit"},
		{"a hint of an epoch to come", "not done, then sent", func(e *Evidence) { e.Hints[1].Epoch++ }, []string{"I13"}, "before any commit"},
		{"an effect of what was rolled back", "unknown creation", func(e *Evidence) {
			e.Visits = []ledger.Visit{{Call: ledger.Call{ID: e.Acks[0].ID}}}
		}, []string{"I13", "I2"}, "ever committed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e, ok := legal()[tt.from]
			if !ok {
				t.Fatalf("there is no legal history %q", tt.from)
			}
			r := Check(edit(e, tt.edit))
			if diff := cmp.Diff(tt.want, find(r)); diff != "" {
				t.Errorf("violated invariants (-want +got):\n%s%v", diff, r.Violations)
			}
			var text strings.Builder
			r.Print(&text, 100)
			if !strings.Contains(text.String(), tt.says) || r.Err() == nil {
				t.Errorf("it does not say %q:\n%s", tt.says, &text)
			}
		})
	}
}

// TestReport_counts: what is lost, doubled or unfinished is counted by intents.
func TestReport_counts(t *testing.T) {
	t.Parallel()
	never := edit(legal()["sent"], func(e *Evidence) { e.Visits = nil })
	gone := edit(legal()["unknown creation"], func(e *Evidence) { e.Acks[0].Answer = Acknowledged })
	open := edit(legal()["cancelled"], func(e *Evidence) { e.Changes, e.Rows[0].State = e.Changes[:1], "pending" })
	double := edit(twice(), func(*Evidence) {})
	r := Check(together(never, gone, open, double))
	want := "created 3 sent 2 error 0 cancelled 0 flagged 1 (0 undecided) late 0 overslept 0 lost 2 doubled 1 unfinished 1"
	if r.Line() != want {
		t.Errorf("got  %s\nwant %s", r.Line(), want)
	}
	var text strings.Builder
	r.Print(&text, 2)
	if !strings.Contains(text.String(), "and 2 violations more: I1 1, I6 1, I7 1, I8 1 in all") {
		t.Errorf("it was not cut:\n%s", &text)
	}
}

// shared has a hint ask for the application's share in how it ended.
func shared(e *Evidence) {
	last := e.Changes[len(e.Changes)-1]
	e.Hints = append(e.Hints, Hint{ID: e.Rows[0].ID, Epoch: last.Epoch, Op: "recover", At: last.At.Add(time.Millisecond)})
}
