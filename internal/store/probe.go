package store

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	writsql "github.com/writhq/writ/sql"
)

// Asking is a flagged attempt whose probe is to be asked now, taken by this worker.
type Asking struct {
	Claimed
	StartedAt  time.Time
	DeadlineAt time.Time
	FlaggedAt  time.Time
	Reason     string
	Error      string
	Token      time.Time // names this asking
	Probes     int       // that found nothing so far
	AskedAt    time.Time // the database's clock
	Danger     string    // why it may still be run by its worker, when it was asked; empty: it cannot
}

// Answer is what a probe found, and what follows from it.
type Answer struct {
	Finding  string        // one of the findings below
	Rest     time.Duration // by this process' own clock, until deadline + settle when the probe began
	Delay    time.Duration // before the next attempt, if there is to be one
	Pause    time.Duration // before the next asking, if it found nothing, or somebody else is to ask
	Why      string        // in a sentence; cleaned before it is written
	Evidence []byte        // JSON, or nil
}

// Quarantined is the reason of the flag of what a quarantine holds.
const Quarantined = "quarantined"

// The findings of a probe.
const (
	FoundDone      = "done"
	FoundNotDone   = "not-done"
	FoundNothing   = "unknown"
	FoundCancelled = "cancelled" // the worker shuts down, or is too old for the arguments; somebody else is to ask
)

// What became of an answer. All but the verdicts leave the flag where it is: see sql/probe.sql.
const (
	ProbeEarly    = "early"
	ProbeHeld     = "held"
	ProbeAgain    = "again"
	ProbePerson   = "person"
	ProbeReturned = "returned"
	ProbeMoved    = "moved"
	ProbeStale    = "stale"
	Confirms      = "confirms"
	Contradicts   = "contradicts"
)

// TakeProbe takes the asking that a hint names, for as long as lease. Nil: there is nothing to ask, or somebody asks
// already.
func (s *Store) TakeProbe(ctx context.Context, h Hint, lease time.Duration) (*Asking, error) {
	var a Asking
	err := s.transaction(ctx, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, writsql.Statement("TakeProbe"), h.ID, h.Epoch, h.Kind, lease).Scan(append(a.targets(),
			&a.StartedAt, &a.DeadlineAt, &a.FlaggedAt, &a.Reason, &a.Error, &a.Token, &a.Probes, &a.AskedAt, &a.Danger)...)
	})
	if err == pgx.ErrNoRows {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("take the asking of %s: %w", h.ID, err)
	}
	return &a, nil
}

// AnswerProbe writes an answer down and returns what became of it: one of the verdicts, or why there is none. It may be
// called again with the same answer after any error.
func (s *Store) AnswerProbe(ctx context.Context, worker uuid.UUID, a *Asking, answer Answer) (result string, err error) {
	err = s.transaction(ctx, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, writsql.Statement("AnswerProbe"), a.ID, a.Epoch, a.FlaggedAt, a.Token, answer.Finding, a.AskedAt,
			answer.Rest, answer.Delay, answer.Pause, worker, clean(answer.Why), text(answer.Evidence), a.Danger).Scan(&result)
	})
	if err != nil {
		return "", fmt.Errorf("write down what the probe of %s found: %w", a.ID, err)
	}
	return result, nil
}

// HintProbesDue writes hints for flagged rows whose asking is overdue, and returns them.
func (s *Store) HintProbesDue(ctx context.Context) ([]Requeued, error) {
	return s.hintAgain(ctx, "ProbesDue", "look for probes to be asked again")
}

// HintProbesMissing plans an asking for flagged rows of probed kinds that have none, and returns them.
func (s *Store) HintProbesMissing(ctx context.Context) ([]Requeued, error) {
	return s.hintAgain(ctx, "ProbesMissing", "look for probes to be asked")
}
