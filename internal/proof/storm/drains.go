package storm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/proof"
	"github.com/writhq/writ/internal/proof/ledger"
	"github.com/writhq/writ/workers"
)

// The drill of drains: one worker after the other is asked to end, as by each deployment, while there is more work than all of
// them can do. Some jobs take longer than a drain.

// walkers are its kinds. A call of the ledger is short; what takes time is before and after it.
var walkers = []kind{
	{Kind: unhurried("storm.payout.drain"), hook: true, calm: true, weight: 60, longest: 400 * time.Millisecond},
	{Kind: unhurried("storm.mail.drain"), effect: workers.EffectMarked, calm: true, weight: 30, longest: time.Second},
	{Kind: repeatable(unhurried("storm.sync.drain")), calm: true, weight: 3, longest: 6 * time.Second},
	{Kind: unhurried("storm.bill.drain"), hook: true, calm: true, weight: 4, longest: time.Second, steps: 25},
}

// unhurried declares a kind with time for a busy machine: what is asked here is that a drain makes nothing ambiguous.
func unhurried(name string) intent.Kind[task] {
	k := declare(name, "storm-drain")
	k.Timeout = 40 * time.Second
	return k
}

// bound is within which a worker must have ended: handlers that have not returned by the end of the drain are cancelled, and heed that.
const bound = drain + 4*time.Second

// slots of a worker: few enough that all are busy.
func (d Drill) slots() int {
	if d == Drains {
		return 12
	}
	return 30
}

// ttl of a worker.
func (d Drill) ttl() time.Duration {
	if d == Drains {
		return 3 * ttl // nobody dies, and none must look dead on a busy machine
	}
	return ttl
}

// drains asks worker after worker to end, each when the one before has been relieved, until there were enough or ctx ends.
func (s *storm) drains(ctx context.Context) {
	dice := s.dice(100)
	for n := 0; (s.cfg.Faults == 0 || n < s.cfg.Faults) && pause(ctx, time.Second+upTo(dice, time.Second)) == nil; {
		p, _ := s.some(worker, dice)
		if p == nil {
			continue
		}
		began := time.Now()
		if err := p.stop(bound); err != nil {
			s.fault(err)
		}
		took := time.Since(began)
		s.mu.Lock()
		s.drained = append(s.drained, took)
		s.mu.Unlock()
		s.count("drain " + string(worker))
		n++
	}
}

// drainsHeld holds the drill to its promise: nothing flagged, and long jobs went from worker to worker.
func (s *storm) drainsHeld(ctx context.Context) (drains []time.Duration, over int, err error) {
	if s.cfg.Drill != Drains {
		return nil, 0, nil
	}
	slices.Sort(s.drained)
	var flagged int
	err = s.db.QueryRow(ctx, "SELECT count(*) FILTER (WHERE event = 'flagged'), count(*) FILTER (WHERE event = 'retried' AND why = $1) FROM writ.log", workers.HandedOver).
		Scan(&flagged, &over)
	if err != nil {
		return nil, 0, err
	}
	if flagged > 0 {
		s.fault(fmt.Errorf("%d attempts were flagged, though every worker was only asked to end", flagged))
	}
	if over == 0 {
		s.fault(errors.New("no job was handed over at a safe point, which proves nothing of them"))
	}
	return s.drained, over, nil
}

// walk goes the steps of a job, from where the last safe point is.
func (h *hand) walk(ctx context.Context, k kind, job *workers.Job[task]) (proof.Said, error) {
	done := 0
	if _, err := job.Progress(ctx, &done); err != nil {
		return proof.SaidUnknown, err
	}
	for step := done + 1; step <= k.steps; step++ {
		// A step that is cancelled before its call is not done, and all before it is.
		if err := pause(ctx, job.Args.Before); err != nil {
			return proof.SaidNotDone, workers.NotDone(fmt.Errorf("before step %d: %w", step, err))
		}
		err := h.ledger.Do(ctx, proof.StepOf(ctx, job, k.Name, settle, step))
		switch {
		case errors.Is(err, ledger.ErrRefused), errors.Is(err, ledger.ErrBusy), errors.Is(err, ledger.ErrRejected):
			return proof.SaidSnooze, workers.Snooze(10 * time.Millisecond)
		case err != nil:
			return proof.SaidUnknown, err
		}
		err = job.SafePoint(ctx, step)
		switch {
		case errors.Is(err, workers.ErrHandOver):
			return proof.SaidOver, err
		case err != nil:
			return proof.SaidUnknown, err
		}
	}
	return proof.SaidDone, job.Done(func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO proof.receipts (intent_id, epoch) VALUES ($1, $2)", job.ID(), job.Epoch())
		return err
	})
}
