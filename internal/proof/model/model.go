// Package model is the protocol as Promela models, and the table of what must hold in them and what must not: see
// docs/model.md. «make model» checks it with spin.
package model

import "embed"

//go:embed *.pml
var files embed.FS

// Row is one run of the model checker.
type Row struct {
	Name    string
	File    string
	Defines []string // -D switches of spin

	// Violates is a part of the assertion that must be found violated, or Cycle for a run that never comes to rest. Empty:
	// everything must hold, in every reachable state.
	Violates string
	Why      string // of a violation: what goes wrong, in words
}

// Cycle is what a liveness row with a rule switched off must violate.
const Cycle = "acceptance cycle"

// The assertions of safety.pml that rows are expected to violate.
const (
	oneEffect   = "effects==0"        // I6
	oneStart    = "started&"          // I3
	durable     = "epoch>=e"          // I2
	ownAttempt  = "epoch==e)"         // an outcome is written to its own attempt
	knownClaim  = "resolving[n]=="    // no claim without somebody who knows of it
	lateReport  = "==applied"         // I10
	oneReport   = "!(told)"           // I10
	finalStays  = "(state!=3)"        // I4: not out of SENT
	lateTruth   = "said_not&"         // a late report contradicts a retry
	missedRing  = "listening&&(due>0" // doorbell.pml
	safetyFile  = "safety.pml"
	restFile    = "liveness.pml"
	ringingFile = "doorbell.pml"
)

// Rows is the table.
var Rows = []Row{
	{Name: "manual", File: safetyFile, Defines: []string{"KIND=MANUAL", "LATE_TRUTH"}},
	{Name: "manual, more verdicts", File: safetyFile, Defines: []string{"KIND=MANUAL", "MAX_EPOCH=5", "LOST=0", "GHOSTS=0", "CRASHES=0"}},
	{Name: "probed", File: safetyFile, Defines: []string{"KIND=PROBED", "VERDICTS=1", "LOST=1", "GHOSTS=0", "LATE_TRUTH"}},
	{Name: "idempotent", File: safetyFile, Defines: []string{"KIND=IDEMPOTENT"}},
	{Name: "two slots of one worker", File: safetyFile, Defines: []string{"KIND=MANUAL", "ONE_PROCESS=1"}},
	{Name: "two slots, idempotent", File: safetyFile, Defines: []string{"KIND=IDEMPOTENT", "ONE_PROCESS=1"}},
	{Name: "deaf handlers", File: safetyFile, Defines: []string{"KIND=MANUAL", "DEAF=1", "VERDICTS=1", "LATE_TRUTH"}},
	{Name: "deaf handlers, probed", File: safetyFile, Defines: []string{"KIND=PROBED", "DEAF=1", "VERDICTS=1", "LOST=0", "GHOSTS=0"}},
	{Name: "restore", File: safetyFile, Defines: []string{"KIND=MANUAL", "RESTORES=1", "VERDICTS=1", "LOST=1", "GHOSTS=0", "CRASHES=0", "SNOOZES=0"}},
	{Name: "restore, probed", File: safetyFile, Defines: []string{"KIND=PROBED", "RESTORES=1", "VERDICTS=0", "LOST=0", "GHOSTS=0", "SNOOZES=0"}},
	{Name: "restore, idempotent", File: safetyFile, Defines: []string{"KIND=IDEMPOTENT", "RESTORES=1", "VERDICTS=0", "LOST=1", "GHOSTS=0", "CRASHES=0", "SNOOZES=0"}},
	{Name: "restore, two slots", File: safetyFile, Defines: []string{"KIND=MANUAL", "ONE_PROCESS=1", "RESTORES=1", "VERDICTS=1", "LOST=1", "GHOSTS=0", "UNKNOWNS=0", "SNOOZES=0"}},
	{Name: "rest: lost hints", File: restFile, Defines: []string{"DROPS=1", "DOUBLES=1", "SNOOZES=1", "PUTBACKS=1", "UNKNOWNS=1", "VERDICTS=1"}},
	{Name: "rest: deaths", File: restFile, Defines: []string{"CRASHES=2", "LOST=1", "ZOMBIES=1"}},
	{Name: "rest: lost answers", File: restFile, Defines: []string{"LOST=1", "GHOSTS=1", "LAPSES=1", "SNOOZES=1", "DROPS=1"}},
	{Name: "rest: idempotent", File: restFile, Defines: []string{"KIND=IDEMPOTENT", "CRASHES=1", "LOST=1", "ZOMBIES=1", "DROPS=1", "UNKNOWNS=1"}},
	{Name: "doorbell", File: ringingFile},

	{
		Name: "no settle", File: safetyFile, Defines: []string{"NO_SETTLE"}, Violates: oneEffect,
		Why: "a frozen worker's effect lands after the retry",
	},
	{
		Name: "early look", File: safetyFile, Defines: []string{"EARLY_LOOK", "VERDICTS=1"}, Violates: oneEffect,
		Why: "a person looked before deadline + settle, the effect landed, and the retry came after it",
	},
	{
		Name: "claim without epoch", File: safetyFile, Defines: []string{"CLAIM_WITHOUT_EPOCH"}, Violates: knownClaim,
		Why: "a lost claim is executed after the attempt it was for: nobody runs it, nobody flags it",
	},
	{
		Name: "finish without guard", File: safetyFile, Defines: []string{"FINISH_UNGUARDED"}, Violates: ownAttempt,
		Why: "a late outcome is written over another attempt",
	},
	{
		Name: "finish without epoch", File: safetyFile, Defines: []string{"FINISH_WITHOUT_EPOCH", "ONE_PROCESS=1"}, Violates: ownAttempt,
		Why: "an outcome that is written again ends the next attempt of the same worker",
	},
	{
		Name: "retry on unknown", File: safetyFile, Defines: []string{"RETRY_UNKNOWN"}, Violates: oneEffect,
		Why: "it had happened",
	},
	{
		Name: "unguarded verdict", File: safetyFile, Defines: []string{"UNGUARDED_VERDICT", "MAX_EPOCH=4", "LOST=0", "GHOSTS=0", "CRASHES=0", "VERDICTS=1"}, Violates: oneEffect,
		Why: "a verdict on what was seen of one attempt is applied to the next",
	},
	{
		Name: "verdict keeps epoch", File: safetyFile, Defines: []string{"VERDICT_KEEPS_EPOCH"}, Violates: lateReport,
		Why: "an outcome after the verdict is taken for applied, and no late report is kept",
	},
	{
		Name: "no holder condition", File: safetyFile, Defines: []string{"NO_HOLDER", "DEAF=1"}, Violates: oneEffect,
		Why: "a handler that ignores its deadline has its effect after the retry",
	},
	{
		Name: "no holder, probed", File: safetyFile, Defines: []string{"NO_HOLDER", "DEAF=1", "KIND=PROBED", "VERDICTS=0"}, Violates: oneEffect,
		Why: "and after its probe's not done",
	},
	{
		Name: "holder at the answer", File: safetyFile, Defines: []string{"HOLDER_AT_ANSWER", "DEAF=1", "KIND=PROBED", "VERDICTS=0"}, Violates: oneEffect,
		Why: "between the probe's look and its answer the effect happens, and its worker dies",
	},
	{
		Name: "late truth without settle", File: safetyFile, Defines: []string{"NO_SETTLE", "LATE_TRUTH"}, Violates: lateTruth,
		Why: "a late report says done of what was tried again",
	},
	{
		Name: "late report overwrites", File: safetyFile, Defines: []string{"LATE_OVERWRITES"}, Violates: finalStays,
		Why: "a late outcome is written over the verdict",
	},
	{
		Name: "late report twice", File: safetyFile, Defines: []string{"REPORT_TWICE"}, Violates: oneReport,
		Why: "the answer of its commit is lost, and it is told again",
	},
	{
		Name: "no quarantine", File: safetyFile, Defines: []string{"NO_QUARANTINE", "RESTORES=1", "VERDICTS=0"}, Violates: oneStart,
		Why: "what was done in the lost time is pending again, and is done again under the same epoch",
	},
	{
		Name: "quarantine: pending", File: safetyFile, Defines: []string{"HOLD_NO_PENDING", "RESTORES=1", "VERDICTS=0"}, Violates: oneEffect,
		Why: "what was done in the lost time is let go on",
	},
	{
		Name: "quarantine: handed back", File: safetyFile, Defines: []string{"HOLD_NO_TOUCHED", "RESTORES=1", "VERDICTS=1", "LOST=0", "GHOSTS=0", "CRASHES=0", "UNKNOWNS=0", "SNOOZES=0"}, Violates: oneEffect,
		Why: "a worker of before hands it back between restore and quarantine, so it is due later; but it was done in the lost time",
	},
	{
		Name: "quarantine: no deadline", File: safetyFile, Defines: []string{"HOLD_NO_DEADLINE", "RESTORES=1", "VERDICTS=1"}, Violates: oneEffect,
		Why: "what was begun in the lost time lands after the retry",
	},
	{
		Name: "quarantine: no fence", File: safetyFile, Defines: []string{"NO_FENCE", "KIND=IDEMPOTENT", "RESTORES=1", "VERDICTS=0", "LOST=0", "GHOSTS=0", "CRASHES=0"}, Violates: oneStart,
		Why: "it is run again under an epoch that was used in the lost time",
	},
	{
		Name: "restore: an error at once", File: safetyFile, Defines: []string{"NO_WAIT", "KIND=PROBED", "RESTORES=1", "VERDICTS=1", "LOST=0", "GHOSTS=0", "CRASHES=0", "UNKNOWNS=0", "SNOOZES=0"}, Violates: oneEffect,
		Why: "what was begun in the lost time lands after an error was tried again",
	},
	{
		Name: "deadline from start", File: safetyFile, Defines: []string{"DEADLINE_FROM_START"}, Violates: oneEffect,
		Why: "a claim's answer comes late, and its handler counts from then",
	},
	{
		Name: "no registry", File: safetyFile, Defines: []string{"NO_REGISTRY", "ONE_PROCESS=1"}, Violates: oneStart,
		Why: "a doubled hint finds the running attempt its own",
	},
	{
		Name: "flagged row resumed", File: safetyFile, Defines: []string{"RESUME_FLAGGED", "ONE_PROCESS=1"}, Violates: oneStart,
		Why: "a doubled hint of an attempt that said unknown finds it its own, and starts it again",
	},
	{
		Name: "refused is final", File: safetyFile, Defines: []string{"REFUSED_IS_FINAL"}, Violates: knownClaim,
		Why: "a lost claim is executed after its worker forgot it",
	},
	{
		Name: "asynchronous claim", File: safetyFile, Defines: []string{"ASYNC_CLAIM"}, Violates: durable,
		Why: "Postgres crashes, and the effect has no claim",
	},
	{
		Name: "rest: no requeue", File: restFile, Defines: []string{"NO_REQUEUE", "DROPS=1"}, Violates: Cycle,
		Why: "a lost hint is never written again",
	},
	{
		Name: "rest: no flag", File: restFile, Defines: []string{"NO_FLAG", "CRASHES=1"}, Violates: Cycle,
		Why: "nobody looks at what a dead worker held",
	},
	{
		Name: "rest: refused is final", File: restFile, Defines: []string{"REFUSED_IS_FINAL", "GHOSTS=1", "LAPSES=1"}, Violates: Cycle,
		Why: "the living worker does not know what it holds",
	},
	{
		Name: "doorbell: one look", File: ringingFile, Defines: []string{"NO_SECOND_LOOK"}, Violates: missedRing,
		Why: "a creation commits between the look and the lock",
	},
	{
		Name: "doorbell: flag in a row", File: ringingFile, Defines: []string{"FLAG_ROW"}, Violates: missedRing,
		Why: "a creation in flight read the flag before it was set",
	},
}
