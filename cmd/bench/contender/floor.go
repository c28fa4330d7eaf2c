package contender

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/errgroup"
)

// Floor is no product: the bare statements and messages that a job kept in Postgres and hinted through RabbitMQ needs at
// least, written straight. It has no ids, epochs, guards, retries, liveness or recovery; it shows how far the rest is from
// the limit.
type Floor struct{}

const (
	floorQueue = "bench.floor"
	floorFrame = 32   // hints a message
	floorBatch = 1000 // rows a transaction
	floorLanes = 2    // batches being claimed and finished side by side
	floorPoll  = time.Millisecond
)

// Name is «floor».
func (Floor) Name() string { return "floor" }

// Slots is how many jobs a lane takes at once.
func (Floor) Slots() int { return floorBatch }

// About says what is measured.
func (Floor) About() string {
	return fmt.Sprintf("the bare SQL and AMQP that the promise needs at least: insert of job and outbox row, SKIP LOCKED, %d hints a persistent "+
		"message to a quorum queue with confirms, one UPDATE to claim and one to finish per batch of up to %d, polling every %v; no guards, no recovery",
		floorFrame, floorBatch, floorPoll)
}

// Migrate makes two tables.
func (Floor) Migrate(ctx context.Context, databaseURL string) error {
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `
		CREATE TABLE job (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, args jsonb NOT NULL, state text NOT NULL DEFAULT 'pending',
			started_at timestamptz, finished_at timestamptz) WITH (fillfactor = 50);
		CREATE TABLE outbox (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, job bigint NOT NULL);`)
	return errors.Join(err, conn.Close(ctx))
}

// Adopt declares the queue.
func (Floor) Adopt(_ context.Context, t Target, _ Options) error {
	return onBroker(t, func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(floorQueue, true, false, false, false, amqp.Table{"x-queue-type": "quorum"})
		return err
	})
}

// Leave deletes the queue.
func (Floor) Leave(_ context.Context, t Target, _ Options) error {
	return onBroker(t, func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete(floorQueue, false, false, false)
		return err
	})
}

const floorInsert = `WITH j AS (INSERT INTO job (args) SELECT unnest($1::text[])::jsonb RETURNING id) INSERT INTO outbox (job) SELECT id FROM j`

// Create inserts a job and its outbox row.
func (Floor) Create(ctx context.Context, t Target, args Args) error {
	_, err := t.Pool.Exec(ctx, floorInsert, []string{floorArgs(args)})
	return err
}

// CreateTx does so in the application's transaction.
func (f Floor) CreateTx(ctx context.Context, t Target, args Args) error {
	return f.insert(ctx, t, []string{floorArgs(args)})
}

// CreateMany does so for many.
func (f Floor) CreateMany(ctx context.Context, t Target, n, _ int, args Args) error {
	texts := make([]string, n)
	for i := range texts {
		args.N = int64(i)
		texts[i] = floorArgs(args)
	}
	return f.insert(ctx, t, texts)
}

func (Floor) insert(ctx context.Context, t Target, texts []string) error {
	return pgx.BeginFunc(ctx, t.Pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, floorInsert, texts)
		return err
	})
}

func floorArgs(a Args) string { return fmt.Sprintf(`{"n": %d, "at": %d}`, a.N, a.At) }

// Open counts, because there is no index to look at.
func (Floor) Open(ctx context.Context, t Target) (open bool, err error) {
	err = t.Pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM job WHERE finished_at IS NULL)").Scan(&open)
	return open, err
}

// Worker runs this program again.
func (f Floor) Worker(t Target, o Options) (*exec.Cmd, error) { return self(f.Name(), t, o) }

// WorkFloor is what the process does: one relay, and lanes that claim, run and finish.
func WorkFloor(ctx context.Context, databaseURL, amqpURL string, _ Options, r *Recorder) (Runner, func(), error) {
	pool, err := openPool(ctx, databaseURL, poolSize)
	if err != nil {
		return nil, nil, err
	}
	broker, err := amqp.Dial(amqpURL)
	if err != nil {
		pool.Close()
		return nil, nil, err
	}
	run := func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return ended(ctx, floorRelay(ctx, pool, broker)) })
		for range floorLanes {
			g.Go(func() error { return ended(ctx, floorLane(ctx, pool, broker, r)) })
		}
		return g.Wait()
	}
	return run, func() { broker.Close(); pool.Close() }, nil
}

// ended is nil if the context's end is why.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// floorRelay takes outbox rows, publishes them in frames, waits for the confirms, deletes them.
func floorRelay(ctx context.Context, pool *pgxpool.Pool, broker *amqp.Connection) error {
	ch, err := broker.Channel()
	if err == nil {
		err = ch.Confirm(false)
	}
	if err != nil {
		return err
	}
	tick := time.NewTicker(floorPoll)
	defer tick.Stop()
	for {
		n := 0
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			var ids, jobs []int64
			err := tx.QueryRow(ctx, `SELECT array_agg(id), array_agg(job) FROM
				(SELECT id, job FROM outbox ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED) o`, floorBatch).Scan(&ids, &jobs)
			if n = len(ids); err != nil || n == 0 {
				return err
			}
			if err := floorPublish(ctx, ch, jobs); err != nil {
				return err
			}
			_, err = tx.Exec(ctx, "DELETE FROM outbox WHERE id = ANY ($1)", ids)
			return err
		})
		if err != nil {
			return err
		}
		if n > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func floorPublish(ctx context.Context, ch *amqp.Channel, jobs []int64) error {
	var confirms []*amqp.DeferredConfirmation
	for len(jobs) > 0 {
		n := min(floorFrame, len(jobs))
		var body strings.Builder
		for _, id := range jobs[:n] {
			body.WriteString(strconv.FormatInt(id, 10))
			body.WriteByte('\n')
		}
		jobs = jobs[n:]
		c, err := ch.PublishWithDeferredConfirm("", floorQueue, true, false, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(body.String())})
		if err != nil {
			return err
		}
		confirms = append(confirms, c)
	}
	for _, c := range confirms {
		if ok, err := c.WaitContext(ctx); err != nil || !ok {
			return errors.Join(err, errors.New("a frame was not confirmed"))
		}
	}
	return nil
}

// floorLane collects frames while its last batch is in flight, claims, acks, runs, finishes.
func floorLane(ctx context.Context, pool *pgxpool.Pool, broker *amqp.Connection, r *Recorder) error {
	ch, err := broker.Channel()
	if err == nil {
		err = ch.Qos(2*floorBatch/floorFrame, 0, false)
	}
	if err != nil {
		return err
	}
	deliveries, err := ch.ConsumeWithContext(ctx, floorQueue, "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	buffered := make(chan amqp.Delivery, 2*floorBatch/floorFrame) // the library hands over one by one: see traps
	go func() {
		defer close(buffered)
		for d := range deliveries {
			buffered <- d
		}
	}()
	for {
		var ids []int64
		var last amqp.Delivery
		select {
		case <-ctx.Done():
			return ctx.Err()
		case d, ok := <-buffered:
			if !ok {
				return errors.New("the consumer ended")
			}
			last, ids = d, floorIDs(ids, d)
		}
		for more := true; more && len(ids) < floorBatch; {
			select {
			case d, ok := <-buffered:
				if more = ok; ok {
					last, ids = d, floorIDs(ids, d)
				}
			default:
				more = false
			}
		}
		if err := floorWork(ctx, pool, ids, last, r); err != nil {
			return err
		}
	}
}

func floorIDs(ids []int64, d amqp.Delivery) []int64 {
	for line := range strings.Lines(string(d.Body)) {
		if id, err := strconv.ParseInt(strings.TrimSuffix(line, "\n"), 10, 64); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

func floorWork(ctx context.Context, pool *pgxpool.Pool, ids []int64, last amqp.Delivery, r *Recorder) error {
	rows, err := pool.Query(ctx, `UPDATE job SET state = 'sending', started_at = now() WHERE id = ANY ($1) AND state = 'pending' RETURNING id, args`, ids)
	if err != nil {
		return err
	}
	var id int64
	var args Args
	claimed := make([]int64, 0, len(ids))
	_, err = pgx.ForEachRow(rows, []any{&id, &args}, func() error {
		claimed = append(claimed, id)
		return r.Handle(ctx, args)
	})
	if err != nil {
		return err
	}
	if err := last.Ack(true); err != nil {
		return err
	}
	_, err = pool.Exec(ctx, "UPDATE job SET state = 'sent', finished_at = now() WHERE id = ANY ($1)", claimed)
	return err
}
