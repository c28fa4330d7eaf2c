package storm

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/proof/ledger"
)

// person decides what is flagged, by asking the ledger, and is truthful: that it was done as soon as the ledger has it;
// that it was not only after deadline and settle, and where the product does not refuse. A refusal is respected.
type person struct {
	db     *pgxpool.Pool
	ledger ledger.Client
	dice   *rand.Rand
	seen   map[intent.ID]bool // errors and scheduled ones that were looked at once
	fault  func(error)
}

func (p *person) run(ctx context.Context) {
	for ctx.Err() == nil {
		for _, status := range []string{"ambiguous", "error", "scheduled"} {
			p.look(ctx, status)
		}
		_ = pause(ctx, 300*time.Millisecond)
	}
}

func (p *person) look(ctx context.Context, status string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	found, err := intent.List(ctx, p.db, intent.Filter{Status: status, Limit: 200})
	if err != nil {
		return // the database is away: later
	}
	for _, i := range found {
		if status != "ambiguous" {
			if p.seen[i.ID] {
				continue
			}
			p.seen[i.ID] = true
		}
		p.decide(ctx, status, i)
	}
}

// decide settles one intent, or leaves it for later.
func (p *person) decide(ctx context.Context, status string, i intent.Intent) {
	v := intent.Verdict{ID: i.ID, Seen: i.Position(), Actor: "the storm's person"}
	var err error
	switch at := p.dice.IntN(100); status {
	case "ambiguous":
		err = p.settle(ctx, i, v)
	case "error":
		v.Why = "errors are looked at now and then"
		switch { // most stay
		case at < 10:
			err = p.again(ctx, i, v)
		case at < 15:
			_, err = intent.Cancel(ctx, p.db, v)
		}
	case "scheduled":
		if at < 10 && i.RunAt.After(time.Now().Add(time.Second)) && i.Attempt == 0 {
			v.Why = "it is not needed any more"
			_, err = intent.Cancel(ctx, p.db, v)
		}
	}
	expected := []error{intent.ErrConflict, intent.ErrNeedsOverride, intent.ErrIllegal}
	refused := slices.ContainsFunc(expected, func(target error) bool { return errors.Is(err, target) })
	if errors.Is(err, intent.ErrInvalid) || errors.Is(err, intent.ErrNotFound) {
		p.fault(err)
	} else if err != nil && !refused && ctx.Err() == nil {
		delete(p.seen, i.ID) // the database was away
	}
}

func (p *person) settle(ctx context.Context, i intent.Intent, v intent.Verdict) error {
	done, err := p.done(ctx, i.ID)
	switch {
	case err != nil:
		return err
	case done:
		if i.FlaggedAt != nil && time.Since(*i.FlaggedAt) < upTo(p.dice, 6*time.Second) {
			return nil // the worker's own word may come yet
		}
		v.Why = "the ledger shows that it was done"
		_, err := intent.Happened(ctx, p.db, v)
		return err
	case i.DeadlineAt == nil || time.Since(*i.DeadlineAt) < settle+100*time.Millisecond:
		return nil // it may land yet
	case p.dice.IntN(4) == 0:
		v.Why = "it was not done, and is not wanted any more"
		_, err := intent.GiveUp(ctx, p.db, v)
		return err
	}
	return p.again(ctx, i, v)
}

// again retries what the ledger does not have.
func (p *person) again(ctx context.Context, i intent.Intent, v intent.Verdict) error {
	if i.DeadlineAt != nil && time.Since(*i.DeadlineAt) < settle+100*time.Millisecond {
		return nil
	}
	done, err := p.done(ctx, i.ID)
	if err != nil || done {
		return err
	}
	v.Why = "the ledger shows that it was not done"
	if p.dice.IntN(3) == 0 {
		v.NewKey = intent.FreshKey
	}
	_, err = intent.Retry(ctx, p.db, v)
	return err
}

func (p *person) done(ctx context.Context, id intent.ID) (bool, error) {
	visits, err := p.ledger.Visits(ctx, id)
	return slices.ContainsFunc(visits, func(v ledger.Visit) bool { return v.Recorded != nil }), err
}
