package workers_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/rabbit"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

// These are the meetings of two releases while a deployment rolls: what an older worker gets that only a newer one knows.
// That the binaries of two releases get along is tested in internal/compat.

// backlog is more than a worker may bring round in the time that it leaves things for.
const backlog = 600

// leftEvenly holds that times are spread so that no more than 50 come again in a second, and returns the last of them.
func (b *bench) leftEvenly(times string) {
	b.t.Helper()
	most := testkit.Value[int](b.t, b.db, "SELECT max(n) FROM (SELECT count(*) AS n FROM ("+times+") t (at) GROUP BY date_trunc('second', at)) s")
	span := testkit.Value[float64](b.t, b.db, "SELECT extract(epoch FROM max(at) - min(at))::float8 FROM ("+times+") t (at)")
	b.t.Logf("%d in %.0f s, at most %d in one", backlog, span, most)
	// The jitter of up to 5 s moves some into each other's seconds.
	if most > 75 || span < backlog/50-6 {
		b.t.Errorf("%d that were left come again within %.0f s, %d of them in one second; want about 50 a second", backlog, span, most)
	}
}

func (b *bench) createMany(k intent.Kind[args], n int) {
	b.t.Helper()
	many := make([]intent.One[args], n)
	for i := range many {
		many[i].Args = args{i}
	}
	err := pgx.BeginFunc(context.Background(), b.db, func(tx pgx.Tx) error {
		_, err := k.CreateMany(context.Background(), tx, many)
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// TestRolling_unknownKind: a backlog of a kind that the only worker of its queue does not know yet. It is put back, spread over
// time; the reconciler leaves it there; what the worker does know is not held up, and the newer worker does it all, once.
func TestRolling_unknownKind(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old, coming := job, job
	old.Queue, coming.Queue, coming.Name = "test-rolling", "test-rolling", "test.job.coming"
	b.db.Run(t, "INSERT INTO writ.kinds (name, queue, class) VALUES ($1, $2, 'manual')", coming.Name, coming.Queue) // as by a newer worker that is gone
	var calls tally
	count := workers.Handler[args]{Do: func(_ context.Context, j *workers.Job[args]) error {
		calls.add(j.Args.N)
		return nil
	}}
	_, stop := b.work(b.db.URL, workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { return nil }}, old)
	b.await(b.create(old, 0), "sent")
	b.createMany(coming, backlog)
	testkit.Until(t, 45*time.Second, "all are put back", func() (bool, string) {
		n := testkit.Value[int](t, b.db, "SELECT count(DISTINCT intent_id) FROM writ.outbox WHERE failures > 0 AND last_error LIKE 'a worker had no code%'")
		return n == backlog, fmt.Sprint(n)
	})
	b.leftEvenly("SELECT due_at FROM writ.outbox")
	b.await(b.create(old, 0), "sent")
	id := testkit.Value[intent.ID](t, b.db, "SELECT intent_id FROM writ.outbox WHERE kind = $1 ORDER BY due_at DESC LIMIT 1", coming.Name)
	if line := b.why(id); !strings.Contains(line, "left it to a newer one") || !strings.Contains(line, "no live worker handles kind test.job.coming") {
		t.Errorf("why says %q", line)
	}
	// They wait for longer than a lost hint does, and are not lost.
	b.db.Run(t, "UPDATE writ.intents SET requested_at = now() - interval '1 h' WHERE kind = $1", coming.Name)
	b.db.Run(t, "SET session_replication_role = replica; UPDATE writ.intents SET run_at = now() - interval '1 h' WHERE kind = 'test.job.coming'; RESET session_replication_role")
	b.db.Run(t, "UPDATE writ.outbox SET due_at = due_at + interval '10 min'")
	b.reconcile()
	if n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.log WHERE event = 'requeued'"); n != 0 {
		t.Errorf("%d were requeued, though their hints come again", n)
	}
	stop()
	b.work(b.db.URL, count, old, coming)
	b.db.Run(t, "UPDATE writ.outbox SET due_at = now()") // the time passes
	testkit.Until(t, time.Minute, "the newer worker does all", func() (bool, string) {
		n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.intents WHERE kind = $1 AND state = 'sent'", coming.Name)
		return n == backlog, fmt.Sprint(n)
	})
	for n := range backlog {
		if calls.of(n) != 1 {
			t.Errorf("intent %d was run %d times; want once", n, calls.of(n))
		}
	}
}

// TestRolling_newerArgs: a backlog of arguments that the only worker of their kind does not know yet. They are left, spread over time,
// without an attempt spent, and say so; the newer worker does them.
func TestRolling_newerArgs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	newer := job
	newer.ArgsVersion = 2
	called := false
	_, stop := b.work(b.db.URL, workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error {
		called = true // by one worker only, and read when that has stopped
		return nil
	}})
	b.createMany(newer, backlog)
	testkit.Until(t, time.Minute, "all are left", func() (bool, string) {
		n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.intents WHERE state = 'pending' AND epoch > 0 AND run_at > now()")
		return n == backlog, fmt.Sprint(n)
	})
	b.leftEvenly("SELECT run_at FROM writ.intents")
	row := testkit.Value[intent.ID](t, b.db, "SELECT id FROM writ.intents ORDER BY run_at DESC LIMIT 1")
	if line := b.why(row); !strings.Contains(line, "for its args are of version 2, and this worker knows kind test.job.run up to version 1") {
		t.Errorf("why says %q", line)
	}
	stop()
	if n := testkit.Value[int](t, b.db, "SELECT max(attempt) FROM writ.intents"); n != 0 || called {
		t.Errorf("%d attempts were spent, the old handler called: %t", n, called)
	}
	b.work(b.db.URL, workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { return nil }}, newer)
	b.db.Run(t, "UPDATE writ.intents SET run_at = now() WHERE state = 'pending'") // the time passes
	testkit.Until(t, time.Minute, "the newer worker does all", func() (bool, string) {
		n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.intents WHERE state = 'sent'")
		return n == backlog, fmt.Sprint(n)
	})
}

// TestRolling_probe: a worker that does not know an attempt's arguments is not to ask about it; that counts as no answer, and the
// newer one is asked.
func TestRolling_probe(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.flagged()
	b.db.Run(t, "UPDATE writ.intents SET args_version = 2 WHERE id = $1", id)
	b.db.Run(t, "INSERT INTO writ.kinds (name, queue, class, args_version, max_probes) VALUES ($1, $1, 'probed', 2, 3)", asked.Name)
	_, stop := b.probed(lost, func(context.Context, *workers.Attempt[args]) (workers.Answer, error) {
		t.Error("the old probe was asked")
		return workers.Answer{}, nil
	})
	for n := range 5 { // more often than it may be unable to tell
		b.db.Run(t, "UPDATE writ.intents SET probe_at = now() WHERE id = $1", id)
		b.db.Run(t, "INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) VALUES (now(), $1, $2, 1, 'probe')", asked.Name, id)
		testkit.Until(t, 20*time.Second, "it is left to a newer worker", func() (bool, string) {
			got := testkit.Value[string](t, b.db, `SELECT format('%s probes, due in %s, %s hints', probes, probe_at - now(),
				(SELECT count(*) FROM writ.outbox WHERE op = 'probe' AND due_at > now() + interval '2 s')) FROM writ.intents WHERE id = $1`, id)
			return testkit.Value[bool](t, b.db, `SELECT probes = 0 AND probe_at > now() + interval '2 s'
				AND (SELECT count(*) FROM writ.outbox WHERE op = 'probe' AND due_at > now() + interval '2 s') = $2 FROM writ.intents WHERE id = $1`, id, n+1), got
		})
	}
	stop()
	newer := asked
	newer.ArgsVersion = 2
	b.work(b.db.URL, workers.Handler[args]{Do: lost, Probe: always(workers.WasDone), Probing: quick}, newer)
	b.db.Run(t, "UPDATE writ.intents SET probe_at = now() WHERE id = $1", id)
	b.db.Run(t, "UPDATE writ.outbox SET due_at = now()")
	b.await(id, "sent")
}

// TestRolling_operation: a hint of an operation that comes with a later release passes the relay and the worker of this one, and
// waits for those that know it. A line of a frame may have got more fields.
func TestRolling_operation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ran := make(chan int, 10)
	b.work(b.db.URL, workers.Handler[args]{Do: func(_ context.Context, j *workers.Job[args]) error {
		ran <- j.Args.N
		return nil
	}})
	first := b.create(job, 1)
	b.await(first, "sent")
	// As that release's migration would.
	b.db.Run(t, `ALTER DOMAIN writ.op DROP CONSTRAINT "run, probe or recover"`)
	b.db.Run(t, "INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) VALUES (now(), $1, $2, 1, 'polish')", job.Name, first)
	testkit.Until(t, 20*time.Second, "it is put back", func() (bool, string) {
		line := testkit.Value[string](t, b.db, "SELECT coalesce(min(op || ' ' || failures || ' ' || last_error), '') FROM writ.outbox WHERE due_at > now() + interval '3 s'")
		return strings.HasPrefix(line, "polish 1 a worker had no code"), line
	})

	conn, err := amqp.Dial(testkit.AMQPURL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	settings, err := store.New(b.db.Pool).Settings(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	queue, err := rabbit.QueueName(settings.Installation, job.Name)
	if err != nil {
		t.Fatal(err)
	}
	args, err := json.Marshal(args{2})
	if err != nil {
		t.Fatal(err)
	}
	id := intent.NewID() // without a hint in the outbox
	b.db.Run(t, "INSERT INTO writ.intents (id, tid, kind, event, args) VALUES ($1, $1, $2, 'requested', $3)", id, job.Name, string(args))
	err = ch.PublishWithContext(context.Background(), "", queue, true, false, amqp.Publishing{
		Headers: amqp.Table{"writ-installation": settings.Installation.String(), "writ-later": "x"}, ContentType: "text/plain",
		Body: fmt.Appendf(nil, "run 0 %s %s high after=3\n", job.Name, id),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.await(id, "sent")
	if n := []int{<-ran, <-ran}; n[0] != 1 || n[1] != 2 || len(ran) > 0 {
		t.Errorf("ran %v, and %d more; want 1 and 2", n, len(ran))
	}
}
