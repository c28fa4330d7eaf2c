package restore

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

// TestStagingCopy: a dump of production that is restored elsewhere starts closed and sends nothing, though all parts run on
// it, and everything in it is due. Production goes on beside it.
func TestStagingCopy(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	w := newWorld(t, persons)
	due := w.create(post, task{}, 20)
	name := w.db.Name + "_staging"
	if err := w.stack.CopyDatabase(ctx, w.db.Name, name); err != nil {
		t.Fatal(err)
	}
	url := testkit.At(t, w.stack.DatabaseURL, name)
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	staging := &testkit.DB{Pool: pool, URL: url, Name: name}
	w.run(staging, post)
	mine := testkit.Value[intent.ID](t, staging, `INSERT INTO writ.intents (kind) VALUES ($1) RETURNING id`, post.Name)
	w.silent(3 * time.Second)
	for _, id := range append(due, mine) {
		if why := testkit.Value[string](t, staging, "SELECT writ.why($1)", id); !strings.Contains(why, "a copy that nobody adopted") {
			t.Fatalf("why = %s; want that nobody adopted it", why)
		}
	}
	if n := testkit.Value[int](t, staging, "SELECT count(*) FROM writ.outbox"); n != len(due)+1 {
		t.Errorf("%d hints in the copy's outbox; want all %d", n, len(due)+1)
	}
	if n := testkit.Value[int](t, staging, "SELECT count(*) FROM writ.workers"); n != 0 {
		t.Error("a worker lives in a copy that nobody adopted")
	}

	w.run(w.db, post)
	w.all("sent", due...)
	for _, id := range due {
		if n := w.happened(id); n != 1 {
			t.Errorf("%s was done %d times; want once, by production", id, n)
		}
	}
	if n := w.happened(mine); n != 0 {
		t.Error("production did what only its copy asks for")
	}
}
