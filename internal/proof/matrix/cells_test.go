package matrix

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writhq/writ/internal/proof/wire"
)

// The rows and columns, in the order of the picture.
var (
	steps  = []string{"create", "relay", "limit", "claim", "run", "safe point", "extend", "finish", "retry", "flag", "probe", "requeue", "verbs", "late report", "bulk", "quarantine", "publish", "event", "subscribe", "webhook", "mail"}
	faults = []string{"sigkill", "commit-cut", "commit-answer-lost", "broker-cut", "confirm-lost", "message-returned"}

	titles = map[string]string{
		"sigkill": "SIGKILL", "commit-cut": "cut before COMMIT", "commit-answer-lost": "COMMIT applied, answer lost",
		"broker-cut": "broker cut", "confirm-lost": "confirm lost", "message-returned": "message returned",
	}
)

// cell is one test of the matrix.
type cell struct {
	step, fault string
	at          string // which of several, in the test's name and the picture; empty: the only one
	end         string // how it ends, in a word or two, for the picture
	run         scenario
}

var hyphens = strings.NewReplacer(", ", "-", " ", "-", "'", "")

func (c cell) name() string {
	step := hyphens.Replace(c.step)
	if c.at == "" {
		return step + "/" + c.fault
	}
	return step + "/" + c.fault + "/" + hyphens.Replace(c.at)
}

// sentOnce is how most cells end.
var (
	sentOnce  = end{status: "sent", starts: 1, effects: 1}
	retried   = end{status: "sent", starts: 2, effects: 1, log: []string{"retried"}}
	undone    = end{status: "error", starts: 1, log: []string{"failed"}}
	flagged   = end{status: "ambiguous", starts: 1, effects: 1, log: []string{"flagged"}}
	unbegun   = end{status: "ambiguous", log: []string{"flagged"}}
	unwritten = end{status: "ambiguous", starts: 1, log: []string{"flagged"}}
	repeated  = end{status: "sent", starts: 2, effects: 2, log: []string{"retried"}}
	receipted = end{status: "sent", starts: 1, effects: 1, receipts: 1}
	found     = end{status: "sent", starts: 1, effects: 1, log: []string{"flagged", "happened"}}
)

var cells = []cell{
	{"create", "sigkill", "before COMMIT", "absent; created again", creation(killedBefore)},
	{"create", "sigkill", "after COMMIT", "there; not created twice", creation(killedAfter)},
	{"create", "commit-cut", "", "absent; created again", creation(cut)},
	{"create", "commit-answer-lost", "", "there; not created twice", creation(answerLost)},

	{"relay", "sigkill", "at the publish", "sent once", publishing{wire.Publish, wire.Cut, true, "", 1}.scenario},
	{"relay", "sigkill", "at the confirm", "published twice, sent once", publishing{wire.Confirm, wire.Cut, true, "", 2}.scenario},
	{"relay", "sigkill", "before COMMIT", "published twice, sent once", relaying(killedBefore, 2)},
	{"relay", "sigkill", "after COMMIT", "sent once", relaying(killedAfter, 1)},
	{"relay", "commit-cut", "", "published twice, sent once", relaying(cut, 2)},
	{"relay", "commit-answer-lost", "", "sent once", relaying(answerLost, 1)},
	{"relay", "broker-cut", "", "sent once", publishing{wire.Publish, wire.Cut, false, "", 1}.scenario},
	{"relay", "confirm-lost", "with the connection", "published twice, sent once", publishing{wire.Confirm, wire.Cut, false, "", 2}.scenario},
	{"relay", "confirm-lost", "in silence", "published twice, sent once", publishing{wire.Confirm, wire.Swallow, false, "not confirmed", 2}.scenario},
	{"relay", "confirm-lost", "nack instead", "published twice, sent once", publishing{wire.Confirm, wire.Nack, false, "refused", 2}.scenario},
	{"relay", "message-returned", "", "kept with the reason, sent once", publishing{wire.Publish, wire.Misroute, false, "no such queue", 1}.scenario},

	{"limit", "sigkill", "tokens, before COMMIT", "sent once, by another", leasing(startsLimited, tokens, killedBefore)},
	{"limit", "sigkill", "tokens, after COMMIT", "the tokens are lost; sent once, by another", leasing(startsLimited, tokens, killedAfter)},
	{"limit", "sigkill", "places, before COMMIT", "sent once, by another", leasing(runningLimited, places, killedBefore)},
	{"limit", "sigkill", "places, after COMMIT", "the place is free with its death; sent once, by another", leasing(runningLimited, places, killedAfter)},
	{"limit", "commit-cut", "tokens", "asked again, sent once", leasing(startsLimited, tokens, cut)},
	{"limit", "commit-cut", "places", "asked again, sent once", leasing(runningLimited, places, cut)},
	{"limit", "commit-answer-lost", "tokens", "asked again, sent once", leasing(startsLimited, tokens, answerLost)},
	{"limit", "commit-answer-lost", "places", "said again, sent once", leasing(runningLimited, places, answerLost)},

	{"claim", "sigkill", "before COMMIT", "sent once, by another", claiming(killedBefore, sentOnce)},
	{"claim", "sigkill", "after COMMIT", "flagged", claiming(killedAfter, unbegun)},
	{"claim", "commit-cut", "claiming", "claimed again, sent once", claiming(cut, sentOnce)},
	{"claim", "commit-answer-lost", "claiming", "found its own, sent once", claiming(answerLost, sentOnce)},
	{"claim", "commit-cut", "putting back", "put back again, sent once", puttingBack(cut)},
	{"claim", "commit-answer-lost", "putting back", "put back twice, sent once", puttingBack(answerLost)},
	{"claim", "broker-cut", "at the delivery", "delivered again, sent once", hinting(wire.Deliver)},
	{"claim", "broker-cut", "at the ack", "delivered again, moot", hinting(wire.Ack)},

	{"run", "sigkill", "manual", "flagged", dying(manual, flagged)},
	{"run", "sigkill", "idempotent", "run again", dying(repeatable, repeated)},
	{"run", "commit-cut", "of the heartbeat", "sent once", beating(cut)},
	{"run", "commit-answer-lost", "of the heartbeat", "sent once", beating(answerLost)},
	{"run", "broker-cut", "", "sent once", abandoned},

	{"safe point", "sigkill", "before COMMIT", "flagged", pointing(killedBefore, flagged)},
	{"safe point", "sigkill", "after COMMIT", "flagged; retried by a person, each step once", pointing(killedAfter, resumed)},
	{"safe point", "sigkill", "handing over, before COMMIT", "flagged", handingOver(killedBefore, flagged)},
	{"safe point", "sigkill", "handing over, after COMMIT", "goes on in another, each step once", handingOver(killedAfter, handedOver)},
	{"safe point", "commit-cut", "going on", "said again, each step once", pointing(cut, walked)},
	{"safe point", "commit-cut", "handing over", "goes on in another, each step once", handingOver(cut, handedOver)},
	{"safe point", "commit-answer-lost", "going on", "said again, each step once", pointing(answerLost, walked)},
	{"safe point", "commit-answer-lost", "handing over", "goes on in another, each step once", handingOver(answerLost, handedOver)},

	{"extend", "sigkill", "before COMMIT", "flagged", stretching(killedBefore, flagged)},
	{"extend", "sigkill", "after COMMIT", "flagged, with its new deadline", stretching(killedAfter, flagged)},
	{"extend", "commit-cut", "", "asked again, sent once", stretching(cut, stretched)},
	{"extend", "commit-answer-lost", "", "asked again, sent once", stretching(answerLost, stretched)},

	{"finish", "sigkill", "before COMMIT", "flagged", outcome(killedBefore, sends, flagged, done)},
	{"finish", "sigkill", "after COMMIT", "sent once", outcome(killedAfter, sends, sentOnce, done)},
	{"finish", "commit-cut", "sent", "written again, sent once", outcome(cut, sends, sentOnce, done)},
	{"finish", "commit-cut", "with a receipt", "one receipt", outcome(cut, sends, receipted, receipt)},
	{"finish", "commit-cut", "error", "error once", outcome(cut, fails, undone, stopped)},
	{"finish", "commit-answer-lost", "sent", "found applied, sent once", outcome(answerLost, sends, sentOnce, done)},
	{"finish", "commit-answer-lost", "with a receipt", "one receipt", outcome(answerLost, sends, receipted, receipt)},
	{"finish", "commit-answer-lost", "error", "error once", outcome(answerLost, fails, undone, stopped)},

	{"retry", "sigkill", "before COMMIT", "flagged", outcome(killedBefore, retries, unwritten, notDone, done)},
	{"retry", "sigkill", "after COMMIT", "retried once", outcome(killedAfter, retries, retried, notDone, done)},
	{"retry", "commit-cut", "", "retried once", outcome(cut, retries, retried, notDone, done)},
	{"retry", "commit-answer-lost", "", "retried once", outcome(answerLost, retries, retried, notDone, done)},

	{"flag", "sigkill", "worker, before COMMIT", "flagged once", outcome(killedBefore, flags, flagged, lostSign)},
	{"flag", "sigkill", "worker, after COMMIT", "flagged once", outcome(killedAfter, flags, flagged, lostSign)},
	{"flag", "sigkill", "reconciler, before COMMIT", "flagged once", orphaned(killedBefore)},
	{"flag", "sigkill", "reconciler, after COMMIT", "flagged once", orphaned(killedAfter)},
	{"flag", "commit-cut", "worker", "flagged once", outcome(cut, flags, flagged, lostSign)},
	{"flag", "commit-cut", "reconciler", "flagged once", orphaned(cut)},
	{"flag", "commit-answer-lost", "worker", "flagged once", outcome(answerLost, flags, flagged, lostSign)},
	{"flag", "commit-answer-lost", "reconciler", "flagged once", orphaned(answerLost)},

	{"probe", "sigkill", "flag and hint, before COMMIT", "flagged by another, one verdict", probing(killedBefore, flags)},
	{"probe", "sigkill", "flag and hint, after COMMIT", "one verdict", probing(killedAfter, flags)},
	{"probe", "sigkill", "asking", "asked again, one verdict", askedByTheDead},
	{"probe", "sigkill", "verdict, before COMMIT", "asked again, one verdict", probing(killedBefore, verdicts)},
	{"probe", "sigkill", "verdict, after COMMIT", "one verdict", probing(killedAfter, verdicts)},
	{"probe", "commit-cut", "flag and hint", "flagged once, one verdict", probing(cut, flags)},
	{"probe", "commit-cut", "taking", "asked again, one verdict", probing(cut, takes)},
	{"probe", "commit-cut", "verdict", "written again, one verdict", probing(cut, verdicts)},
	{"probe", "commit-cut", "a person was first", "theirs counts, one late report", overtaken(cut)},
	{"probe", "commit-answer-lost", "flag and hint", "flagged once, one verdict", probing(answerLost, flags)},
	{"probe", "commit-answer-lost", "taking", "asked again, one verdict", probing(answerLost, takes)},
	{"probe", "commit-answer-lost", "verdict", "found applied, one verdict", probing(answerLost, verdicts)},
	{"probe", "commit-answer-lost", "a person was first", "theirs counts, one late report", overtaken(answerLost)},

	{"requeue", "sigkill", "before COMMIT", "requeued once", requeuing(killedBefore)},
	{"requeue", "sigkill", "after COMMIT", "requeued once", requeuing(killedAfter)},
	{"requeue", "commit-cut", "", "requeued once", requeuing(cut)},
	{"requeue", "commit-answer-lost", "", "requeued once", requeuing(answerLost)},

	{"verbs", "sigkill", "before COMMIT", "decided again", deciding(killedBefore)},
	{"verbs", "sigkill", "after COMMIT", "counts once, again refused", deciding(killedAfter)},
	{"verbs", "sigkill", "recovery, before COMMIT", "recovered once, by another", recovering(killedBefore)},
	{"verbs", "sigkill", "recovery, after COMMIT", "recovered once", recovering(killedAfter)},
	{"verbs", "commit-cut", "deciding", "decided again", deciding(cut)},
	{"verbs", "commit-cut", "recovery", "owed, recovered once", recovering(cut)},
	{"verbs", "commit-answer-lost", "deciding", "counts once, again refused", deciding(answerLost)},
	{"verbs", "commit-answer-lost", "recovery", "recovered once", recovering(answerLost)},

	{"late report", "sigkill", "it confirms, before COMMIT", "theirs counts, nothing is told", tooLate(killedBefore, "happened", "confirms")},
	{"late report", "sigkill", "it confirms, after COMMIT", "theirs counts, one late report", tooLate(killedAfter, "happened", "confirms")},
	{"late report", "sigkill", "it contradicts, before COMMIT", "theirs counts, nothing is told", tooLate(killedBefore, "give-up", "contradicts")},
	{"late report", "sigkill", "it contradicts, after COMMIT", "theirs counts, one late report", tooLate(killedAfter, "give-up", "contradicts")},
	{"late report", "sigkill", "a person in between, before COMMIT", "theirs counts, nothing is told", inBetween(killedBefore)},
	{"late report", "sigkill", "a person in between, after COMMIT", "the worker's counts, theirs is refused", inBetween(killedAfter)},
	{"late report", "commit-cut", "it confirms", "theirs counts, one late report", tooLate(cut, "happened", "confirms")},
	{"late report", "commit-cut", "it contradicts", "theirs counts, one late report", tooLate(cut, "give-up", "contradicts")},
	{"late report", "commit-cut", "a person in between", "theirs counts, one late report", inBetween(cut)},
	{"late report", "commit-answer-lost", "it confirms", "theirs counts, one late report", tooLate(answerLost, "happened", "confirms")},
	{"late report", "commit-answer-lost", "it contradicts", "theirs counts, one late report", tooLate(answerLost, "give-up", "contradicts")},
	{"late report", "commit-answer-lost", "a person in between", "the worker's counts, theirs is refused", inBetween(answerLost)},

	{"bulk", "sigkill", "planning, before COMMIT", "nothing frozen; planned again", planning(killedBefore)},
	{"bulk", "sigkill", "planning, after COMMIT", "planned twice, each row decided once", planning(killedAfter)},
	{"bulk", "sigkill", "in the middle, before COMMIT", "gone on with, each row decided once", inTheMiddle(killedBefore)},
	{"bulk", "sigkill", "in the middle, after COMMIT", "gone on with, each row decided once", inTheMiddle(killedAfter)},
	{"bulk", "sigkill", "aborted meanwhile, before COMMIT", "aborted without that step", abortedMeanwhile(killedBefore)},
	{"bulk", "sigkill", "aborted meanwhile, after COMMIT", "aborted after that step", abortedMeanwhile(killedAfter)},
	{"bulk", "sigkill", "the abort, before COMMIT", "aborted again", aborting(killedBefore)},
	{"bulk", "sigkill", "the abort, after COMMIT", "aborted, again refused", aborting(killedAfter)},
	{"bulk", "commit-cut", "planning", "nothing frozen; planned again", planning(cut)},
	{"bulk", "commit-cut", "in the middle", "gone on with, each row decided once", inTheMiddle(cut)},
	{"bulk", "commit-cut", "aborted meanwhile", "aborted without that step", abortedMeanwhile(cut)},
	{"bulk", "commit-cut", "the abort", "aborted again", aborting(cut)},
	{"bulk", "commit-answer-lost", "planning", "planned twice, each row decided once", planning(answerLost)},
	{"bulk", "commit-answer-lost", "in the middle", "gone on with, each row decided once", inTheMiddle(answerLost)},
	{"bulk", "commit-answer-lost", "aborted meanwhile", "aborted after that step", abortedMeanwhile(answerLost)},
	{"bulk", "commit-answer-lost", "the abort", "aborted, again refused", aborting(answerLost)},

	{"quarantine", "sigkill", "while paused, before COMMIT", "nothing held; held again", quarantining(killedBefore)},
	{"quarantine", "sigkill", "while paused, after COMMIT", "held, and again", quarantining(killedAfter)},
	{"quarantine", "sigkill", "after a restore, before COMMIT", "held again, none run twice", restored(killedBefore, quarantines)},
	{"quarantine", "sigkill", "after a restore, after COMMIT", "held twice, none run twice", restored(killedAfter, quarantines)},
	{"quarantine", "sigkill", "a verdict in it, before COMMIT", "decided again, none run twice", restored(killedBefore, "writ.retry")},
	{"quarantine", "sigkill", "a verdict in it, after COMMIT", "counts once, again refused, none run twice", restored(killedAfter, "writ.retry")},
	{"quarantine", "sigkill", "its end, before COMMIT", "ended again, none run twice", restored(killedBefore, resumes)},
	{"quarantine", "sigkill", "its end, after COMMIT", "ended, again refused, none run twice", restored(killedAfter, resumes)},
	{"quarantine", "sigkill", "the old worker's outcome, before COMMIT", "nothing is told, none run twice", restored(killedBefore, reports)},
	{"quarantine", "sigkill", "the old worker's outcome, after COMMIT", "one late report", restored(killedAfter, reports)},
	{"quarantine", "commit-cut", "while paused", "nothing held; held again", quarantining(cut)},
	{"quarantine", "commit-cut", "after a restore", "held again, none run twice", restored(cut, quarantines)},
	{"quarantine", "commit-cut", "a verdict in it", "decided again, none run twice", restored(cut, "writ.retry")},
	{"quarantine", "commit-cut", "its end", "ended again, none run twice", restored(cut, resumes)},
	{"quarantine", "commit-cut", "the old worker's outcome", "one late report", restored(cut, reports)},
	{"quarantine", "commit-answer-lost", "while paused", "held, and again", quarantining(answerLost)},
	{"quarantine", "commit-answer-lost", "after a restore", "held twice, none run twice", restored(answerLost, quarantines)},
	{"quarantine", "commit-answer-lost", "a verdict in it", "counts once, again refused, none run twice", restored(answerLost, "writ.retry")},
	{"quarantine", "commit-answer-lost", "handed back before it", "held, not run again", handedBack},
	{"quarantine", "commit-answer-lost", "its end", "ended, again refused, none run twice", restored(answerLost, resumes)},
	{"quarantine", "commit-answer-lost", "the old worker's outcome", "one late report", restored(answerLost, reports)},

	{"publish", "sigkill", "before COMMIT", "not published; published again, its intent once", publication(killedBefore)},
	{"publish", "sigkill", "after COMMIT", "published, and again, its intent once", publication(killedAfter)},
	{"publish", "commit-cut", "", "not published; published again, its intent once", publication(cut)},
	{"publish", "commit-answer-lost", "", "published, and again, its intent once", publication(answerLost)},

	{"event", "sigkill", "at the publish", "its intent once", announcing(wire.Publish, wire.Cut, true)},
	{"event", "sigkill", "at the confirm", "its intent once", announcing(wire.Confirm, wire.Cut, true)},
	{"event", "sigkill", "before COMMIT", "its intent once", telling(killedBefore)},
	{"event", "sigkill", "after COMMIT", "its intent once", telling(killedAfter)},
	{"event", "commit-cut", "", "published twice, its intent once", telling(cut)},
	{"event", "commit-answer-lost", "", "its intent once", telling(answerLost)},
	{"event", "broker-cut", "", "its intent once", announcing(wire.Publish, wire.Cut, false)},
	{"event", "confirm-lost", "with the connection", "published twice, its intent once", announcing(wire.Confirm, wire.Cut, false)},
	{"event", "confirm-lost", "in silence", "published twice, its intent once", announcing(wire.Confirm, wire.Swallow, false)},
	{"event", "confirm-lost", "nack instead", "published twice, its intent once", announcing(wire.Confirm, wire.Nack, false)},

	{"subscribe", "sigkill", "before COMMIT", "its intent once, by another", taking(killedBefore)},
	{"subscribe", "sigkill", "after COMMIT", "its intent once", taking(killedAfter)},
	{"subscribe", "commit-cut", "", "written again, its intent once", taking(cut)},
	{"subscribe", "commit-answer-lost", "", "found taken, its intent once", taking(answerLost)},
	{"subscribe", "broker-cut", "at the delivery", "delivered again, its intent once", hearing(wire.Deliver)},
	{"subscribe", "broker-cut", "at the ack", "delivered again, found taken", hearing(wire.Ack)},

	{"webhook", "sigkill", "before the answer", "flagged", unanswered(hooked, flagged)},
	{"webhook", "sigkill", "before COMMIT", "flagged", handing(hooked, killedBefore, flagged)},
	{"webhook", "sigkill", "after COMMIT", "one request", handing(hooked, killedAfter, sentOnce)},
	{"webhook", "commit-cut", "", "written again, one request", handing(hooked, cut, sentOnce)},
	{"webhook", "commit-answer-lost", "", "found applied, one request", handing(hooked, answerLost, sentOnce)},

	{"mail", "sigkill", "before the answer", "found in the log, one mail", unanswered(mailed, found)},
	{"mail", "sigkill", "before COMMIT", "found in the log, one mail", handing(mailed, killedBefore, found)},
	{"mail", "sigkill", "after COMMIT", "one mail", handing(mailed, killedAfter, sentOnce)},
	{"mail", "commit-cut", "", "written again, one mail", handing(mailed, cut, sentOnce)},
	{"mail", "commit-answer-lost", "", "found applied, one mail", handing(mailed, answerLost, sentOnce)},
}

// gap is a part of the table that does not apply, and why.
type gap struct {
	step   string
	faults []string
	why    string
}

var gaps = []gap{
	{"create", faults[3:], "Create speaks to no broker."},
	{"limit", faults[3:], "Tokens and places are leased from Postgres only."},
	{"claim", faults[4:], "A worker publishes nothing; a hint that it puts back goes through the outbox, and so through the relay."},
	{"run", faults[4:], "A running handler has nothing to do with the broker: its message was acked when it was claimed."},
	{"safe point", faults[3:], "A safe point is written to Postgres only; the hint of a job that is handed over goes through the outbox, and so through the relay."},
	{"extend", faults[3:], "A deadline is moved in Postgres only."},
	{"finish", faults[3:], "An outcome is written to Postgres only."},
	{"retry", faults[3:], "A retry is written to Postgres only; its new hint goes through the outbox, and so through the relay."},
	{"flag", faults[3:], "A flag is written to Postgres only, by the worker as by the reconciler."},
	{"probe", faults[3:], "A probe's hint goes through the outbox, and so through the relay; where it is lost on its way the row knows when to ask."},
	{"requeue", faults[3:], "The reconciler speaks to no broker; its hint goes through the outbox, and so through the relay."},
	{"verbs", faults[3:], "A decision is one statement in Postgres; what it sets going goes through the outbox, and so through the relay."},
	{"late report", faults[3:], "A late report is written to Postgres only, by the worker as by the probe."},
	{"bulk", faults[3:], "A step is one statement in Postgres; what it sets going goes through the outbox, and so through the relay."},
	{"quarantine", faults[3:], "A quarantine is one statement in Postgres, on a database in which nothing is published."},
	{"publish", faults[3:], "An event is published by a row in the outbox, which the next row of this table is about."},
	{"event", faults[5:], "Without a subscription an event goes to nobody; where there was one, or should be, it is held back."},
	{"subscribe", faults[4:], "A subscription publishes nothing; the hints of its intents go through the outbox, and so through the relay."},
	{"webhook", faults[3:], "A handler has nothing to do with the broker. What becomes of a request that breaks is told in kinds.md, and tested there."},
	{"mail", faults[3:], "A handler has nothing to do with the broker. What becomes of a mail that breaks is told in kinds.md, and tested there."},
}

func TestMatrix(t *testing.T) {
	t.Parallel()
	for _, c := range cells {
		t.Run(c.name(), func(t *testing.T) {
			t.Parallel()
			c.run(t, newWorld(t))
		})
	}
}

// TestTable: each pair of a step and a fault is tested or explained, not both, and docs/proof.md shows it.
func TestTable(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, c := range cells {
		if names[c.name()] {
			t.Errorf("two cells are called %s", c.name())
		}
		names[c.name()] = true
	}
	for _, step := range steps {
		for _, fault := range faults {
			if n, why := len(at(step, fault)), reason(step, fault); (n > 0) == (why > 0) {
				t.Errorf("%s × %s has %d cells and footnote %d; want cells or a footnote", step, fault, n, why)
			}
		}
	}
	checkDoc(t, "../../../docs/proof.md", picture())
}

// checkDoc keeps the picture in a document true.
func checkDoc(t *testing.T, file, picture string) {
	t.Helper()
	const begin, stop = "<!-- matrix: drawn by go test ./internal/proof/matrix -run TestTable -update -->\n", "<!-- matrix: end -->"
	doc, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(doc), begin)
	_, tail, ok2 := strings.Cut(rest, stop)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the matrix; it is between %q and %q", file, begin, stop)
	}
	want := head + begin + picture + stop + tail
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(doc)); diff != "" {
		t.Errorf("%s is not what the table says; run go test ./internal/proof/matrix -run TestTable -update (-want +got):\n%s", file, diff)
	}
}

// at returns the cells of a pair.
func at(step, fault string) (out []cell) {
	for _, c := range cells {
		if c.step == step && c.fault == fault {
			out = append(out, c)
		}
	}
	return out
}

// reason is the number of the footnote that says why a pair does not apply; 0: none does.
func reason(step, fault string) int {
	return 1 + slices.IndexFunc(gaps, func(g gap) bool { return g.step == step && slices.Contains(g.faults, fault) })
}

// picture draws the table in Markdown.
func picture() string {
	var b strings.Builder
	b.WriteString("| |")
	for _, f := range faults {
		b.WriteString(" " + titles[f] + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(faults)) + "\n")
	for _, step := range steps {
		b.WriteString("| **" + step + "** |")
		for _, fault := range faults {
			if n := reason(step, fault); n > 0 {
				fmt.Fprintf(&b, " – [%d] |", n)
				continue
			}
			b.WriteString(" ✓ " + describe(at(step, fault)) + " |")
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
	for n, g := range gaps {
		fmt.Fprintf(&b, "%d. %s\n", n+1, g.why)
	}
	fmt.Fprintf(&b, "\n%d cells.\n", len(cells))
	return b.String()
}

// describe says how the cells of a pair end: once if they all end alike.
func describe(cells []cell) string {
	var out []string
	alike := true
	for _, c := range cells {
		alike = alike && c.end == cells[0].end
		if c.at == "" {
			out = append(out, c.end)
		} else {
			out = append(out, "*"+c.at+":* "+c.end)
		}
	}
	if alike && len(cells) > 1 {
		return cells[0].end
	}
	return strings.Join(out, "<br>")
}
