package workers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

// An attempt runs its handler once, whatever a layer does: not again after a word that leaves it open, nor beside itself.
func TestMiddleware_nextAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var starts atomic.Int32
	again := func(next workers.Do) workers.Do {
		return func(ctx context.Context, j *workers.Job[json.RawMessage]) error {
			if err := next(ctx, j); err == nil {
				return nil
			}
			return next(ctx, j)
		}
	}
	b.workWith(workers.Config{}, func(mux *workers.Mux) {
		mux.Use(again)
		workers.Handle(mux, job, workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error {
			if starts.Add(1) == 1 {
				return errors.New("reset")
			}
			return nil
		}})
	})
	got := b.await(b.create(job, 1), "ambiguous")
	if *got.FlagReason != "unknown" || got.Error == nil || !strings.Contains(*got.Error, "next") {
		t.Errorf("flagged %s: %v; want unknown, and why", *got.FlagReason, got.Error)
	}
	if n := starts.Load(); n != 1 {
		t.Errorf("the handler was started %d times in one attempt", n)
	}
}

// While the handler is at work the attempt is not over, though a layer has returned: a probe or a person would be told that it is.
// What the handler says counts then.
func TestMiddleware_returnsBeforeItsHandler(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const fine, vague = 1, 2
	release := make(chan struct{})
	left := make(chan struct{}, 2)
	hasty := func(next workers.Do) workers.Do {
		return func(ctx context.Context, j *workers.Job[json.RawMessage]) error {
			begun := make(chan struct{})
			go func() { close(begun); _ = next(ctx, j) }()
			<-begun
			<-release // so that next has surely been entered: see the handler
			left <- struct{}{}
			return workers.NotDone(fmt.Errorf("waited long enough for %s", j.Args))
		}
	}
	finish := make(chan struct{})
	var once atomic.Int32
	b.workWith(workers.Config{}, func(mux *workers.Mux) {
		mux.Use(hasty)
		workers.Handle(mux, job, workers.Handler[args]{Do: func(_ context.Context, j *workers.Job[args]) error {
			if once.Add(1) == 2 {
				close(release)
			}
			<-finish
			if j.Args.N == vague {
				return errors.New("reset")
			}
			return nil
		}})
	})
	one, two := b.create(job, fine), b.create(job, vague)
	for range 2 {
		select {
		case <-left:
		case <-time.After(30 * time.Second):
			t.Fatal("the layers have not returned")
		}
	}
	close(finish)
	b.await(one, "sent")
	if got := b.await(two, "ambiguous"); *got.FlagReason != "unknown" {
		t.Errorf("flagged %s; want unknown", *got.FlagReason)
	}
	if n := once.Load(); n != 2 {
		t.Errorf("%d handlers were started; want 2", n)
	}
}

// A layer that makes nothing of its handler is a fault of the program, and no panic in each attempt.
func TestMiddleware_makesNothing(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	mux := workers.NewMux()
	mux.Use(func(workers.Do) workers.Do { return nil })
	workers.Handle(mux, job, workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { return nil }})
	pool, err := pgxpool.New(context.Background(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if _, err := workers.New(pool, testkit.AMQPURL(t), mux, workers.Config{Log: testkit.Log(t)}); err == nil || !strings.Contains(err.Error(), job.Name) {
		t.Errorf("New: %v; want the fault of the middleware", err)
	}
}
