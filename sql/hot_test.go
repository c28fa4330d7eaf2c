package sql_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

// A claim touches no index: with all of them present at least 95 % of the claims' row versions stay on their page.
func TestClaim_isHot(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const rows, batch = 5000, 100
	got, err := b.Query(ctx, `INSERT INTO writ.intents (id, tid, kind, args, event, subjects)
		SELECT u, writ.uuid_v7(), $1, jsonb_build_object('n', n), 'requested', ARRAY['comment:' || n]
		FROM (SELECT n, writ.uuid_v7() AS u FROM generate_series(1, $2) n) x RETURNING id`, kind, rows)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := pgx.CollectRows(got, pgx.RowTo[uuid.UUID])
	if err != nil {
		t.Fatal(err)
	}
	for part := range slices.Chunk(ids, batch) {
		store.Sort(part)
		claimed, err := b.store.Claim(ctx, b.worker, []store.Group{{Timeout: time.Minute, IDs: part}})
		if err != nil || len(claimed) != batch {
			t.Fatalf("claimed %d of %d: %v", len(claimed), batch, err)
		}
	}
	b.Close() // a session that ends reports its counts
	conn, err := pgx.Connect(ctx, b.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	var updated, hot int64
	testkit.Until(t, 30*time.Second, "the server has counted the claims", func() (bool, string) {
		err := conn.QueryRow(ctx, "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = 'writ.intents'::regclass").Scan(&updated, &hot)
		return err == nil && updated >= rows, fmt.Sprint(updated, " updates, ", err)
	})
	if share := float64(hot) / float64(updated); share < 0.95 {
		t.Errorf("%.1f %% of %d claims were HOT updates; want at least 95 %%", share*100, updated)
	}
}
