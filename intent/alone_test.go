package intent_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

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
	for name, o := range map[string]intent.Opts{"id": {ID: first.ID}, "key": {Key: "k"}} {
		began := time.Now()
		c, err := notify.CreateAlone(ctx, db.Pool, comment{2}, o)
		if !errors.Is(err, intent.ErrConflict) || c != (intent.Created{}) || strings.Contains(err.Error(), "may exist") {
			t.Errorf("the same %s with other args: %+v, %v after %v; want ErrConflict, and no id that may exist", name, c, err, time.Since(began))
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if c, err := notify.CreateAlone(ended, db.Pool, comment{1}, intent.Opts{}); !errors.Is(err, context.Canceled) || c != (intent.Created{}) {
		t.Errorf("after its context had ended: %+v, %v; want Canceled, for nothing was sent", c, err)
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
