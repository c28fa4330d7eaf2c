package sql_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

// works reports what a claim and a relay get from this database.
func works(t *testing.T, b *bench, id uuid.UUID) (claimed, taken int, due bool) {
	t.Helper()
	got, err := b.store.Claim(ctx, b.worker, []store.Group{{Timeout: time.Minute, IDs: []uuid.UUID{id}}})
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.store.ClaimAgain(ctx, b.worker, store.Hint{ID: id}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if again != nil && len(got) == 0 {
		t.Error("ClaimAgain got what Claim did not")
	}
	inConn(t, b.Pool, func(conn *pgx.Conn) {
		outbox := store.NewOutbox(conn)
		if due, err = outbox.Peek(ctx); err != nil {
			t.Fatal(err)
		}
		rows, err := outbox.Take(ctx, time.Unix(0, 0), time.Now().Add(time.Hour), 10)
		if err != nil {
			t.Fatal(err)
		}
		taken = len(rows.Rows)
		rows.Release(ctx)
	})
	return len(got), taken, due
}

func checkClosed(t *testing.T, b *bench, id uuid.UUID, reason string) {
	t.Helper()
	if testkit.Value[bool](t, b.DB, "SELECT writ.is_open()") {
		t.Error("is_open() is true")
	}
	s, err := b.store.Settings(ctx)
	if err != nil || s.Open || !strings.Contains(s.Reason(), reason) {
		t.Errorf("Settings = %+v (%s), %v; want closed for %q", s, s.Reason(), err, reason)
	}
	if claimed, taken, due := works(t, b, id); claimed != 0 || taken != 0 || due {
		t.Errorf("claimed %d, took %d, due %v; want nothing to run here", claimed, taken, due)
	}
	if why := testkit.Value[string](t, b.DB, "SELECT writ.why($1)", id); !strings.Contains(why, "adopt") && !strings.Contains(why, "paused") {
		t.Errorf("why = %q; it does not say that nothing runs", why)
	}
}

func checkOpen(t *testing.T, b *bench, id uuid.UUID) {
	t.Helper()
	s, err := b.store.Settings(ctx)
	if err != nil || !s.Open || s.Reason() != "" {
		t.Errorf("Settings = %+v (%s), %v; want open", s, s.Reason(), err)
	}
	if claimed, taken, due := works(t, b, id); claimed != 1 || taken != 1 || !due {
		t.Errorf("claimed %d, took %d, due %v; want 1, 1, true", claimed, taken, due)
	}
}

func TestAdopt_whenMoved(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.insert(t, kind)
	installation := testkit.Value[uuid.UUID](t, b.DB, "SELECT installation FROM writ.settings")
	b.Run(t, "UPDATE writ.settings SET fingerprint = '1/00000001/1'")
	checkClosed(t, b, id, "writ adopt")
	refused(t, b.Pool, store.CodeInvalid, "SELECT writ.adopt('ann', 'because')")
	refused(t, b.Pool, store.CodeInvalid, "SELECT writ.adopt('', 'this is the real one now')")
	b.Run(t, "SELECT writ.adopt('ann', 'this is the real one now')")
	checkOpen(t, b, id)
	log := entries(t, b.Pool, uuid.Nil)
	if len(log) != 1 || log[0].Event != "adopted" || log[0].Actor != "ann" || text(log[0].Why) != "this is the real one now" {
		t.Errorf("log = %+v; want who adopted it and why", log)
	}
	refused(t, b.Pool, store.CodeIllegal, "DELETE FROM writ.log WHERE event = 'adopted'")
	if got := testkit.Value[uuid.UUID](t, b.DB, "SELECT installation FROM writ.settings"); got != installation {
		t.Error("adopting changed the installation, and with it all queue names")
	}
}

func TestAdopt_whenPaused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.insert(t, kind)
	b.Run(t, "UPDATE writ.settings SET paused_at = now(), paused_by = 'ann', paused_why = 'the mail server moves'")
	checkClosed(t, b, id, "the mail server moves")
	b.Run(t, "SELECT writ.adopt('ann', 'the mail server has moved')")
	checkClosed(t, b, id, "the mail server moves") // adopting ends no pause
	b.Run(t, "SELECT writ.resume('ann', 'the mail server has moved')")
	checkOpen(t, b, id)
	refused(t, b.Pool, store.CodeIllegal, "SELECT writ.resume('ann', 'the mail server has moved')")
	b.Run(t, "SELECT writ.pause('ann', 'it moves once more today')")
	if why := testkit.Value[string](t, b.DB, "SELECT writ.why($1)", b.insert(t, kind)); !strings.Contains(why, "paused by ann") {
		t.Errorf("why = %q; want who paused it", why)
	}
	var events []string
	for _, e := range entries(t, b.Pool, uuid.Nil) {
		events = append(events, e.Event)
	}
	if diff := cmp.Diff([]string{"adopted", "resumed", "paused"}, events); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

// A copy made in the same cluster is not open, while its original goes on.
func TestClone_isNotOpen(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.insert(t, kind)
	b.Close()
	admin, err := pgx.Connect(ctx, testkit.DatabaseURL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(ctx)
	name := b.Name + "_copy"
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+b.Name); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = admin.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)") }()
	copied := reopen(t, b, testkit.At(t, testkit.DatabaseURL(t), name))
	defer copied.Close()
	checkClosed(t, copied, id, "copy that nobody adopted")
	original := reopen(t, b, b.URL)
	checkOpen(t, original, id)
	original.Close()
	copied.Run(t, "SELECT writ.adopt('ann', 'this is staging, it may run')")
	checkOpen(t, copied, id)
}

// A restore in another cluster, initialised and filled the same way: only the system identifier tells the two apart.
func TestOtherCluster_isNotOpen(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.insert(t, kind)
	flagged := b.insert(t, kind)
	b.claimAs(t, b.worker, flagged, time.Minute)
	b.Run(t, "UPDATE writ.settings SET fingerprint = regexp_replace(fingerprint, '^[^/]+', '1')")
	checkClosed(t, b, id, "copy that nobody adopted")
	_, err := b.store.FinishOne(ctx, b.worker, store.Outcome{ID: flagged, Epoch: 1, Event: store.Succeeded})
	if err == nil || !strings.Contains(err.Error(), "WR006") && !strings.Contains(err.Error(), "copy that nobody adopted") {
		t.Errorf("an outcome was taken: %v", err)
	}
	if seen, err := b.store.Observe(ctx); err != nil || seen.Open {
		t.Errorf("Observe says open %v, %v", seen.Open, err)
	}
	b.Run(t, "SELECT writ.adopt('ann', 'this is the real one now')")
	checkOpen(t, b, id)
}
