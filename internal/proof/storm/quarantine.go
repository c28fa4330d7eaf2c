package storm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/writhq/writ/intent"
)

// manyOpen is more than a quarantine may hold: each row costs a decision, and all must come to rest within the bound.
const manyOpen = 1000

// restorer does what a person does to a database that has lost its past, though this one has not: it is paused, all that is open
// is quarantined, and it is resumed. Nothing is stopped meanwhile: workers have jobs in their hands whose outcomes then come too
// late, and hints of all the old epochs are under way.
func (s *storm) restorer() lane {
	return lane{name: "restorer", gap: 15 * time.Second, choices: []choice{{"quarantine", 1, s.quarantine}}}
}

func (s *storm) quarantine(ctx context.Context, dice *rand.Rand) error {
	word := intent.Word{Actor: "the storm's restorer", Why: "as if it were restored from a backup"}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var open int
	err := s.db.QueryRow(ctx, "SELECT count(*) FROM writ.intents WHERE finished_at IS NULL AND run_at <= now()").Scan(&open)
	if err != nil || open == 0 || open > manyOpen {
		return errNot
	}
	if err := s.insist(ctx, func() error { return intent.Pause(ctx, s.db, "", word) }); err != nil {
		return fmt.Errorf("pause: %w", err)
	}
	_ = pause(ctx, upTo(dice, 500*time.Millisecond))
	err = s.insist(ctx, func() error {
		_, err := intent.Quarantine(ctx, s.db, time.Now().Add(-time.Minute), word, nil)
		return err
	})
	if err != nil {
		err = fmt.Errorf("quarantine: %w", err)
	}
	_ = pause(ctx, upTo(dice, time.Second))
	resumed := s.insist(ctx, func() error {
		err := intent.Resume(ctx, s.db, "", word)
		if errors.Is(err, intent.ErrIllegal) {
			return nil // it was applied, and its answer lost
		}
		return err
	})
	if resumed != nil {
		resumed = fmt.Errorf("resume: %w", resumed)
	}
	return errors.Join(err, resumed)
}

// insist does it again while the database is away, or has chosen it to end a deadlock. What is refused stays refused.
func (s *storm) insist(ctx context.Context, do func() error) error {
	for {
		err := do()
		if err == nil || errors.Is(err, intent.ErrIllegal) || errors.Is(err, intent.ErrInvalid) {
			return err
		}
		if pause(ctx, 100*time.Millisecond) != nil {
			return err
		}
	}
}
