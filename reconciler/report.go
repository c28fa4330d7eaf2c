package reconciler

import "github.com/writhq/writ/intent"

// Report is what one look did.
type Report struct {
	Requeued  int // hints written again
	Flagged   int // attempts whose worker died, now ambiguous
	Retried   int // the same, idempotent, to be run again, or in error if their attempts are spent
	Pruned    int // rows past their retention
	Forgotten int // settled events past Config.KeepEvents, which are no intents
	Probed    int // probes that are asked (again), because a hint was lost or none was planned

	// Left is how many attempts have no living worker and were left as they are, up to 1,000: somebody has their row locked, the
	// worker is not silent for long enough, or the database paused meanwhile, or is closed. Only of Once and Rehearse; look again.
	Left int

	// Suspended: lost hints were not looked for, because the relay is so far behind (10,000 hints overdue by more than
	// RequeueAfter) that lost cannot be told from late. The next look tries again.
	Suspended bool

	// Unfinished: a rehearsal ended a duty after 10,000 rows.
	Unfinished bool
}

// acts is how many rows were acted on.
func (r *Report) acts() int { return r.Requeued + r.Flagged + r.Retried + r.Probed + r.Pruned }

// Act is what was done to one intent, or would be done, and why.
type Act struct {
	Duty  Duty      `json:"duty"`
	Did   string    `json:"did"` // requeued, flagged, retried, failed, probed or pruned
	ID    intent.ID `json:"id"`
	Kind  string    `json:"kind"`
	Epoch int32     `json:"epoch"` // that it was found at
	Why   string    `json:"why"`
}
