package storm

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/writhq/writ/internal/devstack"
	"github.com/writhq/writ/internal/proof"
	"github.com/writhq/writ/internal/rabbit"
	"github.com/writhq/writ/internal/store"
)

// errNot says that a fault could not be made just now, which is fine.
var errNot = errors.New("not now")

// processes kills and freezes children. A freeze longer than the TTL makes a zombie.
func (s *storm) processes() lane {
	var thaws sync.WaitGroup
	l := lane{name: "processes", gap: 1500 * time.Millisecond, clearing: func(context.Context) { thaws.Wait() }}
	for role, weights := range map[Role][2]int{worker: {6, 5}, relay: {3, 3}, reconciles: {2, 2}, creator: {2, 2}} {
		l.choices = append(l.choices,
			choice{"kill " + string(role), weights[0], func(_ context.Context, dice *rand.Rand) error { return s.kill(role, dice) }},
			choice{"freeze " + string(role), weights[1], func(_ context.Context, dice *rand.Rand) error { return s.freeze(role, dice, &thaws) }})
	}
	return ordered(l)
}

// some child of a role, or nil. The first worker is never killed by the storm, only frozen: outcomes of a worker that
// lives on are all accounted for.
func (s *storm) some(role Role, dice *rand.Rand) (p *process, n int) {
	var of []*slot
	for _, slot := range s.slots {
		if slot.role == role {
			of = append(of, slot)
		}
	}
	n = dice.IntN(len(of))
	return of[n].get(), n
}

func (s *storm) kill(role Role, dice *rand.Rand) error {
	p, n := s.some(role, dice)
	if p == nil || role == worker && n == 0 {
		return errNot
	}
	return p.signal(syscall.SIGKILL)
}

func (s *storm) freeze(role Role, dice *rand.Rand, thaws *sync.WaitGroup) error {
	p, _ := s.some(role, dice)
	long := 200*time.Millisecond + upTo(dice, 2*ttl)
	if dice.IntN(4) == 0 { // beyond deadline and settle
		long += timeout + settle
	}
	if p == nil {
		return errNot
	}
	from := time.Now()
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return errNot // it has ended
	}
	thaws.Go(func() {
		timer := time.NewTimer(long)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-p.ended:
		}
		_ = p.signal(syscall.SIGCONT)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.freezes = append(s.freezes, proof.Freeze{PID: p.pid(), From: from, To: time.Now()})
	})
	return nil
}

// database breaks Postgres.
func (s *storm) database() lane {
	return lane{name: "database", gap: 4 * time.Second, choices: []choice{
		{"kill backends", 6, s.terminate},
		{"doubled hints", 4, s.double},
		{"Postgres -m immediate", 2, func(ctx context.Context, dice *rand.Rand) error {
			if err := s.stack.StopPostgres(ctx, devstack.StopImmediate); err != nil {
				return err
			}
			_ = pause(ctx, upTo(dice, 3*time.Second))
			return s.stack.StartPostgres(ctx)
		}},
		{"freeze Postgres", 1, func(ctx context.Context, dice *rand.Rand) error {
			if err := s.stack.FreezePostgres(); err != nil {
				return err
			}
			_ = pause(ctx, upTo(dice, 2*ttl))
			return s.stack.ThawPostgres()
		}},
	}}
}

// double writes hints again for what is open, several of each, as a broker, a relay or the reconciler may; and soon after
// cuts the workers off, so that the answers of claims are lost while their hints are there twice. What a quarantine left in
// sending has no holder, and the epoch below its own has never had a hint.
func (s *storm) double(ctx context.Context, dice *rand.Rand) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := s.db.Exec(ctx, `INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op)
		SELECT now(), kind, id, epoch - (state = 'sending')::int, 'run'
		FROM (SELECT id, kind, epoch, state FROM writ.intents
			WHERE finished_at IS NULL AND run_at <= now() AND (state = 'pending' OR worker_id IS NOT NULL) LIMIT 300) i, generate_series(1, 3)
		ORDER BY id`)
	if err != nil {
		return errNot // it is away just now
	}
	_ = pause(ctx, upTo(dice, 400*time.Millisecond))
	for _, strand := range s.cables[string(worker)+" to Postgres"].some(dice, 1) {
		strand.cut()
	}
	return nil
}

// terminate ends some sessions of the product and of creators.
func (s *storm) terminate(ctx context.Context, dice *rand.Rand) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := s.db.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM (
		SELECT pid FROM pg_stat_activity WHERE application_name LIKE $1 ORDER BY random() LIMIT $2::int) p`, applications, 1+dice.IntN(8))
	if err != nil {
		return errNot // it is away just now
	}
	return nil
}

// ripe is how old queues must be before the broker is killed: RabbitMQ 3.10 writes down that a quorum queue exists up to
// two seconds after its declaration, and one that is killed soon after that may come back without a leader.
const ripe = 25 * time.Second

// broker breaks RabbitMQ, while it runs.
func (s *storm) broker() lane {
	return lane{name: "broker", gap: 5 * time.Second, choices: []choice{
		{"memory alarm", 2, func(ctx context.Context, dice *rand.Rand) error {
			if !s.brokerDies.TryLock() {
				return errNot
			}
			defer s.brokerDies.Unlock()
			if err := s.stack.SetBrokerMemoryWatermark(ctx, 0); err != nil {
				return err
			}
			_ = pause(ctx, upTo(dice, 4*time.Second))
			return s.stack.SetBrokerMemoryWatermark(ctx, -1)
		}},
		{"purge queues", 4, func(ctx context.Context, dice *rand.Rand) error {
			return s.eachQueue(ctx, dice, func(ch *amqp.Channel, queue string) error {
				_, err := ch.QueuePurge(queue, false)
				return err
			})
		}},
		{"delete queues", 1, func(ctx context.Context, dice *rand.Rand) error {
			if !s.brokerDies.TryLock() {
				return errNot
			}
			defer s.brokerDies.Unlock()
			return s.eachQueue(ctx, dice, func(ch *amqp.Channel, queue string) error {
				_, err := ch.QueueDelete(queue, false, false, false)
				return err
			})
		}},
	}}
}

// death kills RabbitMQ, when its queues are ripe: they are not deleted while it waits for that.
func (s *storm) death(blowing context.Context) lane {
	return lane{name: "death", gap: 15 * time.Second, choices: []choice{
		{"kill RabbitMQ", 1, func(ctx context.Context, _ *rand.Rand) error {
			s.brokerDies.Lock()
			defer s.brokerDies.Unlock()
			if pause(blowing, ripe) != nil {
				return errNot // the storm is over
			}
			if err := s.stack.KillBroker(ctx); err != nil {
				return err
			}
			return s.stack.StartBroker(ctx)
		}},
	}}
}

// eachQueue does something to about half of the queues, as an operator might by mistake.
func (s *storm) eachQueue(ctx context.Context, dice *rand.Rand, do func(*amqp.Channel, string) error) error {
	settings, err := store.ReadSettings(ctx, s.db)
	if err != nil {
		return errNot
	}
	conn, err := amqp.DialConfig(s.stack.AMQPURL, amqp.Config{Dial: amqp.DefaultDial(5 * time.Second)})
	if err != nil {
		return errNot
	}
	defer conn.Close()
	// The library waits for answers for as long as it takes.
	unwatch := context.AfterFunc(ctx, func() { _ = conn.CloseDeadline(time.Now().Add(time.Second)) })
	defer unwatch()
	done := false
	for _, queue := range queues() {
		if dice.IntN(2) == 0 {
			continue
		}
		name, err := rabbit.QueueName(settings.Installation, queue)
		if err != nil {
			return err
		}
		ch, err := conn.Channel()
		if err != nil {
			return errNot
		}
		if err := do(ch, name); err == nil {
			done = true
			_ = ch.Close()
		}
	}
	if !done {
		return errNot
	}
	return nil
}

func queues() (names []string) {
	seen := map[string]bool{}
	for _, k := range kinds {
		if !seen[k.Queue] {
			seen[k.Queue] = true
			names = append(names, k.Queue)
		}
	}
	return names
}

// network breaks connections between processes and servers.
func (s *storm) network() lane {
	var heals sync.WaitGroup
	onSome := func(do func(*strand, *rand.Rand)) func(context.Context, *rand.Rand) error {
		return func(_ context.Context, dice *rand.Rand) error {
			strands := s.someCable(dice).some(dice, 0.4)
			for _, strand := range strands {
				do(strand, dice)
			}
			if len(strands) == 0 {
				return errNot
			}
			return nil
		}
	}
	// In the end a half-open connection comes back to life, or is reset.
	later := func(strand *strand, dice *rand.Rand, most time.Duration) {
		long, reset := upTo(dice, most), dice.IntN(2) == 0
		heals.Go(func() {
			_ = pause(context.Background(), long)
			if strand.heal(); reset {
				strand.cut()
			}
		})
	}
	return lane{
		name: "network", gap: 2 * time.Second, clearing: func(context.Context) { heals.Wait() },
		choices: []choice{
			{"cut connections", 5, onSome(func(strand *strand, _ *rand.Rand) { strand.cut() })},
			{"half-open connections", 3, onSome(func(strand *strand, dice *rand.Rand) {
				strand.hang(toServer, toClient)
				later(strand, dice, 8*time.Second)
			})},
			{"lost answers", 4, onSome(func(strand *strand, dice *rand.Rand) {
				strand.hang(toClient)
				later(strand, dice, 5*time.Second)
			})},
			{"slow connections", 3, onSome(func(strand *strand, dice *rand.Rand) {
				strand.slow(upTo(dice, 300*time.Millisecond))
				later(strand, dice, 5*time.Second)
			})},
			{"server out of reach", 2, func(ctx context.Context, dice *rand.Rand) error {
				lift := s.someCable(dice).bar(dice)
				defer lift()
				_ = pause(ctx, upTo(dice, 5*time.Second))
				return nil
			}},
		},
	}
}

func (s *storm) someCable(dice *rand.Rand) *cable {
	names := make([]string, 0, len(s.cables))
	for name := range s.cables {
		names = append(names, name)
	}
	return s.cables[pick(dice, names)]
}

// pick draws one of some names, in an order that does not depend on a map's.
func pick(dice *rand.Rand, names []string) string {
	slices.Sort(names)
	return names[dice.IntN(len(names))]
}

// ordered sorts the choices of a lane, which may come from a map, so that a seed draws the same.
func ordered(l lane) lane {
	slices.SortFunc(l.choices, func(a, b choice) int { return strings.Compare(a.name, b.name) })
	return l
}
