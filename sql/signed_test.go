package sql_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
	writsql "github.com/writhq/writ/sql"
)

// TestLog_takesAllOfTheEngine goes through all statements of the engine that write into the log: each is run by a login with the role
// that runs it, and the log takes what it says.
func TestLog_takesAllOfTheEngine(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Run(t, `INSERT INTO writ.kinds (name, queue, class, recovers, completes, max_attempts) VALUES ('a.b.manual', 'q', 'manual', true, true, 10),
		('a.b.probed', 'q', 'probed', false, false, 10), ('a.b.idempotent', 'q', 'idempotent', false, false, 10), ('a.b.last', 'q', 'idempotent', false, false, 1)`)
	workers, relays := login(t, b.DB, "writ_worker"), login(t, b.DB, "writ_relay")
	worker, relay := store.New(workers), store.New(relays)

	finish := func(o store.Outcome) func(*testing.T) uuid.UUID {
		return func(t *testing.T) uuid.UUID {
			c := b.claim(t, b.insert(t, "a.b.manual"), time.Minute)
			o.ID, o.Epoch = c.ID, c.Epoch
			fate, err := worker.FinishOne(ctx, b.worker, o)
			if err != nil || fate.Late {
				t.Fatalf("FinishOne: %+v, %v", fate, err)
			}
			return c.ID
		}
	}
	recovers := func(fault error) func(*testing.T) uuid.UUID {
		return func(t *testing.T) uuid.UUID {
			id := b.at(t, "a.b.manual", "flagged")
			b.Run(t, "SELECT writ.happened($1, 'sending', 1, 'ann', 'the provider has it')", id)
			hint := store.Hint{ID: id, Epoch: read(t, b.Pool, id).Epoch, Kind: "a.b.manual", Op: "recover"}
			owed, err := worker.Recover(ctx, b.worker, hint, []string{store.StateSent}, func(context.Context, pgx.Tx, store.Owed) error { return fault })
			if !owed || !errors.Is(err, fault) {
				t.Fatalf("Recover: %v, %v", owed, err)
			}
			return id
		}
	}
	orphan := func(kind string) func(*testing.T) uuid.UUID {
		return func(t *testing.T) uuid.UUID {
			gone := uuid.New()
			b.beat(t, gone, time.Hour)
			id := b.insert(t, kind)
			c := b.claimAs(t, gone, id, time.Minute)
			b.Run(t, "DELETE FROM writ.workers WHERE id = $1", gone)
			seen, err := relay.Observe(ctx)
			must(t, "Observe", err)
			did, err := relay.SettleOrphan(ctx, store.Hint{ID: id, Epoch: c.Epoch}, store.Observed{Last: seen.At, Fresh: time.Minute}, 0)
			if err != nil || did.Did == "" {
				t.Fatalf("SettleOrphan: %+v, %v", did, err)
			}
			return id
		}
	}
	tests := []struct {
		statement, event, actor string
		do                      func(*testing.T) uuid.UUID
	}{
		{"FinishRetried", "retried", "worker", finish(store.Outcome{Event: store.Retried, Why: "not done"})},
		{"FinishFailed", "failed", "worker", finish(store.Outcome{Event: store.Failed, Why: "stopped"})},
		{"FinishFlagged", "flagged", "worker", finish(store.Outcome{Event: store.Flagged, Why: "unknown"})},
		{"FinishSent", "succeeded", "worker", func(t *testing.T) uuid.UUID { // by the trigger, where it takes a flag away
			id := b.at(t, "a.b.manual", "flagged")
			left, err := worker.FinishBatch(ctx, b.worker, []store.Outcome{{ID: id, Epoch: 1, Event: store.Succeeded}})
			if err != nil || len(left) > 0 {
				t.Fatalf("FinishBatch: %v, %v", left, err)
			}
			return id
		}},
		{"LateReport", "late-report", "worker", func(t *testing.T) uuid.UUID {
			id := b.at(t, "a.b.manual", "flagged")
			b.Run(t, "SELECT writ.give_up($1, 'sending', 1, 'ann', 'nobody will ever know')", id)
			fate, err := worker.FinishOne(ctx, b.worker, store.Outcome{ID: id, Epoch: 1, Event: store.Succeeded, Result: []byte(`{"n": 1}`)})
			if err != nil || !fate.Late {
				t.Fatalf("FinishOne: %+v, %v", fate, err)
			}
			return id
		}},
		{"Recovered", "recovered", "worker", recovers(nil)},
		{"RecoveryFailed", "recovery-failed", "worker", recovers(errors.New("no such account"))},
		{"Requeue", "requeued", "reconciler", func(t *testing.T) uuid.UUID {
			id := b.insert(t, "a.b.manual")
			if done, err := relay.Requeue(ctx, []store.Stale{{Hint: store.Hint{ID: id}}}); err != nil || len(done) != 1 {
				t.Fatalf("Requeue: %v, %v", done, err)
			}
			return id
		}},
		{"SettleOrphan", "flagged", "reconciler", orphan("a.b.manual")},
		{"SettleOrphan", "flagged", "reconciler", orphan("a.b.probed")},
		{"SettleOrphan", "retried", "reconciler", orphan("a.b.idempotent")},
		{"SettleOrphan", "failed", "reconciler", orphan("a.b.last")},
	}
	covered := map[string]bool{}
	for _, tt := range tests {
		covered[tt.statement] = true
		t.Run(fmt.Sprintf("%s: %s by the %s", tt.statement, tt.event, tt.actor), func(t *testing.T) {
			user := workers.Config().ConnConfig.User
			if tt.actor == "reconciler" {
				user = relays.Config().ConnConfig.User
			}
			id := tt.do(t)
			log := entries(t, b.Pool, id)
			if len(log) == 0 {
				t.Fatal("the log has nothing")
			}
			if last := log[len(log)-1]; last.Event != tt.event || last.Actor != tt.actor || last.DBUser != user {
				t.Errorf("the log says «%s» by %s, %s; want «%s» by %s, %s", last.Event, last.Actor, last.DBUser, tt.event, tt.actor, user)
			}
		})
	}
	found := 0
	for _, name := range writsql.Statements() {
		if strings.Contains(writsql.Statement(name), "INSERT INTO writ.log") {
			found++
			if !covered[name] {
				t.Errorf("statement %s writes into the log: who runs it here?", name)
			}
		}
	}
	if found == 0 || testkit.Value[int](t, b.DB, "SELECT count(*) FROM writ.log") < len(tests) {
		t.Errorf("%d statements write into the log", found)
	}
}
