package workers_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

// TestByHand: somebody at a prompt sets 10,000 errors to pending in one plain statement: all are run, once each, and the log has
// the database user. To call a running one sent is refused, and the message says why.
func TestByHand(t *testing.T) {
	t.Parallel()
	const many = 10_000
	b := setup(t)
	kind := job
	kind.Name = "test.hand.run"
	b.db.Run(t, `INSERT INTO writ.intents (kind, args) SELECT $1, jsonb_build_object('n', n) FROM generate_series(1, $2::int) n`, kind.Name, many)
	b.db.Run(t, "DELETE FROM writ.outbox")
	b.db.Run(t, "UPDATE writ.intents SET state = 'sending', event = 'attempted', epoch = 1, attempt = 1, started_at = now(), deadline_at = now()")
	b.db.Run(t, "UPDATE writ.intents SET state = 'error', event = 'failed', finished_at = now(), failed_at = now(), error = 'the other side was down'")
	var runs atomic.Int32
	last, release := make(chan struct{}), make(chan struct{})
	mux := workers.NewMux()
	workers.Handle(mux, kind, workers.Handler[args]{Do: func(_ context.Context, j *workers.Job[args]) error {
		if j.Args.N == 0 {
			close(last)
			<-release
			return nil
		}
		runs.Add(1)
		return nil
	}})
	w, err := workers.New(b.db.Pool, testkit.AMQPURL(t), mux, workers.Config{Slots: 1000, Log: testkit.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	b.run(w.Run)

	b.db.Run(t, "UPDATE writ.intents SET state = 'pending' WHERE state = 'error'")
	b.sent(kind, many, 2*time.Minute)
	if n := runs.Load(); n != many {
		t.Errorf("%d runs; want %d", n, many)
	}
	const signed = "SELECT count(*) FROM writ.log WHERE event = 'retry' AND actor = current_user AND why = 'written by hand' AND evidence ->> 'error' = 'the other side was down'"
	if n := testkit.Value[int](t, b.db, signed); n != many {
		t.Errorf("%d entries of the database user; want %d", n, many)
	}

	b.create(kind, 0)
	<-last
	_, err = b.db.Exec(context.Background(), "UPDATE writ.intents SET state = 'sent' WHERE state = 'sending'")
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != "WR003" || !strings.Contains(refused.Message, "cannot go from sending to sent by hand") ||
		!strings.Contains(refused.Hint, "its worker may still be at it") {
		t.Errorf("got %v; want a refusal that tells why", err)
	}
	close(release)
	b.sent(kind, many+1, time.Minute)
}
