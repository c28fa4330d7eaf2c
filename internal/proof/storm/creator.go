package storm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/proof"
)

// How fast a creator creates: never more than so many open intents that wait for workers, and for those and the person, and
// so many transactions a second, of all its hands together. What the machine cannot carry is not created.
const (
	backlog = 600
	most    = 2000
	hands   = 4
	rate    = 70
)

// create makes intents in transactions of all sorts until ctx ends.
func (c *child) create(ctx context.Context) error {
	pool, err := c.pool()
	if err != nil {
		return err
	}
	defer pool.Close()
	acks, err := proof.OpenJournal[proof.Ack](c.journal("acks"))
	if err != nil {
		return err
	}
	defer acks.Close()
	seed, err := strconv.ParseUint(c.getenv(envSeed), 10, 64)
	if err != nil {
		return fmt.Errorf("storm: %s: %w", envSeed, err)
	}
	quota, err := c.quota()
	if err != nil {
		return err
	}
	c.hello("ready")
	var wg sync.WaitGroup
	r := &room{pool: pool}
	if quota == nil {
		wg.Go(func() { r.watch(ctx) })
	}
	for n := range hands {
		m := &maker{pool: pool, room: r, acks: acks, quota: quota, kinds: c.drill().kinds(), dice: rand.New(rand.NewPCG(seed, uint64(os.Getpid())<<8|uint64(n)))}
		wg.Go(func() { m.run(ctx) })
	}
	wg.Wait()
	return nil
}

// maker is one hand of a creator.
type maker struct {
	pool *pgxpool.Pool
	room *room
	acks *proof.Journal[proof.Ack]
	dice *rand.Rand
	n    int

	kinds []kind
	quota *quota // nil: any number, of all sorts
}

func (m *maker) run(ctx context.Context) {
	every := time.Second * hands / rate
	if m.quota != nil {
		every = m.quota.every
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for ctx.Err() == nil {
		if m.quota != nil && !m.quota.take() {
			<-ctx.Done()
			return
		}
		if m.quota != nil || m.room.free.Load() {
			m.one(ctx)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// room is whether the others keep up, as it was a moment ago.
type room struct {
	pool *pgxpool.Pool
	free atomic.Bool
}

func (r *room) watch(ctx context.Context) {
	for ctx.Err() == nil {
		r.free.Store(r.look(ctx))
		_ = pause(ctx, 250*time.Millisecond) // the loop sees if ctx ended
	}
}

func (r *room) look(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var open, waiting int
	err := r.pool.QueryRow(ctx, `SELECT count(*)::int, count(*) FILTER (WHERE flagged_at IS NULL)::int
		FROM (SELECT flagged_at FROM writ.intents WHERE finished_at IS NULL LIMIT $1) o`, most).Scan(&open, &waiting)
	return err == nil && open < most && waiting < backlog
}

// errRollback is a transaction that its own application gives up.
var errRollback = errors.New("rolled back on purpose")

// one creates in one transaction, and tries again with the same ids while it cannot know.
func (m *maker) one(ctx context.Context) {
	m.n++
	k := m.kind()
	many := m.many(k)
	way := m.dice.IntN(100)
	if m.quota != nil {
		way = min(way, 90) // none is rolled back: each counts
	}
	for try := range 5 {
		m.note(many, k, proof.Begun)
		err := m.transaction(ctx, k, many, way)
		switch {
		case err == nil:
			m.note(many, k, proof.Acknowledged)
			return
		case errors.As(err, new(*commitError)):
			m.note(many, k, proof.Unknown)
		default:
			m.note(many, k, proof.Refused)
			if errors.Is(err, errRollback) {
				return
			}
		}
		if pause(ctx, time.Duration(try+1)*upTo(m.dice, 400*time.Millisecond)) != nil {
			return // the last answer stands
		}
	}
}

func (m *maker) kind() kind {
	sum := 0
	for _, k := range m.kinds {
		sum += k.weight
	}
	at := m.dice.IntN(sum)
	for _, k := range m.kinds {
		if at -= k.weight; at < 0 {
			return k
		}
	}
	return m.kinds[0]
}

// many draws what one transaction creates: mostly one intent, sometimes a handful, now and then for later.
func (m *maker) many(k kind) []intent.One[task] {
	n := 1
	if m.quota == nil && m.dice.IntN(10) == 0 && k.longest < time.Second {
		n = 2 + m.dice.IntN(24)
	}
	many := make([]intent.One[task], n)
	for i := range many {
		many[i] = intent.One[task]{Args: k.draw(m.dice, m.n), Opts: intent.Opts{ID: intent.NewID()}}
		switch m.dice.IntN(20) {
		case 0:
			many[i].Opts.RunAt = time.Now().Add(upTo(m.dice, 8*time.Second))
		case 1:
			many[i].Opts.Key = "key-" + many[i].Opts.ID.String()
		}
	}
	return many
}

func (m *maker) note(many []intent.One[task], k kind, answer proof.Answer) {
	acks := make([]proof.Ack, len(many))
	for i, one := range many {
		acks[i] = proof.Ack{ID: one.Opts.ID, Kind: k.Name, Answer: answer, At: time.Now()}
	}
	m.acks.Write(acks...)
}

// commitError is that of a commit: nobody knows whether it was applied. Any other error came before it was sent.
type commitError struct{ err error }

func (e *commitError) Error() string { return "commit: " + e.err.Error() }
func (e *commitError) Unwrap() error { return e.err }

// transaction creates with the application's own row, by a way that is the same in each try.
func (m *maker) transaction(ctx context.Context, k kind, many []intent.One[task], way int) error {
	// A creator that is asked to end finishes its transaction.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	tx, err := m.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }() // after the commit there is nothing to roll back
	if _, err := tx.Exec(ctx, "INSERT INTO proof.orders (id) VALUES ($1) ON CONFLICT DO NOTHING", many[0].Opts.ID); err != nil {
		return err
	}
	switch {
	case len(many) > 1:
		_, err = k.CreateMany(ctx, tx, many)
	case way < 20 && many[0].Opts.Key == "" && many[0].Opts.RunAt.IsZero():
		_, err = tx.Exec(ctx, "INSERT INTO writ.intents (id, kind, args) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", many[0].Opts.ID, k.Name, many[0].Args)
	default:
		_, err = k.Create(ctx, tx, many[0].Args, many[0].Opts)
	}
	if err != nil {
		return err
	}
	if way > 95 {
		return errRollback
	}
	if way > 90 {
		_ = pause(ctx, upTo(m.dice, 300*time.Millisecond)) // a transaction that takes its time
	}
	if err := tx.Commit(ctx); err != nil {
		if errors.Is(err, pgx.ErrTxCommitRollback) {
			return err
		}
		return &commitError{err}
	}
	return nil
}
