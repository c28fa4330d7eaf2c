package sql_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/fsm"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

// engineEvents are what the engine's statements may name, and two that nobody may.
var engineEvents = []*string{
	new(string(fsm.Attempted)), new(string(fsm.Succeeded)), new(string(fsm.Retried)), new(string(fsm.Failed)),
	new(string(fsm.Happened)), new("made-up"), nil,
}

// engineUpdate sets what an engine statement would, so that no CHECK hides what the trigger says.
const engineUpdate = `UPDATE writ.intents SET state = $2, event = $3, flagged_at = NULL, flag_reason = NULL,
	finished_at = CASE WHEN $2 IN ('sent', 'error', 'cancelled') THEN now() END, failed_at = CASE WHEN $2 = 'error' THEN now() END
	WHERE id = $1`

type position struct {
	state   fsm.State
	flagged bool
}

func (p position) String() string {
	if p.flagged {
		return string(p.state) + " (flagged)"
	}
	return string(p.state)
}

var positions = []position{
	{fsm.Pending, false}, {fsm.Sending, false}, {fsm.Sending, true}, {fsm.Sent, false}, {fsm.Error, false}, {fsm.Cancelled, false},
}

func (b *bench) stand(t *testing.T, p position) uuid.UUID {
	t.Helper()
	b.Run(t, "INSERT INTO writ.kinds (name, queue, class) VALUES ('blog.comment.notify', 'q', 'manual') ON CONFLICT DO NOTHING")
	if p.flagged {
		return b.at(t, "blog.comment.notify", "flagged")
	}
	return b.at(t, "blog.comment.notify", string(p.state))
}

// TestGuard/… walks every pair of states, flagged or not, by the engine's statements and by hand, and compares the
// database's verdict with the table of package fsm.
func TestGuard(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, from := range positions {
		id := b.stand(t, from)
		before := read(t, b.Pool, id)
		for _, to := range fsm.States() {
			if to == from.state {
				continue
			}
			t.Run(fmt.Sprintf("%s to %s by hand", from, to), func(t *testing.T) {
				b.rollback(t, func(tx pgx.Tx) { checkHand(t, tx, from, to, before) })
			})
			for _, event := range engineEvents {
				t.Run(fmt.Sprintf("%s to %s with event %s", from, to, text(event)), func(t *testing.T) {
					b.rollback(t, func(tx pgx.Tx) { checkEngine(t, tx, from, to, event, before) })
				})
			}
		}
	}
}

func text(s *string) string {
	if s == nil {
		return "NULL"
	}
	return *s
}

func checkEngine(t *testing.T, tx pgx.Tx, from position, to fsm.State, event *string, before row) {
	t.Helper()
	author := fsm.Engine
	if cmp.Equal(event, before.Event) {
		author = fsm.Hand // the event is left alone: that is what by hand means
	}
	want, legal := fsm.Find(from.state, from.flagged, to, author)
	if author == fsm.Engine {
		legal = legal && event != nil && string(want.Event) == *event
	}
	_, err := tx.Exec(ctx, engineUpdate, before.ID, to, event)
	if legal != (err == nil) {
		t.Fatalf("legal: %v, the database says %v", legal, err)
	}
	if err != nil {
		checkRefusal(t, err, from, to)
		return
	}
	if author == fsm.Hand {
		return
	}
	if after := read(t, tx, before.ID); after.State != string(to) || *after.Event != *event || after.Epoch != before.Epoch {
		t.Errorf("an engine statement was changed on its way: %+v", after)
	}
}

func checkHand(t *testing.T, tx pgx.Tx, from position, to fsm.State, before row) {
	t.Helper()
	want, legal := fsm.Find(from.state, from.flagged, to, fsm.Hand)
	logged := len(entries(t, tx, before.ID))
	_, err := tx.Exec(ctx, "UPDATE writ.intents SET state = $2 WHERE id = $1", before.ID, to)
	if legal != (err == nil) {
		t.Fatalf("legal: %v, the database says %v", legal, err)
	}
	if err != nil {
		checkRefusal(t, err, from, to)
		return
	}
	after := read(t, tx, before.ID)
	epoch := before.Epoch + 1
	if want.Event == fsm.Cancel {
		epoch = before.Epoch
	}
	if after.State != string(to) || text(after.Event) != string(want.Event) || after.Epoch != epoch {
		t.Errorf("now %s by %s at epoch %d; want %s by %s at %d", after.State, text(after.Event), after.Epoch, to, want.Event, epoch)
	}
	if after.FlaggedAt != nil || after.FlagReason != nil {
		t.Error("the flag is still there")
	}
	if open := to == fsm.Pending; (after.FinishedAt == nil) != open || (after.FailedAt != nil) != (to == fsm.Error) {
		t.Errorf("finished_at %v, failed_at %v do not go with %s", after.FinishedAt, after.FailedAt, to)
	}
	checkHints(t, tx, want.Event, after)
	checkEntry(t, tx, logged, from, want, before)
}

func checkHints(t *testing.T, tx pgx.Tx, event fsm.Event, after row) {
	t.Helper()
	got := hints(t, tx, after.ID)
	if event != fsm.Retry {
		if len(got) != 0 {
			t.Errorf("%s left outbox rows: %+v", event, got)
		}
		return
	}
	if after.Attempt != 0 {
		t.Errorf("attempt = %d after a retry; want 0", after.Attempt)
	}
	if len(got) != 1 || got[0].Epoch != after.Epoch || got[0].Op != "run" || got[0].DueAt.Before(after.RunAt) || got[0].DueAt.Sub(after.RunAt) > time.Minute {
		t.Errorf("outbox = %+v; want one run of epoch %d due at %v", got, after.Epoch, after.RunAt)
	}
}

func checkEntry(t *testing.T, tx pgx.Tx, logged int, from position, want fsm.Transition, before row) {
	t.Helper()
	all := entries(t, tx, before.ID)
	if len(all) != logged+1 {
		t.Fatalf("%d new log rows; want 1", len(all)-logged)
	}
	got := all[logged]
	user := got.DBUser
	if got.Event != string(want.Event) || got.Epoch != before.Epoch || got.Actor != user || text(got.Why) != "written by hand" {
		t.Errorf("log = %+v; want %s at epoch %d by %s", got, want.Event, before.Epoch, user)
	}
	if got.Evidence["from"] != string(from.state) || got.Evidence["to"] != string(want.To) {
		t.Errorf("log evidence = %v; want from %s to %s", got.Evidence, from.state, want.To)
	}
}

// checkRefusal holds a refusal to naming both states and all legal ways out.
func checkRefusal(t *testing.T, err error, from position, to fsm.State) {
	t.Helper()
	pgErr := pgError(t, err)
	if pgErr.Code != store.CodeIllegal {
		t.Fatalf("refused with %s %s; want WR003", pgErr.Code, pgErr.Message)
	}
	if !strings.Contains(pgErr.Message, string(from.state)) || !strings.Contains(pgErr.Message, string(to)) {
		t.Errorf("message %q does not name %s and %s", pgErr.Message, from.state, to)
	}
	verbs := fsm.Verbs(from.state, from.flagged)
	for _, verb := range verbs {
		if !strings.Contains(pgErr.Hint, string(verb)) {
			t.Errorf("hint %q does not name %s", pgErr.Hint, verb)
		}
	}
	if len(verbs) == 0 && !strings.Contains(pgErr.Hint, "none") {
		t.Errorf("hint %q does not say that there is no way out", pgErr.Hint)
	}
}

func TestGuard_refuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	pending, flagged := b.at(t, "blog.comment.notify", "pending"), b.at(t, "blog.comment.notify", "flagged")
	sent := b.at(t, "blog.comment.notify", "sent")
	tests := map[string]struct {
		sql string
		id  uuid.UUID
	}{
		"a state without a name":          {"UPDATE writ.intents SET state = 'done' WHERE id = $1", pending},
		"another id":                      {"UPDATE writ.intents SET id = writ.uuid_v7() WHERE id = $1", pending},
		"another kind":                    {"UPDATE writ.intents SET kind = 'blog.comment.other' WHERE id = $1", pending},
		"an epoch that goes back":         {"UPDATE writ.intents SET epoch = epoch - 1 WHERE id = $1", flagged},
		"an epoch that goes back with it": {"UPDATE writ.intents SET state = 'pending', epoch = 0 WHERE id = $1", flagged},
		"taking the flag away":            {"UPDATE writ.intents SET flagged_at = NULL WHERE id = $1", flagged},
		"deleting an open row":            {"DELETE FROM writ.intents WHERE id = $1", pending},
		"deleting an ambiguous row":       {"DELETE FROM writ.intents WHERE id = $1", flagged},
		"truncating the intents":          {"TRUNCATE writ.intents", uuid.Nil},
		"truncating the log":              {"TRUNCATE writ.log", uuid.Nil},
		"rewriting the log":               {"UPDATE writ.log SET why = 'all is well' WHERE intent_id = $1", flagged},
		"deleting from the log":           {"DELETE FROM writ.log WHERE intent_id = $1", flagged},
		"reviving what is sent":           {"UPDATE writ.intents SET state = 'pending', finished_at = NULL, event = 'retried' WHERE id = $1", sent},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := []any{tt.id}
			if tt.id == uuid.Nil {
				args = nil
			}
			refused(t, b.Pool, store.CodeIllegal, tt.sql, args...)
		})
	}
}

func TestGuard_times(t *testing.T) {
	t.Parallel()
	b := setup(t)
	pending, sent := b.at(t, "blog.comment.notify", "pending"), b.at(t, "blog.comment.notify", "sent")
	refused(t, b.Pool, store.CodeIllegal, "UPDATE writ.intents SET flagged_at = now() WHERE id = $1", pending)
	refused(t, b.Pool, store.CodeIllegal, "UPDATE writ.intents SET finished_at = now() WHERE id = $1", pending)
	refused(t, b.Pool, store.CodeIllegal, "UPDATE writ.intents SET failed_at = now() WHERE id = $1", sent)
	refused(t, b.Pool, store.CodeIllegal, "UPDATE writ.intents SET finished_at = NULL WHERE id = $1", sent)
	for _, set := range []string{"state = 'sending', event = 'attempted', finished_at = now()", "state = 'sending', event = 'attempted', failed_at = now()"} {
		refused(t, b.Pool, store.CodeIllegal, "UPDATE writ.intents SET "+set+" WHERE id = $1", pending)
	}
	sending := b.at(t, "blog.comment.notify", "sending")
	refused(t, b.Pool, store.CodeIllegal, "UPDATE writ.intents SET state = 'sent', event = 'succeeded' WHERE id = $1", sending)
	refused(t, b.Pool, store.CodeIllegal, "INSERT INTO writ.intents (kind, finished_at) VALUES ('blog.comment.notify', now())")
}

// TestGuard_allColumns: a writer that names all columns, as object mappers do, is judged once.
func TestGuard_allColumns(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.at(t, "blog.comment.notify", "pending")
	b.Run(t, "UPDATE writ.intents SET id = id, kind = kind, run_at = run_at + interval '1 h' WHERE id = $1", id)
	b.Run(t, "UPDATE writ.intents SET id = id, kind = kind, state = 'cancelled' WHERE id = $1", id)
	if n := testkit.Value[int](t, b.DB, "SELECT count(*) FROM writ.log WHERE intent_id = $1", id); n != 2 {
		t.Errorf("%d entries in the log; want one for the move and one for the cancel", n)
	}
}

// A finished row may be deleted by hand; with it go its creation keys, so that the key is free, and then its log.
func TestDelete_whenFinished(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.at(t, "blog.comment.notify", "error")
	b.Run(t, "INSERT INTO writ.keys (kind, key, intent_id) VALUES ('blog.comment.notify', 'k', $1)", id)
	b.Run(t, "DELETE FROM writ.intents WHERE id = $1", id)
	if n := testkit.Value[int](t, b.DB, "SELECT count(*) FROM writ.keys"); n != 0 {
		t.Error("its creation key outlived the intent")
	}
	b.Run(t, "DELETE FROM writ.log WHERE intent_id = $1", id)
	if got := entries(t, b.Pool, id); len(got) != 0 {
		t.Errorf("log = %+v; want none", got)
	}
}
