package storm

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/proof"
	"github.com/writhq/writ/internal/proof/ledger"
)

// blow lets the storm blow, calms it, waits for rest, and ends the product's processes. It returns how long rest took.
func (s *storm) blow(ctx context.Context) (time.Duration, error) {
	living, bury := context.WithCancel(ctx)
	defer bury()
	var supervisors sync.WaitGroup
	for _, slot := range s.slots {
		supervisors.Go(func() { slot.run(living) })
	}
	deciding, retire := context.WithCancel(ctx)
	defer retire()
	var deciders sync.WaitGroup
	decider := &person{db: s.db, ledger: s.client, dice: s.dice(1), seen: map[intent.ID]bool{}, fault: s.fault}
	if s.cfg.Drill == NoDrill {
		deciders.Go(func() { decider.run(deciding) })
	}
	deciders.Go(func() { s.tell(deciding) })

	if err := s.awaitFlow(ctx); err != nil {
		return 0, err
	}
	s.weather(ctx)
	if err := s.awaitCreated(ctx); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	calm := time.Now()
	s.printf("the faults stop: %d", s.total())
	if err := s.client.Replan(ctx, ledger.Plan{Seed: s.cfg.Seed, Witness: 200}); err != nil {
		return 0, err
	}
	s.stop(creator)
	rest, err := s.awaitRest(ctx, calm)
	if err != nil {
		return 0, err
	}
	bury()
	supervisors.Wait()
	retire()
	deciders.Wait()
	s.stop(worker, relay, reconciles)
	return rest, nil
}

// awaitFlow waits until jobs are done at all: a storm over processes that never began would prove nothing.
func (s *storm) awaitFlow(ctx context.Context) error {
	const most = time.Minute
	for began := time.Now(); time.Since(began) < most; {
		var sent bool
		err := s.db.QueryRow(ctx, "SELECT EXISTS (SELECT FROM writ.intents WHERE state = 'sent')").Scan(&sent)
		if err != nil || sent {
			return err
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("storm: nothing was sent within %v, though nothing was broken yet; see the logs in %s", most, s.dir)
}

// stop asks all children of roles to end, as an operator would, and holds them to their drain.
func (s *storm) stop(roles ...Role) {
	var wg sync.WaitGroup
	for _, slot := range s.slots {
		for _, role := range roles {
			if p := slot.get(); slot.role == role && p != nil {
				wg.Go(func() {
					if err := p.stop(drain + 10*time.Second); err != nil && !p.killed() {
						s.fault(err)
					} else if err != nil && role != creator {
						s.fault(fmt.Errorf("it had to be killed: %w", err))
					}
				})
			}
		}
	}
	wg.Wait()
}

// standing is what is still to be done.
type standing struct {
	Created, Open, Flagged, Owed, Outbox, Waiting int
}

// atRest: what nobody knows is open for ever where nobody decides.
func (s standing) atRest(d Drill) bool {
	return (s.Open == 0 || d == Unprobed && s.Open == s.Flagged) && s.Owed == 0 && s.Outbox == 0 && s.Waiting == 0
}

func (s *storm) look(ctx context.Context) (st standing, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	rows, err := s.db.Query(ctx, `SELECT (SELECT count(*) FROM proof.history WHERE op = 'INSERT')::int,
		(SELECT count(*) FROM writ.intents WHERE finished_at IS NULL)::int, (SELECT count(*) FROM writ.intents WHERE flagged_at IS NOT NULL)::int,
		(SELECT count(*) FROM writ.intents WHERE probe_at IS NOT NULL AND state IN ('error', 'sent'))::int, (SELECT count(*) FROM writ.outbox)::int, 0`)
	if err != nil {
		return st, err
	}
	return pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[standing])
}

// awaitRest waits until nothing is to be done, twice in a row. At the bound it gives up, and the checker says what is
// unfinished.
func (s *storm) awaitRest(ctx context.Context, calm time.Time) (time.Duration, error) {
	var st standing
	for calmly := 0; time.Since(calm) < s.cfg.Bound; {
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return 0, err
		}
		var err error
		st, err = s.look(ctx)
		if err == nil && st.atRest(s.cfg.Drill) {
			var rest *proof.Rest
			if rest, err = proof.ReadRest(ctx, s.db, s.stack.AMQPURL, ""); err == nil {
				for _, n := range rest.Queues {
					st.Waiting += n
				}
			}
		}
		if err != nil || !st.atRest(s.cfg.Drill) {
			calmly = 0
			continue
		}
		if calmly++; calmly == 2 {
			return time.Since(calm), nil
		}
	}
	s.fault(fmt.Errorf("not at rest within %v after the last fault: %+v", s.cfg.Bound, st))
	return time.Since(calm), nil
}

// tell prints now and then how it goes.
func (s *storm) tell(ctx context.Context) {
	for pause(ctx, 10*time.Second) == nil {
		st, err := s.look(ctx)
		if err != nil {
			s.printf("%d faults; the database is away", s.total())
			continue
		}
		s.printf("%d faults; created %d, open %d, flagged %d, recoveries owed %d, outbox %d", s.total(), st.Created, st.Open, st.Flagged, st.Owed, st.Outbox)
	}
}

func (s *storm) total() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Outcome{Faults: s.counts}.Total()
}

// gather collects what all witnesses say.
func (s *storm) gather(ctx context.Context) (proof.Evidence, error) {
	for _, c := range s.cables {
		c.close()
	}
	rest, err := s.leftOver(ctx)
	if err != nil {
		return proof.Evidence{}, err
	}
	e, err := proof.Gather(ctx, s.db)
	if err != nil {
		return e, err
	}
	e.Rest, e.Hints, e.Freezes, e.Hooked = rest, s.taps.all(), s.freezes, map[string]bool{}
	e.Steps = map[string]int{}
	e.TTL = s.cfg.Drill.ttl()
	if e.Acks, err = proof.ReadJournals[proof.Ack](s.dir + "/acks-*.jsonl"); err != nil {
		return e, err
	}
	if e.Runs, err = proof.ReadJournals[proof.Run](s.dir + "/runs-*.jsonl"); err != nil {
		return e, err
	}
	if e.Visits, err = s.client.All(ctx); err != nil {
		return e, err
	}
	for _, k := range s.cfg.Drill.kinds() {
		e.Hooked[k.Name] = k.hook
		if k.steps > 0 {
			e.Steps[k.Name] = k.steps
		}
	}
	if e.Receipts, err = s.receipts(ctx); err != nil {
		return e, err
	}
	e.Ended, err = s.ends(ctx, rest)
	return e, err
}

// leftOver looks for what is left, once the sessions of ended processes have had time to be noticed.
func (s *storm) leftOver(ctx context.Context) (*proof.Rest, error) {
	for began := time.Now(); ; {
		rest, err := proof.ReadRest(ctx, s.db, s.stack.AMQPURL, applications)
		if err != nil || len(rest.Connections) == 0 || time.Since(began) > 10*time.Second {
			return rest, err
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

func (s *storm) receipts(ctx context.Context) (map[uuid.UUID]int, error) {
	receipts := map[uuid.UUID]int{}
	rows, err := s.db.Query(ctx, "SELECT intent_id FROM proof.receipts")
	if err != nil {
		return nil, err
	}
	var id uuid.UUID
	_, err = pgx.ForEachRow(rows, []any{&id}, func() error { receipts[id]++; return nil })
	return receipts, err
}

// ends tells of each worker how it ended, and notes those that ended well and yet left their rows.
func (s *storm) ends(ctx context.Context, rest *proof.Rest) (map[uuid.UUID]proof.End, error) {
	rows, err := s.db.Query(ctx, "SELECT id FROM writ.workers")
	if err != nil {
		return nil, err
	}
	there, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return nil, err
	}
	ends := map[uuid.UUID]proof.End{}
	for _, slot := range s.slots {
		if slot.role != worker {
			continue
		}
		for _, p := range slot.history() {
			id, err := uuid.Parse(p.hello)
			if err != nil {
				return nil, fmt.Errorf("storm: a worker said %q where its id was expected", p.hello)
			}
			<-p.ended
			ends[id] = proof.Drained
			if p.err != nil {
				ends[id] = proof.Killed
			} else if slices.Contains(there, id) {
				rest.Workers = append(rest.Workers, id)
			}
		}
	}
	return ends, nil
}

// lane is one sequence of faults; the lanes run side by side.
type lane struct {
	name     string
	gap      time.Duration // on average, between two of its faults
	choices  []choice
	clearing func(context.Context) // makes good what is still broken at the end
}

type choice struct {
	name   string
	weight int
	do     func(context.Context, *rand.Rand) error // returns when the next may come; errNot: nothing was done
}

// weather makes faults for the duration, and makes good what is broken then.
func (s *storm) weather(ctx context.Context) {
	blowing, calm := context.WithTimeout(ctx, s.cfg.Duration)
	defer calm()
	var wg sync.WaitGroup
	lanes := []lane{s.kills()}
	switch s.cfg.Drill {
	case Drains:
		s.drains(blowing)
		return
	case NoDrill:
		lanes = []lane{s.processes(), s.database(), s.broker(), s.death(blowing), s.network(), s.restorer()}
	}
	for n, l := range lanes {
		wg.Go(func() { s.follow(blowing, l, s.dice(uint64(100+n))) })
	}
	wg.Wait()
}

// follow makes the faults of a lane.
func (s *storm) follow(ctx context.Context, l lane, dice *rand.Rand) {
	sum := 0
	for _, c := range l.choices {
		sum += c.weight
	}
	for pause(ctx, upTo(dice, 2*l.gap)) == nil {
		at := dice.IntN(sum)
		for _, c := range l.choices {
			if at -= c.weight; at >= 0 {
				continue
			}
			err := c.do(context.WithoutCancel(ctx), dice) // a fault that has begun is made good
			switch err {
			case nil:
				s.count(c.name)
			case errNot:
			default:
				s.fault(fmt.Errorf("the storm itself: %s: %w", c.name, err))
			}
			break
		}
	}
	if l.clearing != nil {
		l.clearing(context.WithoutCancel(ctx))
	}
}
