package intent_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

// A timeline has every attempt with its worker, whatever became of it, and every act of a person.
func TestTimeline_isComplete(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	s := store.New(db.Pool)
	id := create(t, db, comment{1}, intent.Opts{}).ID
	epoch := int32(0)
	run := func(o store.Outcome) string {
		t.Helper()
		worker := uuid.New()
		db.Run(t, "INSERT INTO writ.workers (id, host, pid, version, kinds, slots, ttl) VALUES ($1, 'web-1', 1, 'v', '{}', 1, '1 h')", worker)
		db.Run(t, "UPDATE writ.intents SET run_at = run_at WHERE id = $1", id)
		claimed, err := s.Claim(ctx, worker, []store.Group{{Epoch: epoch, Timeout: -time.Hour, IDs: []uuid.UUID{id}}})
		if err != nil || len(claimed) != 1 {
			t.Fatalf("claim at %d: %v, %v", epoch, claimed, err)
		}
		epoch++
		o.ID, o.Epoch = id, epoch
		if o.Event != "" {
			if fate, err := s.FinishOne(ctx, worker, o); err != nil || fate.Late {
				t.Fatalf("finish: %+v, %v", fate, err)
			}
		}
		return worker.String()
	}
	var want []string
	say := func(format string, args ...any) { want = append(want, fmt.Sprintf(format, args...)) }
	attempt := func(n int, o store.Outcome, outcome, why string) {
		w := run(o)
		say("attempted %d worker %s: attempt %d", epoch, w, n)
		if outcome != "" {
			say("%s %d worker %s: %s", outcome, epoch, w, why)
		}
	}
	say("requested 0 application: ")
	attempt(1, store.Outcome{Event: store.Retried, Why: "not done", Error: "refused", Delay: -time.Second}, "retried", "not done")
	attempt(2, store.Outcome{Event: store.Retried, Free: true, Why: "snoozed", Delay: -time.Second}, "retried", "snoozed")
	if err := intent.Note(ctx, db, id, "eve", "it takes its time"); err != nil {
		t.Fatal(err)
	}
	say("note %d eve: it takes its time", epoch)
	attempt(2, store.Outcome{Event: store.Flagged, Why: "unknown", Error: "reset"}, "flagged", "unknown")
	if _, err := intent.Retry(ctx, db, verdict(id, intent.Position{State: "sending", Epoch: epoch})); err != nil {
		t.Fatal(err)
	}
	say("retry %d ann: seen in the mail log", epoch)
	epoch++
	attempt(1, store.Outcome{Event: store.Failed, Why: "stopped", Error: "gone"}, "failed", "stopped")
	v := verdict(id, intent.Position{State: "error", Epoch: epoch})
	v.NewArgs = []byte(`{"id": 2}`)
	if _, err := intent.Retry(ctx, db, v); err != nil {
		t.Fatal(err)
	}
	say("retry %d ann: seen in the mail log", epoch)
	epoch++
	attempt(1, store.Outcome{}, "", "")
	db.Run(t, "UPDATE writ.intents SET flagged_at = clock_timestamp(), flag_reason = 'looks odd' WHERE id = $1", id)
	say("flagged %d %s: looks odd", epoch, testkit.Value[string](t, db, "SELECT session_user"))

	entries, err := intent.Timeline(ctx, db, id)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i, e := range entries {
		got = append(got, fmt.Sprintf("%s %d %s: %s", e.Event, e.Epoch, e.Actor, e.Why))
		if i > 0 && e.At.Before(entries[i-1].At) {
			t.Errorf("%s comes after what was later", e.Event)
		}
		if strings.HasPrefix(e.Event, "retry") && e.DBUser == "" {
			t.Errorf("%+v names no database user", e)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("timeline (-want +got):\n%s", diff)
	}
	if last := entries[len(entries)-3]; !strings.Contains(string(last.Evidence), `"old_args": {"id": 1}`) {
		t.Errorf("evidence of the last retry = %s; want the old args", last.Evidence)
	}
}

// Whoever created an intent finds it again under his key and id, though a person has changed its arguments since.
func TestCreate_againAfterChangedArgs(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	first := create(t, db, comment{1}, intent.Opts{Key: "k"})
	fail(t, db, first.ID)
	v := verdict(first.ID, intent.Position{State: "error", Epoch: 1})
	v.NewArgs = []byte(`{"id": 2}`)
	if _, err := intent.Retry(ctx, db, v); err != nil {
		t.Fatal(err)
	}
	for _, args := range []comment{{1}, {2}} {
		for _, opts := range []intent.Opts{{Key: "k"}, {ID: first.ID}} {
			if again := create(t, db, args, opts); again.ID != first.ID || !again.Existed {
				t.Errorf("%+v under %+v: %+v; want the first one", args, opts, again)
			}
		}
	}
	err := pgx.BeginFunc(ctx, db.Pool, func(tx pgx.Tx) error {
		_, err := notify.Create(ctx, tx, comment{3}, intent.Opts{Key: "k"})
		return err
	})
	if !errors.Is(err, intent.ErrConflict) {
		t.Errorf("other args: %v; want ErrConflict", err)
	}
}
