package intenttest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/intent/intenttest"
	"github.com/writhq/writ/migrations"
	"github.com/writhq/writ/workers"
)

// PayArgs and Pay are the application's.
type PayArgs struct {
	Invoice int64 `json:"invoice"`
}

var Pay = intent.Kind[PayArgs]{Name: "shop.invoice.pay", MaxAttempts: 3}

// pay is the application's handler; bank is what it calls.
func pay(bank func(key string) error) workers.Handler[PayArgs] {
	return workers.Handler[PayArgs]{
		Effect: workers.EffectMarked,
		Do: func(ctx context.Context, job *workers.Job[PayArgs]) error {
			if job.Args.Invoice == 0 {
				return workers.Stop(errors.New("there is no such invoice"))
			}
			job.Effect(ctx)
			return workers.NotReached(bank(job.Key()))
		},
	}
}

// One handler with one job, without a database.
func ExampleDo() {
	var t exampleT // in a test: t *testing.T
	fine := func(string) error { return nil }
	cut := func(string) error { return errors.New("connection reset by peer") }

	fmt.Println(intenttest.Do(t, Pay, pay(fine), intenttest.Job[PayArgs]{Args: PayArgs{Invoice: 7}}).Status)
	fmt.Println(intenttest.Do(t, Pay, pay(cut), intenttest.Job[PayArgs]{Args: PayArgs{Invoice: 7}}).Status)
	r := intenttest.Do(t, Pay, pay(fine), intenttest.Job[PayArgs]{})
	fmt.Println(r.Status, r.Err)
	// Output:
	// sent
	// ambiguous
	// error there is no such invoice
}

// What the application created in its transaction, committed or not.
func ExampleRequireCreated() {
	withPool(func(t exampleT, pool *pgxpool.Pool) error {
		tx, err := pool.Begin(t.Context())
		if err != nil {
			return err
		}
		defer tx.Rollback(t.Context())
		if _, err := Pay.Create(t.Context(), tx, PayArgs{Invoice: 7}, intent.Opts{Key: "invoice 7"}); err != nil { // the code under test
			return err
		}
		intenttest.RequireCreated(t, tx, Pay, PayArgs{Invoice: 7}, intent.Opts{Key: "invoice 7"})
		fmt.Println("created")
		return nil
	})
	// Output: created
}

// A payment that is refused twice, and then paid for by a worker that dies before it can say so.
func ExampleKit() {
	withPool(func(t exampleT, pool *pgxpool.Pool) error {
		var keys []string
		mux := workers.NewMux()
		workers.Handle(mux, Pay, pay(func(key string) error {
			keys = append(keys, key)
			return nil
		}))
		kit := intenttest.New(t, pool, mux)
		created, err := Pay.CreateAlone(t.Context(), pool, PayArgs{Invoice: 7}, intent.Opts{})
		if err != nil {
			return err
		}
		kit.Force(created.ID, intenttest.NotDone, intenttest.NotDoneUntil(time.Hour), intenttest.CrashAfter)
		for _, step := range kit.DrainAll() {
			fmt.Println(step.Attempt, step.Outcome)
		}
		intenttest.RequireStatus(t, pool, created.ID, "ambiguous")
		fmt.Println("paid", len(keys), "time")
		return nil
	})
	// Output:
	// 1 retried
	// 2 retried
	// 3 crashed
	// paid 1 time
}

// exampleT stands in for a *testing.T, which examples have not.
type exampleT struct{ end *[]func() }

func (exampleT) Helper()                           {}
func (exampleT) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (exampleT) Logf(string, ...any)               {}
func (exampleT) Context() context.Context          { return context.Background() }
func (t exampleT) Cleanup(f func())                { *t.end = append(*t.end, f) }

// withPool gives an example a database of its own. A test of yours makes its database as it always does, and runs
// migrations.Up on it, or writ migrate up.
func withPool(do func(exampleT, *pgxpool.Pool) error) {
	ctx := context.Background()
	if err := withDatabase(ctx, "writ_example_"+strings.ReplaceAll(uuid.NewString(), "-", ""), do); err != nil {
		fmt.Println(err)
	}
}

func withDatabase(ctx context.Context, name string, do func(exampleT, *pgxpool.Pool) error) (err error) {
	admin, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer admin.Close(ctx)
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return err
	}
	defer func() {
		_, dropErr := admin.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
		err = errors.Join(err, dropErr)
	}()
	config, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	config.ConnConfig.Database = name
	if _, err := migrations.Up(ctx, config.ConnConfig); err != nil {
		return err
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	t := exampleT{new([]func())}
	err = do(t, pool)
	for _, f := range *t.end {
		f()
	}
	return err
}
