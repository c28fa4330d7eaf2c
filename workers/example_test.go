package workers_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/workers"
)

type cacheArgs struct {
	PostID int64 `json:"post_id"`
}

// Warm is work of low value: a second run does no harm, three attempts are enough, and nobody asks later.
var Warm = intent.FireAndForget[cacheArgs]("shop.cache.warm")

type orderArgs struct {
	OrderID int64 `json:"order_id"`
}

// Charge moves money: outcomes that nobody knows wait for a decision.
var Charge = intent.Kind[orderArgs]{Name: "shop.order.charge", MaxAttempts: 5}

func charge(context.Context, orderArgs, string) error { return nil }

func ExampleHandle() {
	mux := workers.NewMux()
	workers.Handle(mux, Warm, workers.Handler[cacheArgs]{
		Do: func(ctx context.Context, job *workers.Job[cacheArgs]) error {
			return nil
		},
	})
	workers.Handle(mux, Charge, workers.Handler[orderArgs]{
		Effect: workers.EffectMarked, // an error before job.Effect is surely not done
		Do: func(ctx context.Context, job *workers.Job[orderArgs]) error {
			return charge(job.Effect(ctx), job.Args, job.Key())
		},
		OnError: func(ctx context.Context, tx pgx.Tx, job *workers.Job[orderArgs], cause error) error {
			_, err := tx.Exec(ctx, `UPDATE orders SET charge_error = $2 WHERE id = $1`, job.Args.OrderID, cause.Error())
			return err
		},
	})

	pool, err := pgxpool.New(context.Background(), "postgres:///app") // connects when first used
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	_, err = workers.New(pool, "amqp://localhost/", mux, workers.Config{})
	fmt.Println(err)
	// Output: <nil>
}

// All faults of the registrations and of the config are reported at once.
func ExampleNew() {
	mux := workers.NewMux()
	workers.Handle(mux, Warm, workers.Handler[cacheArgs]{})
	pool, err := pgxpool.New(context.Background(), "postgres:///app")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	_, err = workers.New(pool, "amqp://localhost/", mux, workers.Config{Slots: -1})
	fmt.Println(err)
	// Output:
	// workers: Config.Slots is -1; it must be 1 to 100,000
	// workers: kind shop.cache.warm: Handler.Do is missing
}

// A kind that calls a system which may be down, beside others: two at a time in a process, and none for a while where half of
// the calls fail.
func ExampleBreaker() {
	mux := workers.NewMux()
	workers.Handle(mux, Charge, workers.Handler[orderArgs]{
		Do: func(ctx context.Context, job *workers.Job[orderArgs]) error {
			return charge(ctx, job.Args, job.Key())
		},
		Slots:   2,
		Breaker: workers.Breaker{Ratio: 0.5, Least: 20, Window: 30 * time.Second, Open: 10 * time.Second},
	})
	pool, err := pgxpool.New(context.Background(), "postgres:///app")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	_, err = workers.New(pool, "amqp://localhost/", mux, workers.Config{Slots: 50})
	fmt.Println(err)
	// Output: <nil>
}

// What a handler may return.
func ExampleNotDone() {
	handle := func(answer int) error {
		switch {
		case answer < 300:
			return nil // done
		case answer == 429:
			return workers.Snooze(time.Minute) // not now; no attempt is spent
		case answer < 500:
			return workers.Stop(fmt.Errorf("refused: %d", answer)) // not done, and never will be
		case answer == 503:
			return workers.NotDone(errors.New("not taken")) // surely not done: tried again
		}
		return fmt.Errorf("answer %d", answer) // nobody knows
	}
	for _, answer := range []int{200, 404, 429, 503, 500} {
		fmt.Println(answer, handle(answer))
	}
	// Output:
	// 200 <nil>
	// 404 refused: 404
	// 429 snoozed for 1m0s
	// 503 not taken
	// 500 answer 500
}

type commentAdded struct {
	PostID int64 `json:"post_id"`
}

// A subscription turns an event of any application into tasks of its own, once for each event.
func ExampleSubscribe() {
	mux := workers.NewMux()
	workers.Subscribe(mux, intent.Event[commentAdded]{Name: "comment.added"}, workers.Subscription[commentAdded]{
		Name: "warm",
		Do: func(ctx context.Context, e workers.Event[commentAdded]) ([]intent.New, error) {
			return []intent.New{Warm.New(cacheArgs{e.Data.PostID}, intent.Opts{})}, nil
		},
	})
	pool, err := pgxpool.New(context.Background(), "postgres:///app") // connects when first used
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	_, err = workers.New(pool, "amqp://localhost/", mux, workers.Config{})
	fmt.Println(err)
	_, err = workers.New(pool, "amqp://localhost/", mux, workers.Config{Application: "shop"})
	fmt.Println(err)
	// Output:
	// workers: Config.Application is missing; subscriptions without a kind beside them do not tell whose they are
	// <nil>
}
