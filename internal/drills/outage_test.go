//go:build drill

package drills

import (
	"context"
	"fmt"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/rabbit"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

// For a while, in which something is to be seen not to happen, or an outage is to last.
func during(t *testing.T, d time.Duration, check func()) {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); <-tick.C {
		check()
	}
}

func TestOpenTransaction(t *testing.T) {
	f := newField(t)
	f.start("relay")
	f.start("worker")
	stop, created := f.creators(1000)
	ctx := context.Background()
	f.awaitAtLeast(1000)
	before, began := created.Load(), time.Now()

	held, err := f.db.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := manual.Create(ctx, held, effect{}, intent.Opts{})
	if err != nil {
		t.Fatal(err)
	}
	dropped, err := f.db.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	gone, err := manual.Create(ctx, dropped, effect{}, intent.Opts{})
	if err != nil {
		t.Fatal(err)
	}
	during(t, 30*time.Second, func() {
		if n := len(f.entries()[kept.ID.String()]) + len(f.entries()[gone.ID.String()]); n != 0 {
			t.Fatalf("done %d times before its transaction was committed", n)
		}
	})
	t.Logf("%.0f created a second beside it", float64(created.Load()-before)/time.Since(began).Seconds())
	if err := dropped.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	if err := held.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	committed := time.Now()
	testkit.Until(t, 10*time.Second, "the committed one is published", func() (bool, string) {
		n := testkit.Value[int](t, f.db, "SELECT count(*) FROM writ.outbox WHERE intent_id = $1", kept.ID)
		return n == 0, "its hint is in the outbox"
	})
	published := time.Since(committed)
	// It is claimed when what came before it is: behind a backlog of the workers, if they are slower than the creators.
	testkit.Until(t, time.Minute, "the committed one is claimed", func() (bool, string) {
		i, err := intent.Get(ctx, f.db, kept.ID)
		if err != nil {
			t.Fatal(err)
		}
		return i.State != "pending", i.Status
	})
	t.Logf("published %v and claimed %v after the commit of a transaction held open 30 s", published, time.Since(committed))
	if published > time.Second {
		t.Errorf("published after %v; want at most 1s", published)
	}
	ids := stop()
	f.awaitRest(time.Minute)
	if n := len(f.entries()[gone.ID.String()]); n != 0 {
		t.Errorf("the rolled-back one was done %d times", n)
	}
	f.noneDoubled(append(ids, kept.ID))
}

func TestPurge(t *testing.T) {
	f := newField(t)
	f.requeue = 20 * time.Second
	f.declare()
	f.start("relay")
	f.start("reconciler")
	f.bulk(manual, 10_000, effect{})
	testkit.Until(t, 30*time.Second, "all hints are with the broker", func() (bool, string) {
		n, _, err := store.New(f.db.Pool).OutboxAge(context.Background())
		return err == nil && n == 0, "outbox not empty"
	})
	if n := f.purge(); n == 0 {
		t.Fatal("nothing was in the queues to be purged")
	} else {
		t.Logf("purged %d messages", n)
	}
	began := time.Now()
	f.start("worker")
	f.awaitRest(f.requeue + time.Minute)
	t.Logf("10,000 finished %v after the purge, threshold %v", time.Since(began).Round(time.Second), f.requeue)
	f.noneDoubled(nil)
}

// declare has a worker make kinds and queues known, and go again.
func (f *field) declare() {
	f.t.Helper()
	w := f.start("worker")
	for _, queue := range f.queues(manual.Queue, slow.Name) {
		testkit.Until(f.t, 30*time.Second, "queue "+queue+" is declared", func() (bool, string) {
			err := f.broker(func(ch *amqp.Channel) error {
				_, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
				return err
			})
			return err == nil, fmt.Sprint(err)
		})
	}
	w.stop()
}

// queues are the broker's names of queues.
func (f *field) queues(of ...string) []string {
	f.t.Helper()
	settings, err := store.New(f.db.Pool).Settings(context.Background())
	if err != nil {
		f.t.Fatal(err)
	}
	var names []string
	for _, queue := range of {
		name, err := rabbit.QueueName(settings.Installation, queue)
		if err != nil {
			f.t.Fatal(err)
		}
		names = append(names, name)
	}
	return names
}

func (f *field) broker(do func(*amqp.Channel) error) error {
	conn, err := amqp.Dial(stack.AMQPURL)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	return do(ch)
}

func (f *field) purge() int {
	f.t.Helper()
	total := 0
	err := f.broker(func(ch *amqp.Channel) error {
		for _, queue := range f.queues(manual.Queue, slow.Name) {
			n, err := ch.QueuePurge(queue, false)
			if err != nil {
				return err
			}
			total += n
		}
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return total
}

func TestBrokerStopped(t *testing.T) {
	f := newField(t)
	f.start("relay")
	f.start("reconciler")
	f.start("worker")
	stop, count := f.creators(1000)
	testkit.Until(t, 20*time.Second, "jobs flow", func() (bool, string) { return f.states()["sent"] > 1000, "" })
	ctx := context.Background()
	if err := stack.StopBroker(ctx); err != nil {
		t.Fatal(err)
	}
	before := count.Load()
	during(t, 30*time.Second, func() {})
	created := count.Load() - before
	if err := stack.StartBroker(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d created while the broker was down for 30 s", created)
	if created < 20_000 {
		t.Errorf("creation slowed down to %d in 30 s without a broker; want about 30,000", created)
	}
	ids := stop()
	states := f.awaitRest(3 * time.Minute)
	if states["ambiguous"] != 0 {
		t.Errorf("%d ambiguous after a mere broker outage", states["ambiguous"])
	}
	f.noneDoubled(ids)
}

func TestPostgresRestarted(t *testing.T) {
	f := newField(t)
	f.start("relay")
	f.start("reconciler")
	f.start("worker")
	f.start("worker")
	stop, _ := f.creators(1000)
	ctx := context.Background()
	for range 3 {
		sent := f.states()["sent"]
		testkit.Until(t, 60*time.Second, "jobs flow", func() (bool, string) { return f.states()["sent"] > sent+2000, "" })
		if err := stack.StopPostgres(ctx, "immediate"); err != nil {
			t.Fatal(err)
		}
		if err := stack.StartPostgres(ctx); err != nil {
			t.Fatal(err)
		}
	}
	ids := stop()
	f.awaitRest(3 * time.Minute)
	f.noneDoubled(ids)
}

func TestSideBySide(t *testing.T) {
	f := newField(t)
	for range 2 {
		f.start("relay")
		f.start("reconciler")
	}
	for range 4 {
		f.start("worker")
	}
	stop, _ := f.creators(1000)
	f.bulk(manual, 20_000, effect{})
	f.awaitAtLeast(30_000)
	ids := stop()
	states := f.awaitRest(2 * time.Minute)
	if states["sent"] < 30_000 || states["ambiguous"] > 0 {
		t.Errorf("states %v; want all sent", states)
	}
	f.noneDoubled(ids)
}

func (f *field) awaitAtLeast(sent int) {
	f.t.Helper()
	testkit.Until(f.t, 2*time.Minute, "jobs flow", func() (bool, string) {
		n := f.states()["sent"]
		return n >= sent, "too few are sent"
	})
}
