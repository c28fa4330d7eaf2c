//go:build drill

package drills

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

// seen is the data of the drill's event; each subscriber creates an intent for each.
type seen struct {
	N int `json:"n"`
}

var happening = intent.Event[seen]{Name: "drill.happened"}

// playSubscriber is a worker process of another application, with one subscription. Every so often its code fails.
func playSubscriber(ctx context.Context, log *slog.Logger) error {
	pool, err := connect(context.Background())
	if err != nil {
		return err
	}
	defer pool.Close()
	application := os.Getenv("DRILL_APPLICATION")
	kind := intent.Kind[seen]{Name: application + ".happening.note"}
	mux := workers.NewMux()
	workers.Subscribe(mux, happening, workers.Subscription[seen]{
		Name: "note", MaxAttempts: 50, Backoff: intent.Backoff{Max: 2 * time.Second},
		Do: func(_ context.Context, e workers.Event[seen]) ([]intent.New, error) {
			if rand.IntN(10) == 0 {
				return nil, fmt.Errorf("event %d: not now", e.Data.N)
			}
			return []intent.New{kind.New(e.Data, intent.Opts{})}, nil
		},
	})
	w, err := workers.New(pool, os.Getenv("AMQP_URL"), mux, workers.Config{Application: application, Log: log})
	if err != nil {
		return err
	}
	fmt.Println(w.ID())
	return w.Run(ctx)
}

// TestEvents: 1,000 events to five applications, each with a database and two worker processes of its own, while these and the
// relays are killed and the broker is restarted. Each application has exactly one intent for each event.
func TestEvents(t *testing.T) {
	const events, subscribers, restarts = 1000, 5, 3
	ctx := context.Background()
	publisher := &field{t: t, db: testkit.DatabaseOn(t, stack.DatabaseURL), requeue: time.Minute}
	relays := []*process{publisher.start("relay"), publisher.start("relay")}
	fields := make([]*field, subscribers)
	processes := make([][]*process, subscribers)
	for i := range fields {
		f := &field{t: t, db: testkit.DatabaseOn(t, stack.DatabaseURL), requeue: time.Minute}
		f.env = []string{"DRILL_APPLICATION=" + []string{"mail", "bill", "audit", "search", "stats"}[i]}
		fields[i], processes[i] = f, []*process{f.start("subscriber"), f.start("subscriber")}
	}
	queues := func(f *field) (name string) {
		_ = f.db.QueryRow(ctx, "SELECT queue FROM writ.subscriptions").Scan(&name) // none yet
		return name
	}
	for i, f := range fields {
		testkit.Until(t, 30*time.Second, "the subscription's queue exists", func() (bool, string) {
			name := queues(f)
			if name == "" {
				return false, "not declared"
			}
			err := f.broker(func(ch *amqp.Channel) error {
				_, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
				return err
			})
			return err == nil, fmt.Sprint(i, err)
		})
	}
	t.Cleanup(func() {
		err := publisher.broker(func(ch *amqp.Channel) error {
			for _, f := range fields {
				if _, err := ch.QueueDelete(queues(f), false, false, false); err != nil {
					return err
				}
			}
			return ch.ExchangeDelete("writ.event."+happening.Name, false, false)
		})
		if err != nil {
			t.Errorf("delete the drill's queues: %v", err)
		}
	})

	telling := make(chan error, 1)
	go func() { // about 30 s
		tick := time.NewTicker(30 * time.Millisecond)
		defer tick.Stop()
		for n := range events {
			err := pgx.BeginFunc(ctx, publisher.db.Pool, func(tx pgx.Tx) error {
				_, err := happening.Publish(ctx, tx, seen{n}, intent.EventOpts{})
				return err
			})
			if err != nil {
				telling <- err
				return
			}
			<-tick.C
		}
		telling <- nil
	}()
	kills, relayKills, done := 0, 0, 0
	dice := time.NewTicker(250 * time.Millisecond)
	defer dice.Stop()
	for told := false; !told || done < restarts; {
		select {
		case err := <-telling:
			if told = true; err != nil {
				t.Fatal(err)
			}
		case <-dice.C:
			i, j := rand.IntN(subscribers), rand.IntN(2)
			processes[i][j].kill()
			processes[i][j] = fields[i].start("subscriber")
			if kills++; kills%8 == 0 {
				relays[0].kill()
				relays[0] = publisher.start("relay")
				relayKills++
			}
			if kills%20 == 10 && done < restarts {
				if err := stack.StopBroker(ctx); err != nil {
					t.Fatal(err)
				}
				if err := stack.StartBroker(ctx); err != nil {
					t.Fatal(err)
				}
				done++
			}
		}
	}
	counted := make([]string, subscribers)
	for i, f := range fields {
		testkit.Until(t, 2*time.Minute, "each event has its intent, and none is left", func() (bool, string) {
			var rows, distinct, open int
			err := f.db.QueryRow(ctx, `SELECT count(*), count(DISTINCT args ->> 'n'), (SELECT count(*) FROM writ.inbox WHERE settled_at IS NULL) FROM writ.intents`).Scan(&rows, &distinct, &open)
			counted[i] = fmt.Sprintf("%d intents of %d events, %d unsettled", rows, distinct, open)
			return err == nil && distinct == events && open == 0, counted[i]
		})
	}
	testkit.Until(t, time.Minute, "the queues and the outbox are empty", func() (bool, string) {
		left := testkit.Value[int](t, publisher.db, "SELECT count(*) FROM writ.outbox")
		err := publisher.broker(func(ch *amqp.Channel) error {
			for _, f := range fields {
				q, err := ch.QueueDeclarePassive(queues(f), true, false, false, false, nil)
				if err != nil {
					return err
				}
				left += q.Messages
			}
			return nil
		})
		return err == nil && left == 0, fmt.Sprint(left, err)
	})
	for i, f := range fields { // repeats are all behind us
		if n := testkit.Value[int](t, f.db, "SELECT count(*) FROM writ.intents"); n != events {
			t.Errorf("%s has %d intents; want exactly %d", f.env, n, events)
		}
		t.Logf("%s: %s, %d failed tries", f.env, counted[i], testkit.Value[int](t, f.db, "SELECT coalesce(sum(failures), 0) FROM writ.inbox"))
	}
	t.Logf("%d kills of subscribers, %d of relays, %d restarts of the broker", kills, relayKills, done)
}
