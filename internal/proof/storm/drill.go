package storm

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// Drill is a storm of one sort of fault: workers are killed at random, by SIGKILL, while a known number of intents of one
// kind is made and carried out, and no person decides; or they are asked to end, see drains.go.
type Drill string

// The drills.
const (
	NoDrill  Drill = ""
	Probed   Drill = "probed"   // of a kind with a truthful probe: each intent must end in sent or error by itself
	Unprobed Drill = "unprobed" // of the same kind without a probe: what nobody knows must stay flagged
	Drains   Drill = "drains"   // workers are asked to end (SIGTERM), under full load: nothing may be flagged
)

// drilled is the kind of a drill. Its attempts take long enough that a kill meets some.
var drilled = kind{
	Kind: declare("storm.payout.drill", "storm-drill"), hook: true, onError: true, probed: true, weight: 1, longest: 400 * time.Millisecond,
}

// kinds that take part.
func (d Drill) kinds() []kind {
	k := drilled
	switch d {
	case Probed:
	case Unprobed:
		k.probed = false
	case Drains:
		return walkers
	default:
		return kinds
	}
	return []kind{k}
}

// Check reports a name that is none of the drills.
func (d Drill) Check() error {
	if d != NoDrill && d != Probed && d != Unprobed && d != Drains {
		return fmt.Errorf("storm: there is no drill %q; they are %q, %q and %q", d, Probed, Unprobed, Drains)
	}
	return nil
}

// drillEnv tells a child of the drill, and a creator, one of so many, its share.
func (c Config) drillEnv(creators int) []string {
	if c.Drill == NoDrill {
		return nil
	}
	if c.Drill == Drains {
		return []string{envDrill + "=" + string(c.Drill)}
	}
	share := (c.Intents + creators - 1) / creators
	// All are made in the first nine tenths of the time.
	every := c.Duration * 9 / 10 * hands / time.Duration(max(1, share))
	return []string{envDrill + "=" + string(c.Drill), fmt.Sprintf("%s=%d", envQuota, share), envEvery + "=" + every.String()}
}

func (c *child) drill() Drill { return Drill(c.getenv(envDrill)) }

// quota is how many intents a creator makes in a drill. Safe for concurrent use.
type quota struct {
	left  atomic.Int64
	every time.Duration
}

// take reports whether one more is to be made.
func (q *quota) take() bool { return q.left.Add(-1) >= 0 }

// quota of this creator; nil: it makes as many as the others can bear.
func (c *child) quota() (*quota, error) {
	if c.drill() == NoDrill || c.drill() == Drains {
		return nil, nil
	}
	n, err := strconv.ParseInt(c.getenv(envQuota), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("storm: %s: %w", envQuota, err)
	}
	q := &quota{}
	q.left.Store(n)
	if q.every, err = time.ParseDuration(c.getenv(envEvery)); err != nil || q.every <= 0 {
		return nil, fmt.Errorf("storm: %s is no time between two creations", envEvery)
	}
	return q, nil
}

// kills is the lane of a drill.
func (s *storm) kills() lane {
	return lane{name: "kills", gap: 700 * time.Millisecond, choices: []choice{
		{"kill " + string(worker), 1, func(_ context.Context, dice *rand.Rand) error {
			p, _ := s.some(worker, dice)
			if p == nil {
				return errNot
			}
			return p.signal(syscall.SIGKILL)
		}},
	}}
}

// awaitCreated waits until all intents of a drill are made.
func (s *storm) awaitCreated(ctx context.Context) error {
	for began := time.Now(); (s.cfg.Drill == Probed || s.cfg.Drill == Unprobed) && time.Since(began) < s.cfg.Bound; {
		if st, err := s.look(ctx); err == nil && st.Created >= s.cfg.Intents {
			return nil
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	return nil // that they are too few is told at the end
}

// Verdicts counts the decisions on attempts that nobody knew the outcome of.
type Verdicts struct {
	Flagged  int // attempts
	Happened int // says the probe
	Retried  int // not done, says the probe
	GaveUp   int // not done, and the attempts spent
	Persons  int // decided by anybody else
	Left     int // nobody has decided
}

// verdicts reads them from the log, and holds a drill to its promise.
func (s *storm) verdicts(ctx context.Context) (v Verdicts, err error) {
	err = s.db.QueryRow(ctx, `SELECT count(DISTINCT (intent_id, epoch)) FILTER (WHERE event = 'flagged'),
		count(*) FILTER (WHERE actor = 'probe' AND event = 'happened'), count(*) FILTER (WHERE actor = 'probe' AND event = 'retry'),
		count(*) FILTER (WHERE actor = 'probe' AND event = 'give-up'),
		count(*) FILTER (WHERE actor <> 'probe' AND event IN ('happened', 'retry', 'give-up')),
		(SELECT count(*) FROM writ.intents WHERE flagged_at IS NOT NULL) FROM writ.log`).
		Scan(&v.Flagged, &v.Happened, &v.Retried, &v.GaveUp, &v.Persons, &v.Left)
	if err != nil {
		return v, err
	}
	decided := v.Happened + v.Retried + v.GaveUp
	switch {
	case s.cfg.Drill == Probed && (v.Left > 0 || v.Persons > 0 || decided == 0):
		s.fault(fmt.Errorf("with a truthful probe nothing is left for a person, and the probe decides: %+v", v))
	case s.cfg.Drill == Unprobed && (v.Left == 0 || v.Persons > 0 || decided > 0):
		s.fault(fmt.Errorf("without a probe what nobody knows stays flagged, and nobody decides: %+v", v))
	}
	return v, nil
}
