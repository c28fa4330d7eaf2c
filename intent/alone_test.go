package intent_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

func TestCreateAlone(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	first, err := notify.CreateAlone(ctx, db.Pool, comment{1}, intent.Opts{Key: "k"})
	if err != nil || first.Existed || first.ID.Version() != 7 {
		t.Fatalf("%+v, %v; want a new intent", first, err)
	}
	again, err := notify.CreateAlone(ctx, db.Pool, comment{1}, intent.Opts{Key: "k"})
	if want := (intent.Created{ID: first.ID, Existed: true}); err != nil || again != want {
		t.Errorf("again: %+v, %v; want %+v", again, err, want)
	}
	if _, err := notify.CreateAlone(ctx, db.Pool, comment{2}, intent.Opts{ID: first.ID}); !errors.Is(err, intent.ErrConflict) {
		t.Errorf("the same id with other args: %v; want ErrConflict", err)
	}
	check(t, db, 1)
}

// TestCreateAlone_whenTheAnswerIsLost: the same id is asked for again, whether the first statement was applied or not.
func TestCreateAlone_whenTheAnswerIsLost(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	proxy, url := testkit.ProxyTo(t, db.URL)
	config, err := pgxpool.ParseConfig(url + "&default_query_exec_mode=cache_describe")
	if err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for name, fault := range map[string]func(string) <-chan struct{}{"applied": proxy.LoseAnswer, "never sent": proxy.CutBefore} {
		fired := fault("INSERT INTO writ.intents")
		c, err := notify.CreateAlone(ctx, pool, comment{1}, intent.Opts{})
		<-fired
		if err != nil || c.Existed {
			t.Errorf("%s: %+v, %v; want a new intent", name, c, err)
		}
		if n := testkit.Value[int](t, db, "SELECT count(*) FROM writ.intents WHERE id = $1", c.ID); n != 1 {
			t.Errorf("%s: %d rows of its id; want 1", name, n)
		}
	}
	check(t, db, 2)
}
