package intent_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

var seenPending = intent.Position{State: "pending"}

func verdict(id intent.ID, seen intent.Position) intent.Verdict {
	return intent.Verdict{ID: id, Seen: seen, Actor: "ann", Why: "seen in the mail log"}
}

func TestDecide_refused(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	id := create(t, db, comment{1}, intent.Opts{}).ID
	for name, tt := range map[string]struct {
		change func(*intent.Verdict)
		want   error
	}{
		"without an actor":    {func(v *intent.Verdict) { v.Actor = "" }, intent.ErrInvalid},
		"without a reason":    {func(v *intent.Verdict) { v.Why = "because" }, intent.ErrInvalid},
		"bad evidence":        {func(v *intent.Verdict) { v.Evidence = json.RawMessage("{") }, intent.ErrInvalid},
		"unstorable evidence": {func(v *intent.Verdict) { v.Evidence = json.RawMessage(`"\u0000"`) }, intent.ErrInvalid},
		"NUL in the reason":   {func(v *intent.Verdict) { v.Why = "a reason\x00 it is" }, intent.ErrInvalid},
		"actor not UTF-8":     {func(v *intent.Verdict) { v.Actor = bad }, intent.ErrInvalid},
		"without a position":  {func(v *intent.Verdict) { v.Seen = intent.Position{} }, intent.ErrConflict},
		"at an old epoch":     {func(v *intent.Verdict) { v.Seen.Epoch = 3 }, intent.ErrConflict},
	} {
		v := verdict(id, seenPending)
		tt.change(&v)
		tx, err := db.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := intent.Cancel(ctx, tx, v); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v; want %v", name, err, tt.want)
		}
		_ = tx.Rollback(ctx)
	}
	for name, verb := range map[string]func(context.Context, intent.DB, intent.Verdict) (intent.Position, error){
		"Happened": intent.Happened, "Retry": intent.Retry, "GiveUp": intent.GiveUp,
	} {
		if _, err := verb(ctx, db, verdict(id, seenPending)); !errors.Is(err, intent.ErrIllegal) || !strings.Contains(err.Error(), "cancel") {
			t.Errorf("%s of a pending intent: %v; want ErrIllegal with the way out", name, err)
		}
	}
}

func TestDecide_whenMoved(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	id := create(t, db, comment{1}, intent.Opts{}).ID
	flag(t, db, id)
	_, err := intent.Cancel(ctx, db, verdict(id, seenPending))
	var conflict *intent.ConflictError
	if !errors.As(err, &conflict) || !errors.Is(err, intent.ErrConflict) {
		t.Fatalf("error = %v; want a ConflictError", err)
	}
	if want := (intent.Position{State: "sending", Epoch: 1, Flagged: true}); conflict.ID != id || conflict.Want != seenPending || conflict.Got != want {
		t.Errorf("conflict = %+v; want %+v instead of %+v", conflict, want, seenPending)
	}
}

func TestRetry(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	id := create(t, db, comment{1}, intent.Opts{}).ID
	flag(t, db, id)
	db.Run(t, "UPDATE writ.intents SET deadline_at = now() + interval '1 h' WHERE id = $1", id)
	v := verdict(id, intent.Position{State: "sending", Epoch: 1})
	if _, err := intent.Retry(ctx, db, v); !errors.Is(err, intent.ErrNeedsOverride) || !strings.Contains(err.Error(), "may land") {
		t.Fatalf("Retry before the deadline: %v; want ErrNeedsOverride with its danger", err)
	}
	v.Override, v.NewArgs = "I pulled its plug", json.RawMessage(`{"id": 2}`)
	if got, err := intent.Retry(ctx, db, v); err != nil || got != (intent.Position{State: "pending", Epoch: 2}) {
		t.Fatalf("Retry = %+v, %v", got, err)
	}
	i, err := intent.Get(ctx, db, id)
	if err != nil || string(i.Args) != `{"id": 2}` || i.IdempotencyKey != id.String()+"-1" || i.Attempt != 0 {
		t.Errorf("intent = %+v, %v; want new args under a new key", i, err)
	}
	check(t, db, 1)

	fresh := create(t, db, comment{1}, intent.Opts{}).ID
	fail(t, db, fresh)
	v = verdict(fresh, intent.Position{State: "error", Epoch: 1})
	v.NewArgs = json.RawMessage(`{`)
	if _, err := intent.Retry(ctx, db, v); !errors.Is(err, intent.ErrInvalid) {
		t.Errorf("Retry with bad args: %v; want ErrInvalid", err)
	}
	v.NewArgs, v.NewKey = nil, intent.FreshKey
	if _, err := intent.Retry(ctx, db, v); err != nil {
		t.Fatal(err)
	}
	if i, err := intent.Get(ctx, db, fresh); err != nil || i.IdempotencyKey != fresh.String()+"-1" {
		t.Errorf("key = %s, %v; want generation 1", i.IdempotencyKey, err)
	}
}

// A verdict joins the caller's transaction.
func TestDecide_inTransaction(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	id := create(t, db, comment{1}, intent.Opts{}).ID
	never := errors.New("no")
	err := pgx.BeginFunc(ctx, db.Pool, func(tx pgx.Tx) error {
		if _, err := intent.Cancel(ctx, tx, verdict(id, seenPending)); err != nil {
			return err
		}
		return never
	})
	if !errors.Is(err, never) {
		t.Fatal(err)
	}
	check(t, db, 1)
	if _, err := intent.Cancel(ctx, db, verdict(id, seenPending)); err != nil {
		t.Fatal(err)
	}
	if n := testkit.Value[int](t, db, "SELECT count(*) FROM writ.outbox"); n != 0 {
		t.Error("a cancelled intent still has a hint")
	}
	fail := verdict(id, intent.Position{State: "cancelled"})
	if _, err := intent.GiveUp(ctx, db, fail); !errors.Is(err, intent.ErrIllegal) {
		t.Errorf("GiveUp of a cancelled one: %v; want ErrIllegal", err)
	}
}
