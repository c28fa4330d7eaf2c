package intent_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/fsm"
	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

// merging plans a retry of all errors with changed arguments.
func merging(db *testkit.DB, patch string) (intent.ID, error) {
	return intent.PlanBulk(ctx, db, intent.BulkPlan{
		Verb: fsm.Retry, Filter: intent.Filter{Status: "error"}, Actor: "ann", Why: "the old sender is blocked", Merge: json.RawMessage(patch),
	})
}

// One patch changes the arguments of all: the plan shows it, each runs with its own under a new key, and the log has both. A
// row whose arguments are so already keeps its key.
func TestBulk_merge(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	errorsOf(t, db, 60)
	db.Run(t, `UPDATE writ.intents SET args = args || '{"sender": "new", "old": true}' WHERE args ->> 'id' = '60'`)
	bulk, err := merging(db, `{"sender": "new", "gone": null}`)
	if err != nil {
		t.Fatal(err)
	}
	groups, err := intent.PreviewBulk(ctx, db, bulk)
	if err != nil || len(groups) != 1 || groups[0].N != 60 || groups[0].Changed != 59 || !strings.Contains(string(groups[0].After), `"sender": "new"`) ||
		strings.Contains(string(groups[0].Before), "sender") {
		t.Errorf("preview = %+v, %v; want 59 of 60 changed, with an example", groups, err)
	}
	if n := testkit.Value[int](t, db, "SELECT count(*) FROM writ.intents WHERE args ->> 'sender' = 'new'"); n != 1 {
		t.Errorf("the plan alone has changed %d", n-1)
	}
	// Somebody else changes one meanwhile: it is refused, with his arguments in place.
	other := testkit.Value[intent.ID](t, db, "SELECT id FROM writ.intents WHERE args ->> 'id' = '7'")
	v := verdict(other, intent.Position{State: "error", Epoch: 1})
	v.NewArgs = json.RawMessage(`{"id": 7, "sender": "other"}`)
	if _, err := intent.Retry(ctx, db, v); err != nil {
		t.Fatal(err)
	}
	got, err := intent.RunBulk(ctx, db, bulk, intent.BulkRun{Actor: "bob"})
	if err != nil || got.Done != 59 || got.Refused != 1 || !strings.Contains(string(got.Merge), "sender") {
		t.Fatalf("bulk = %+v, %v; want 59 done and one refused", got, err)
	}
	if i, err := intent.Get(ctx, db, other); err != nil || !strings.Contains(string(i.Args), "other") {
		t.Errorf("the one that moved has %s, %v", i.Args, err)
	}
	const right = `SELECT count(*) FROM writ.intents i JOIN writ.log l ON l.intent_id = i.id AND l.event = 'retry' AND l.actor = 'ann'
		WHERE i.state = 'pending' AND i.generation = 1 AND i.args = jsonb_build_object('id', (i.args ->> 'id')::int, 'sender', 'new')
		AND l.evidence -> 'old_args' = jsonb_build_object('id', (i.args ->> 'id')::int) AND l.evidence -> 'new_args' = i.args AND l.evidence ->> 'bulk' = $1`
	if n := testkit.Value[int](t, db, right, bulk.String()); n != 58 {
		t.Errorf("%d have the new arguments, a new key and both in the log; want 58", n)
	}
	if n := testkit.Value[int](t, db, "SELECT generation FROM writ.intents WHERE args ? 'old'"); n != 1 { // which the hand gave it
		t.Error("a row whose arguments stay as they are has a new key")
	}
	if n := testkit.Value[int](t, db, `SELECT count(*) FROM writ.log WHERE event = 'bulk-run' AND evidence -> 'merge' ->> 'sender' = 'new'`); n != 1 {
		t.Errorf("%d runs are in the log with the patch; want 1", n)
	}
}

// Arguments that somebody changes by hand while a step is under way are not written over by what they were before.
func TestBulk_mergeByHand(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	errorsOf(t, db, 1)
	bulk, err := merging(db, `{"sender": "new"}`)
	if err != nil {
		t.Fatal(err)
	}
	hand, err := db.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hand.Rollback(ctx) }()
	if _, err := hand.Exec(ctx, `UPDATE writ.intents SET args = args || '{"by": "hand"}'`); err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() {
		_, err := intent.RunBulk(ctx, db, bulk, intent.BulkRun{Actor: "bob"})
		ran <- err
	}()
	testkit.Until(t, 10*time.Second, "the step waits for the row", func() (bool, string) {
		return testkit.Value[bool](t, db, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"), ""
	})
	if err := hand.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	if got := testkit.Value[string](t, db, "SELECT args::text FROM writ.intents"); got != `{"by": "hand", "id": 1, "sender": "new"}` {
		t.Errorf("arguments %s; want both changes", got)
	}
}

// A patch that the kind's code could not read is refused when it is planned; where that is known only later, row by row.
func TestBulk_mergeUnfit(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	errorsOf(t, db, 3)
	const schema = `INSERT INTO writ.kinds (name, queue, class, schema) VALUES ('blog.comment.notify', 'q', 'manual',
		'{"type": "object", "properties": {"id": {"type": "integer"}, "sender": {"type": "string"}}}')
		ON CONFLICT (name) DO UPDATE SET schema = excluded.schema`
	early, err := merging(db, `{"sendr": "new"}`) // nobody has declared anything
	if err != nil {
		t.Fatal(err)
	}
	db.Run(t, schema)
	for patch, want := range map[string]string{
		`{"sendr": "topsecret"}`: `do not fit 3 of 3 intents`, `{"sender": 7}`: `"sender" of blog.comment.notify is declared string, not number`,
		`{}`: "at least one member", `[1]`: "JSON array", `"topsecret"`: "JSON string", `{`: "not valid JSON", `null`: "JSON null",
	} {
		_, err := merging(db, patch)
		if !errors.Is(err, intent.ErrInvalid) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "topsecret") {
			t.Errorf("%s: %v; want ErrInvalid with %q", patch, err, want)
		}
	}
	if _, err := intent.PlanBulk(ctx, db, intent.BulkPlan{Verb: fsm.Cancel, Actor: "ann", Why: "the old sender is blocked", Merge: []byte(`{"a":1}`)}); !errors.Is(err, intent.ErrInvalid) {
		t.Errorf("cancel with a patch: %v; want ErrInvalid", err)
	}
	if n := testkit.Value[int](t, db, "SELECT count(*) FROM writ.bulks"); n != 1 {
		t.Errorf("%d plans; want the first alone", n)
	}
	got, err := intent.RunBulk(ctx, db, early, intent.BulkRun{Actor: "ann"})
	if err != nil || got.Refused != 3 || got.Done != 0 {
		t.Fatalf("run: %+v, %v; want all refused", got, err)
	}
	for id, r := range rows(t, db, early) {
		if r.Code != "WR005" || !strings.Contains(r.Message, `has no argument "sendr", but id, sender`) {
			t.Errorf("%s: %+v; want it refused for the argument that there is not", id, r)
		}
	}
	// Arguments that are no object have nothing to merge into.
	db.Run(t, `UPDATE writ.intents SET args = '[1]'`)
	list, err := merging(db, `{"sender": "new"}`)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := intent.RunBulk(ctx, db, list, intent.BulkRun{Actor: "ann"}); err != nil || got.Refused != 3 {
		t.Errorf("a list: %+v, %v; want all refused", got, err)
	}
}

// A creator who asks again for what a bulk has changed is no stranger.
func TestBulk_mergeAndAskAgain(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	c := create(t, db, comment{1}, intent.Opts{})
	db.Run(t, "UPDATE writ.intents SET state = 'sending', event = 'attempted', epoch = 1, attempt = 1, started_at = now(), deadline_at = now()")
	db.Run(t, "UPDATE writ.intents SET state = 'error', event = 'failed', finished_at = now(), failed_at = now()")
	bulk, err := merging(db, `{"id": 2}`)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := intent.RunBulk(ctx, db, bulk, intent.BulkRun{Actor: "ann"}); err != nil || b.Done != 1 {
		t.Fatalf("run: %+v, %v", b, err)
	}
	err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		_, err := notify.Create(ctx, tx, comment{1}, intent.Opts{ID: c.ID})
		return err
	})
	if err != nil {
		t.Errorf("asked again: %v; want it found", err)
	}
}

// No rate but a finite one that a clock can keep.
func TestBulkRun_rate(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	errorsOf(t, db, 2)
	bulk := plan(t, db, fsm.Retry, intent.Filter{Status: "error"})
	for _, rate := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1, 1e300, 1e-300} {
		if got, err := intent.RunBulk(ctx, db, bulk, intent.BulkRun{Actor: "ann", Rate: rate}); !errors.Is(err, intent.ErrInvalid) {
			t.Errorf("rate %v: %+v, %v; want ErrInvalid", rate, got, err)
		}
	}
	if b, err := intent.GetBulk(ctx, db, bulk); err != nil || b.State() != "planned" || b.Rate != nil {
		t.Errorf("bulk = %+v, %v; want it as it was", b, err)
	}
	if b, err := intent.RunBulk(ctx, db, bulk, intent.BulkRun{Actor: "ann", Rate: 1e6}); err != nil || b.Done != 2 {
		t.Errorf("a high rate: %+v, %v", b, err)
	}
}

// A rate holds over all who carry a plan out, however often they begin.
func TestBulkRun_rateIsKept(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	errorsOf(t, db, 5)
	bulk := plan(t, db, fsm.Retry, intent.Filter{Status: "error"})
	begun := time.Now()
	for range 5 { // and each is stopped after its first step
		db.Run(t, "SELECT writ.bulk_start($1, 'ann', 0.1)", bulk)
		db.Run(t, "SELECT writ.bulk_step($1, 50)", bulk)
	}
	if n := testkit.Value[int](t, db, "SELECT done FROM writ.bulks"); n != 1 && time.Since(begun) < 10*time.Second {
		t.Errorf("%d rows in %v at one in ten seconds", n, time.Since(begun))
	}
	// A faster one does not wait out what the slow one would.
	db.Run(t, "SELECT writ.bulk_start($1, 'ann', 1000)", bulk)
	testkit.Until(t, 5*time.Second, "the faster rate counts", func() (bool, string) {
		db.Run(t, "SELECT writ.bulk_step($1, 50)", bulk)
		n := testkit.Value[int](t, db, "SELECT done FROM writ.bulks")
		return n == 5, fmt.Sprint(n)
	})
}

// A frozen position says nothing of what came to be known since: a retry of what is said to have been done is refused, and
// the preview tells of it.
func TestBulk_knownDone(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	create(t, db, comment{1}, intent.Opts{})
	db.Run(t, `UPDATE writ.intents SET state = 'sending', event = 'attempted', epoch = 1, attempt = 1, started_at = now() - interval '2 h',
		deadline_at = now() - interval '1 h'`)
	db.Run(t, "UPDATE writ.intents SET flagged_at = now(), flag_reason = 'worker-died'")
	bulk := plan(t, db, fsm.Retry, intent.Filter{Status: "ambiguous"})
	needed := func() int64 {
		groups, err := intent.PreviewBulk(ctx, db, bulk)
		if err != nil || len(groups) != 1 {
			t.Fatalf("preview: %+v, %v", groups, err)
		}
		return groups[0].NeedOverride
	}
	if n := needed(); n != 0 {
		t.Errorf("%d need an override; want none", n)
	}
	db.Run(t, "UPDATE writ.intents SET flag_reason = 'hook-failed', error = 'the handler says done; its hook failed 5 times'")
	if n := needed(); n != 1 {
		t.Errorf("%d need an override; want 1", n)
	}
	got, err := intent.RunBulk(ctx, db, bulk, intent.BulkRun{Actor: "bob"})
	if err != nil || got.Refused != 1 {
		t.Fatalf("bulk = %+v, %v; want it refused", got, err)
	}
	for id, r := range rows(t, db, bulk) {
		if r.Code != "WR004" || !strings.Contains(r.Message, "its handler said that it was done") {
			t.Errorf("%s: %+v", id, r)
		}
	}
}
