package intent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/fsm"
	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

func TestGet_whenMissing(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	id := intent.NewID()
	_, getErr := intent.Get(ctx, db, id)
	_, whyErr := intent.Why(ctx, db, id)
	_, timelineErr := intent.Timeline(ctx, db, id)
	for _, err := range []error{getErr, whyErr, timelineErr, verdicts(db.Pool, id)["Cancel"]} {
		if !errors.Is(err, intent.ErrNotFound) || !strings.Contains(err.Error(), id.String()) {
			t.Errorf("error = %v; want ErrNotFound that names %s", err, id)
		}
	}
	if got, err := intent.List(ctx, db, intent.Filter{}); err != nil || len(got) != 0 {
		t.Errorf("List = %v, %v", got, err)
	}
}

// verdicts are the errors of all four verbs on a pending row that nobody has seen.
func verdicts(db intent.DB, id intent.ID) map[string]error {
	v := intent.Verdict{ID: id, Seen: intent.Position{State: "pending"}, Actor: "ann", Why: "not wanted any more"}
	out := map[string]error{}
	_, out["Happened"] = intent.Happened(ctx, db, v)
	_, out["Retry"] = intent.Retry(ctx, db, v)
	_, out["GiveUp"] = intent.GiveUp(ctx, db, v)
	_, out["Cancel"] = intent.Cancel(ctx, db, v)
	return out
}

func TestAll_whenNoSchema(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(ctx, testkit.EmptyDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	id := intent.NewID()
	faults := verdicts(pool, id)
	_, faults["Get"] = intent.Get(ctx, pool, id)
	_, faults["List"] = intent.List(ctx, pool, intent.Filter{})
	_, faults["Why"] = intent.Why(ctx, pool, id)
	_, faults["Timeline"] = intent.Timeline(ctx, pool, id)
	for name, o := range map[string]intent.Opts{"Create": {}, "Create with a key": {Key: "k"}} {
		faults[name] = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { _, err := notify.Create(ctx, tx, comment{}, o); return err })
	}
	for name, err := range faults {
		if !errors.Is(err, intent.ErrNoSchema) {
			t.Errorf("%s: %v; want ErrNoSchema", name, err)
		}
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	root := create(t, db, comment{1}, intent.Opts{Subjects: []string{"comment:1", "author:7"}}).ID
	child := create(t, db, comment{2}, intent.Opts{TID: root, Parent: root, RunAt: time.Now().Add(time.Hour)}).ID
	failed, ambiguous := create(t, db, comment{3}, intent.Opts{}).ID, create(t, db, comment{4}, intent.Opts{Subjects: []string{"author:7"}}).ID
	fail(t, db, failed)
	flag(t, db, ambiguous)
	for name, tt := range map[string]struct {
		filter intent.Filter
		want   []intent.ID // the newest first
	}{
		"everything":     {intent.Filter{}, []intent.ID{ambiguous, failed, child, root}},
		"two":            {intent.Filter{Limit: 2}, []intent.ID{ambiguous, failed}},
		"of a kind":      {intent.Filter{Kind: "blog.comment.notify", Limit: 1}, []intent.ID{ambiguous}},
		"of another":     {intent.Filter{Kind: "blog.comment.delete"}, nil},
		"ready":          {intent.Filter{Status: "ready"}, []intent.ID{root}},
		"scheduled":      {intent.Filter{Status: "scheduled"}, []intent.ID{child}},
		"pending":        {intent.Filter{Status: "pending"}, []intent.ID{child, root}},
		"sending":        {intent.Filter{Status: "sending"}, []intent.ID{ambiguous}},
		"ambiguous":      {intent.Filter{Status: "ambiguous"}, []intent.ID{ambiguous}},
		"error":          {intent.Filter{Status: "error"}, []intent.ID{failed}},
		"sent":           {intent.Filter{Status: "sent"}, nil},
		"by subject":     {intent.Filter{Subject: "author:7"}, []intent.ID{ambiguous, root}},
		"of a root":      {intent.Filter{TID: root}, []intent.ID{child, root}},
		"all of it":      {intent.Filter{TID: root, Subject: "author:7", Status: "ready", Kind: "blog.comment.notify"}, []intent.ID{root}},
		"a hard subject": {intent.Filter{Subject: `'"{}\`}, nil},
	} {
		got, err := intent.List(ctx, db, tt.filter)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var ids []intent.ID
		for _, i := range got {
			ids = append(ids, i.ID)
		}
		if diff := cmp.Diff(tt.want, ids); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for _, word := range intent.Statuses() {
		if _, err := intent.List(ctx, db, intent.Filter{Status: word}); err != nil {
			t.Errorf("status %s: %v", word, err)
		}
	}
	var invalid *intent.InvalidError
	if _, err := intent.List(ctx, db, intent.Filter{Status: "done"}); !errors.As(err, &invalid) || invalid.Field != "status" || !strings.Contains(invalid.Fix, "sent") {
		t.Errorf("status done: %v; want an InvalidError that lists the words", err)
	}
}

// explainer notes the plan of what is asked.
type explainer struct {
	*testkit.DB
	plan string
}

func (e *explainer) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	rows, err := e.DB.Query(ctx, "EXPLAIN "+sql, args...)
	if err != nil {
		return nil, err
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	e.plan = strings.Join(lines, "\n")
	if err != nil {
		return nil, err
	}
	return e.DB.Query(ctx, sql, args...)
}

// On a table of mostly finished rows, each narrow filter is served by its index.
func TestList_usesIndexes(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	db.Run(t, `INSERT INTO writ.intents (id, tid, kind, event, subjects)
		SELECT u, u, 'blog.comment.notify', 'requested', ARRAY['comment:' || n] FROM (SELECT n, writ.uuid_v7() AS u FROM generate_series(1, 5000) n) x`)
	db.Run(t, "UPDATE writ.intents SET state = 'sending', event = 'attempted'")
	db.Run(t, "UPDATE writ.intents SET state = 'sent', event = 'succeeded', finished_at = now()")
	root := create(t, db, comment{1}, intent.Opts{}).ID
	create(t, db, comment{2}, intent.Opts{TID: root})
	fail(t, db, create(t, db, comment{3}, intent.Opts{}).ID)
	flag(t, db, create(t, db, comment{4}, intent.Opts{}).ID)
	db.Run(t, "VACUUM ANALYZE writ.intents")
	for name, tt := range map[string]struct {
		filter intent.Filter
		index  string
	}{
		"ambiguous": {intent.Filter{Status: "ambiguous"}, "intents_flagged"},
		"error":     {intent.Filter{Status: "error"}, "intents_failed"},
		"ready":     {intent.Filter{Status: "ready"}, "intents_open"},
		"subject":   {intent.Filter{Subject: "comment:77"}, "intents_subjects"},
		"tid":       {intent.Filter{TID: root}, "intents_tid"},
	} {
		e := &explainer{DB: db}
		if _, err := intent.List(ctx, e, tt.filter); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !strings.Contains(e.plan, tt.index) {
			t.Errorf("%s does not use %s:\n%s", name, tt.index, e.plan)
		}
	}
}

func TestWhy_andTimeline(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	id := create(t, db, comment{1}, intent.Opts{}).ID
	flag(t, db, id)
	i, err := intent.Get(ctx, db, id)
	if err != nil {
		t.Fatal(err)
	}
	if i.Status != "ambiguous" || i.State != fsm.Sending || i.Position() != (intent.Position{State: "sending", Epoch: 1, Flagged: true}) || !i.WorkerAlive || *i.Host != "web-1" {
		t.Errorf("intent = %+v; want ambiguous at web-1", i)
	}
	if why, err := intent.Why(ctx, db, id); err != nil || !strings.HasPrefix(why, "ambiguous: ") || !strings.Contains(why, i.IdempotencyKey) {
		t.Errorf("why = %q, %v", why, err)
	}
	v := intent.Verdict{ID: id, Seen: i.Position(), Actor: "ann", Why: "seen in the mail log", Evidence: json.RawMessage(`{"ticket": 7}`)}
	if got, err := intent.Happened(ctx, db, v); err != nil || got != (intent.Position{State: "sent", Epoch: 2}) {
		t.Fatalf("Happened = %+v, %v", got, err)
	}
	entries, err := intent.Timeline(ctx, db, id)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, fmt.Sprintf("%s by %s", e.Event, strings.Fields(e.Actor)[0]))
	}
	want := []string{"requested by application", "attempted by worker", "flagged by worker", "happened by ann"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("timeline (-want +got):\n%s", diff)
	}
	if last := entries[len(entries)-1]; last.Why != v.Why || !strings.Contains(string(last.Evidence), `"ticket": 7`) {
		t.Errorf("last entry = %+v; want ann's reason and evidence", last)
	}
	if !slices.IsSortedFunc(entries, func(a, b intent.Entry) int { return a.At.Compare(b.At) }) {
		t.Error("the timeline is not in order")
	}
}
