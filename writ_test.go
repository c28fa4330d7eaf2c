package writ_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/writhq/writ"
	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type greeting struct {
	Name string `json:"name"`
}

var greet = intent.Kind[greeting]{Name: "demo.guest.greet", Backoff: intent.Backoff{Min: time.Millisecond, Max: 10 * time.Millisecond}}

// begin runs all parts of Writ until the test ends.
func begin(t *testing.T, db *testkit.DB, mux *workers.Mux) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- writ.Run(ctx, db.Pool, testkit.AMQPURL(t), mux, writ.Config{Log: testkit.Log(t)}) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func create(t *testing.T, db *testkit.DB, name string) intent.ID {
	t.Helper()
	var id intent.ID
	err := pgx.BeginFunc(context.Background(), db.Pool, func(tx pgx.Tx) error {
		created, err := greet.Create(context.Background(), tx, greeting{name}, intent.Opts{})
		id = created.ID
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func awaitStatus(t *testing.T, db *testkit.DB, id intent.ID, want string) intent.Intent {
	t.Helper()
	var got intent.Intent
	testkit.Until(t, 30*time.Second, fmt.Sprintf("%s is %s", id, want), func() (bool, string) {
		var err error
		if got, err = intent.Get(context.Background(), db, id); err != nil {
			t.Fatal(err)
		}
		return got.Status == want, got.Status
	})
	return got
}

func TestRun(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	var mu sync.Mutex
	greeted := map[string]int{}
	mux := workers.NewMux()
	workers.Handle(mux, greet, workers.Handler[greeting]{
		Do: func(_ context.Context, job *workers.Job[greeting]) error {
			mu.Lock()
			defer mu.Unlock()
			greeted[job.Args.Name]++
			switch {
			case job.Args.Name == "flaky" && job.Attempt() < 3:
				return workers.NotDone(errors.New("not now"))
			case job.Args.Name == "refused":
				return workers.Stop(errors.New("550 no such guest"))
			case job.Args.Name == "odd":
				return errors.New("connection reset")
			}
			return nil
		},
	})
	begin(t, db, mux)
	ids := map[string]intent.ID{}
	for _, name := range []string{"ann", "flaky", "refused", "odd"} {
		ids[name] = create(t, db, name)
	}
	awaitStatus(t, db, ids["ann"], "sent")
	if got := awaitStatus(t, db, ids["flaky"], "sent"); got.Attempt != 3 {
		t.Errorf("flaky took %d attempts; want 3", got.Attempt)
	}
	awaitStatus(t, db, ids["refused"], "error")
	awaitStatus(t, db, ids["odd"], "ambiguous")
	mu.Lock()
	defer mu.Unlock()
	if greeted["odd"] != 1 || greeted["ann"] != 1 {
		t.Errorf("greeted %v; want ann and odd once", greeted)
	}
}
