package sql_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

const kind = "blog.comment.notify"

// decide runs a verb as ann on what the row is now.
func (b *bench) decide(t *testing.T, verb string, id uuid.UUID) error {
	t.Helper()
	r := read(t, b.Pool, id)
	_, err := b.Exec(ctx, fmt.Sprintf("SELECT writ.%s($1, $2, $3, 'ann', 'seen in the mail log', '{\"ticket\": 7}')", verb), id, r.State, r.Epoch)
	return err
}

// settled declares the kind so that nothing lands after a deadline.
func (b *bench) settled(t *testing.T) {
	t.Helper()
	b.Run(t, "INSERT INTO writ.kinds (name, queue, class, settle) VALUES ($1, 'q', 'manual', '0') ON CONFLICT DO NOTHING", kind)
}

func TestVerbs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.settled(t)
	tests := []struct {
		verb, from string
		want       string // state; empty: refused with WR003
	}{
		{"happened", "pending", ""},
		{"happened", "sending", ""},
		{"happened", "flagged", "sent"},
		{"happened", "sent", ""},
		{"happened", "error", "sent"},
		{"happened", "cancelled", ""},
		{"retry", "pending", ""},
		{"retry", "sending", ""},
		{"retry", "flagged", "pending"},
		{"retry", "sent", ""},
		{"retry", "error", "pending"},
		{"retry", "cancelled", ""},
		{"give_up", "pending", ""},
		{"give_up", "sending", ""},
		{"give_up", "flagged", "error"},
		{"give_up", "sent", ""},
		{"give_up", "error", ""},
		{"give_up", "cancelled", ""},
		{"cancel", "pending", "cancelled"},
		{"cancel", "sending", ""},
		{"cancel", "flagged", ""},
		{"cancel", "sent", ""},
		{"cancel", "error", "cancelled"},
		{"cancel", "cancelled", ""},
	}
	for _, tt := range tests {
		t.Run(tt.verb+" when "+tt.from, func(t *testing.T) {
			t.Parallel()
			id := b.at(t, kind, tt.from)
			err := b.decide(t, tt.verb, id)
			if tt.want == "" {
				if pgErr := pgError(t, err); pgErr.Code != store.CodeIllegal || !strings.Contains(pgErr.Hint, "Legal from here") {
					t.Errorf("refused with %s %s (%s); want WR003 with the ways out", pgErr.Code, pgErr.Message, pgErr.Hint)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := read(t, b.Pool, id); got.State != tt.want {
				t.Errorf("state = %s; want %s", got.State, tt.want)
			}
			log := entries(t, b.Pool, id)
			last := log[len(log)-1]
			if last.Actor != "ann" || text(last.Why) != "seen in the mail log" || last.Evidence["ticket"] != 7.0 {
				t.Errorf("log = %+v; want ann with her reason and evidence", last)
			}
		})
	}
}

func TestVerbs_refuseBadInput(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.at(t, kind, "error")
	tests := map[string]struct{ code, arguments string }{
		"no actor":        {store.CodeInvalid, "'error', 1, '', 'seen in the mail log'"},
		"null actor":      {store.CodeInvalid, "'error', 1, NULL, 'seen in the mail log'"},
		"blank actor":     {store.CodeInvalid, "'error', 1, '  ', 'seen in the mail log'"},
		"no reason":       {store.CodeInvalid, "'error', 1, 'ann', ''"},
		"null reason":     {store.CodeInvalid, "'error', 1, 'ann', NULL"},
		"short reason":    {store.CodeInvalid, "'error', 1, 'ann', 'it did    '"},
		"old state":       {store.CodeMoved, "'sending', 1, 'ann', 'seen in the mail log'"},
		"old epoch":       {store.CodeMoved, "'error', 0, 'ann', 'seen in the mail log'"},
		"no view of it":   {store.CodeMoved, "NULL, NULL, 'ann', 'seen in the mail log'"},
		"half a view":     {store.CodeMoved, "'error', NULL, 'ann', 'seen in the mail log'"},
		"not even a view": {store.CodeMoved, "'', 1, 'ann', 'seen in the mail log'"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, verb := range []string{"happened", "retry", "cancel"} {
				refused(t, b.Pool, tt.code, "SELECT writ."+verb+"($1, "+tt.arguments+")", id)
			}
		})
	}
	refused(t, b.Pool, store.CodeNotFound, "SELECT writ.cancel($1, 'pending', 0, 'ann', 'not wanted any more')", uuid.New())
}

func TestVerbs_sayWhatChanged(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.settled(t)
	id := b.at(t, kind, "flagged")
	pgErr := refused(t, b.Pool, store.CodeMoved, "SELECT writ.happened($1, 'error', 1, 'ann', 'seen in the mail log')", id)
	var got map[string]any
	if err := json.Unmarshal([]byte(pgErr.Detail), &got); err != nil {
		t.Fatalf("detail %q: %v", pgErr.Detail, err)
	}
	want := map[string]any{"state": "sending", "epoch": 1.0, "event": "attempted", "flagged": true, "error": "connection reset by peer"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("detail (-want +got):\n%s", diff)
	}
	// Of two people who saw the same, one decides.
	if err := b.decide(t, "retry", id); err != nil {
		t.Fatal(err)
	}
	refused(t, b.Pool, store.CodeMoved, "SELECT writ.happened($1, 'sending', 1, 'bob', 'seen in the mail log')", id)
}

func TestRetry_danger(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.settled(t)
	dead := uuid.New()
	b.beat(t, dead, -time.Second)
	tests := map[string]struct {
		worker  uuid.UUID
		reason  string
		timeout time.Duration
		danger  string // in the refusal; empty: let through
	}{
		"before its deadline":                    {dead, "unknown", time.Hour, "deadline + settle"},
		"after its deadline":                     {dead, "unknown", -time.Hour, ""},
		"returned, worker alive":                 {b.worker, "unknown", -time.Hour, ""},
		"worker died, but is back":               {b.worker, "worker-died", -time.Hour, "is alive"},
		"worker died":                            {dead, "worker-died", -time.Hour, ""},
		"overdue, worker alive":                  {b.worker, "overdue", -time.Hour, "is alive"},
		"overdue, worker dead since":             {dead, "overdue", -time.Hour, ""},
		"before its deadline, with worker alive": {b.worker, "overdue", time.Hour, "is alive"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id := b.insert(t, kind)
			c := b.claim(t, id, tt.timeout)
			b.finish(t, c, store.Outcome{Event: store.Flagged, Why: tt.reason})
			b.Run(t, "UPDATE writ.intents SET worker_id = $2 WHERE id = $1", id, tt.worker)
			err := b.decide(t, "retry", id)
			if tt.danger == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if pgErr := pgError(t, err); pgErr.Code != store.CodeOverride || !strings.Contains(pgErr.Message, tt.danger) {
				t.Fatalf("refused with %s %s; want WR004 with %q", pgErr.Code, pgErr.Message, tt.danger)
			}
			refused(t, b.Pool, store.CodeOverride, "UPDATE writ.intents SET state = 'pending' WHERE id = $1", id)
			b.Run(t, "SELECT writ.retry($1, 'sending', 1, 'ann', 'seen in the mail log', NULL, 'I pulled its plug')", id)
			log := entries(t, b.Pool, id)
			last := log[len(log)-1].Evidence
			if last["override"] != "I pulled its plug" || !strings.Contains(fmt.Sprint(last["danger"]), tt.danger) {
				t.Errorf("evidence = %v; want the override and what it overrode", last)
			}
		})
	}
}

// A kind that nobody declared settles by the default of 30 s.
func TestRetry_dangerWhenUndeclared(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.insert(t, kind)
	b.finish(t, b.claim(t, id, -10*time.Second), store.Outcome{Event: store.Flagged, Why: "timeout"})
	if pgErr := pgError(t, b.decide(t, "retry", id)); pgErr.Code != store.CodeOverride {
		t.Errorf("%s %s; want WR004", pgErr.Code, pgErr.Message)
	}
}

func TestRetry_startsAnew(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.settled(t)
	b.Run(t, "INSERT INTO writ.kinds (name, queue, class, max_args) VALUES ('small.args.only', 'q', 'manual', 20)")
	retry := "SELECT writ.retry($1, 'error', 1, 'ann', 'the address is corrected', NULL, NULL, %s)"
	tests := map[string]struct {
		arguments  string
		generation int32
		args       string
		old        any
	}{
		"as it was":                   {"NULL, false", 0, `{"n": 1}`, nil},
		"with the same args":          {`'{"n": 1}', false`, 0, `{"n": 1}`, nil},
		"with new args":               {`'{"n": 2}', false`, 1, `{"n": 2}`, map[string]any{"n": 1.0}},
		"with a new key":              {"NULL, true", 1, `{"n": 1}`, nil},
		"with new args and a new key": {`'{"n": 2}', true`, 1, `{"n": 2}`, map[string]any{"n": 1.0}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id := b.at(t, kind, "error")
			b.Run(t, fmt.Sprintf(retry, tt.arguments), id)
			got := read(t, b.Pool, id)
			if got.Generation != tt.generation || got.Args != tt.args || got.Attempt != 0 || got.Epoch != 2 {
				t.Errorf("row = %+v; want generation %d, args %s, attempt 0, epoch 2", got, tt.generation, tt.args)
			}
			log := entries(t, b.Pool, id)
			if diff := cmp.Diff(tt.old, log[len(log)-1].Evidence["old_args"]); diff != "" {
				t.Errorf("old args in the log (-want +got):\n%s", diff)
			}
		})
	}
	id := b.at(t, "small.args.only", "error")
	refused(t, b.Pool, store.CodeInvalid, fmt.Sprintf(retry, `'"123456789012345678901"'`), id)
}

// Reasons set for the transaction are recorded with a plain UPDATE, before and after a verb in the same transaction.
func TestUpdate_recordsActorAndWhy(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first, second, third := b.at(t, kind, "error"), b.at(t, kind, "error"), b.at(t, kind, "error")
	err := pgx.BeginFunc(ctx, b.Pool, func(tx pgx.Tx) error {
		for _, sql := range []string{
			`SET LOCAL writ.actor = 'eve'`, `SET LOCAL writ.why = 'the whole batch was wrong'`, `SET LOCAL writ.evidence = '{"ticket": 9}'`,
			`UPDATE writ.intents SET state = 'cancelled' WHERE id = '` + first.String() + `'`,
			`SELECT writ.cancel('` + second.String() + `', 'error', 1, 'ann', 'not wanted any more')`,
			`UPDATE writ.intents SET state = 'cancelled' WHERE id = '` + third.String() + `'`,
		} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, id := range []uuid.UUID{first, second, third} {
		log := entries(t, b.Pool, id)
		last := log[len(log)-1]
		got = append(got, fmt.Sprint(last.Actor, ": ", text(last.Why), " ", last.Evidence["ticket"]))
	}
	want := []string{"eve: the whole batch was wrong 9", "ann: not wanted any more <nil>", "eve: the whole batch was wrong 9"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
	if left := testkit.Value[string](t, b.DB, "SELECT coalesce(current_setting('writ.actor', true), '')"); left != "" {
		t.Errorf("writ.actor = %q after the transaction", left)
	}
}

// give-up of a kind with a recovery function owes it a look.
func TestGiveUp_owesRecovery(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Run(t, "INSERT INTO writ.kinds (name, queue, class, recovers) VALUES ($1, 'q', 'manual', true)", kind)
	id := b.at(t, kind, "flagged")
	if err := b.decide(t, "give_up", id); err != nil {
		t.Fatal(err)
	}
	got := read(t, b.Pool, id)
	out := hints(t, b.Pool, id)
	if got.ProbeAt == nil || len(out) != 1 || out[0].Op != "recover" || out[0].Epoch != got.Epoch {
		t.Errorf("probe_at %v, outbox %+v; want one recover hint of epoch %d", got.ProbeAt, out, got.Epoch)
	}
	if err := b.decide(t, "cancel", id); err != nil {
		t.Fatal(err)
	}
	if out := hints(t, b.Pool, id); len(out) != 0 || read(t, b.Pool, id).ProbeAt != nil {
		t.Errorf("cancelled, and still owed: %+v", out)
	}
}

// So does happened, by whoever says so, of a kind that has a function for it; and the row is not pruned before.
func TestHappened_owesItsShare(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Run(t, "INSERT INTO writ.kinds (name, queue, class, recovers, completes) VALUES ($1, 'q', 'manual', false, true)", kind)
	for _, position := range []string{"flagged", "error"} {
		id := b.at(t, kind, position)
		if err := b.decide(t, "happened", id); err != nil {
			t.Fatal(err)
		}
		got := read(t, b.Pool, id)
		out := hints(t, b.Pool, id)
		if got.ProbeAt == nil || len(out) != 1 || out[0].Op != "recover" || out[0].Epoch != got.Epoch {
			t.Errorf("%s: probe_at %v, outbox %+v; want one recover hint of epoch %d", position, got.ProbeAt, out, got.Epoch)
		}
		if why := testkit.Value[string](t, b.DB, "SELECT writ.why($1)", id); !strings.Contains(why, "Its OnHappened function has still to run, and no live worker") {
			t.Errorf("why = %q", why)
		}
	}
	s := store.New(b.Pool)
	pruned, err := s.Prune(ctx, store.Expiry{Kind: kind, State: "sent", Before: time.Now().Add(time.Hour)}, 10)
	if err != nil || len(pruned) != 0 {
		t.Errorf("pruned %d that are owed: %v", len(pruned), err)
	}
	b.Run(t, "DELETE FROM writ.outbox")
	b.Run(t, "UPDATE writ.intents SET probe_at = probe_at - interval '1 min'")
	if again, err := s.RequeueOwed(ctx); err != nil || len(again) != 2 {
		t.Errorf("%d lost hints written again, %v; want 2", len(again), err)
	}
}
