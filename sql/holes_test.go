package sql_test

import (
	"context"
	"testing"

	"github.com/writhq/writ/internal/testkit"
)

// TestHoles: legal-looking statements that would make a row unreadable, unclaimable or invisible are refused.
func TestHoles(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	db.Run(t, "INSERT INTO writ.intents (kind) VALUES ('test.hole.dug')")
	db.Run(t, "UPDATE writ.intents SET state = 'sending', event = 'attempted', epoch = 1, attempt = 1, started_at = now(), deadline_at = now()")
	for name, statement := range map[string]string{
		"a null subject":                    "INSERT INTO writ.intents (kind, subjects) VALUES ('test.hole.dug', ARRAY['customer:' || NULL])",
		"a request at no time":              "UPDATE writ.intents SET requested_at = 'infinity'",
		"run_at of what is being sent":      "UPDATE writ.intents SET run_at = now() + interval '1 day' WHERE finished_at IS NULL",
		"waiting on less than nothing":      "UPDATE writ.intents SET waiting_on = -1",
		"an event without a transition":     "UPDATE writ.intents SET event = 'succeeded'",
		"an epoch without a transition":     "UPDATE writ.intents SET epoch = epoch + 1",
		"headers that are no object":        "INSERT INTO writ.outbox (due_at, exchange, headers, payload) VALUES (now(), 'x', '[1]', 'x')",
		"a hint that is never due":          "INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) VALUES ('infinity', 'a.b.c', gen_random_uuid(), 0, 'run')",
		"a hint that has always been due":   "INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) VALUES ('-infinity', 'a.b.c', gen_random_uuid(), 0, 'run')",
		"an operation that nobody performs": "INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) VALUES (now(), 'a.b.c', gen_random_uuid(), 0, 'dance')",
	} {
		if _, err := db.Exec(context.Background(), statement); err == nil {
			t.Errorf("%s: let through", name)
		}
	}
}

// TestGiveUpThenRetry: giving up settles nothing, so the retry after it needs the same override.
func TestGiveUpThenRetry(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	db.Run(t, "INSERT INTO writ.intents (kind) VALUES ('test.hole.dug')")
	db.Run(t, `UPDATE writ.intents SET state = 'sending', event = 'attempted', epoch = 1, attempt = 1, started_at = now(),
		deadline_at = now() + interval '1 h', flagged_at = now(), flag_reason = 'overdue'`)
	db.Run(t, "UPDATE writ.intents SET state = 'error'")
	const retry = "SELECT writ.retry(id, state, epoch, 'ann', 'it looked undone to me', NULL, $1) FROM writ.intents"
	if _, err := db.Exec(context.Background(), retry, nil); err == nil {
		t.Error("retried without an override before deadline + settle, by way of giving up")
	}
	db.Run(t, retry, "its host is switched off")
}
