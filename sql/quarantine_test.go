package sql_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

var restored = intent.Word{Actor: "ann", Why: "restored from the backup of noon"}

// close makes the database one that nobody adopted, as a restore does.
func (b *bench) closed(t *testing.T) {
	t.Helper()
	b.Run(t, "UPDATE writ.settings SET fingerprint = '1/00000001/1'")
}

func (b *bench) quarantine(t *testing.T, since time.Time) intent.Quarantined {
	t.Helper()
	q, err := intent.Quarantine(ctx, b.Pool, since, restored, nil)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// zoo has an intent of each sort, by name.
func zoo(t *testing.T, b *bench) map[string]uuid.UUID {
	t.Helper()
	b.Run(t, `INSERT INTO writ.kinds (name, queue, class) VALUES ('test.kind.manual', 'q', 'manual'), ('test.kind.probed', 'q', 'probed'), ('test.kind.idempotent', 'q', 'idempotent')`)
	ids := map[string]uuid.UUID{}
	for _, class := range []string{"manual", "probed", "idempotent"} {
		for _, position := range []string{"pending", "sending", "flagged", "sent", "error", "cancelled"} {
			ids[class+" "+position] = b.at(t, "test.kind."+class, position)
		}
		later := testkit.Value[uuid.UUID](t, b.DB, "INSERT INTO writ.intents (kind, run_at) VALUES ($1, now() + interval '1 h') RETURNING id", "test.kind."+class)
		ids[class+" later"] = later
	}
	ids["unheard pending"] = b.insert(t, "test.kind.unheard")
	putOff := b.insert(t, "test.kind.manual") // by a person, since: it may have been run before, in what is lost
	b.Run(t, "UPDATE writ.intents SET run_at = now() + interval '1 h' WHERE id = $1", putOff)
	ids["put off"] = putOff
	ids["waiting"] = b.insert(t, "test.kind.manual")
	b.Run(t, "UPDATE writ.intents SET waiting_on = 1 WHERE id = $1", ids["waiting"])
	hooked := b.at(t, "test.kind.manual", "flagged")
	b.Run(t, "UPDATE writ.intents SET flag_reason = 'hook-failed' WHERE id = $1", hooked)
	ids["hooked"] = hooked
	return ids
}

// TestQuarantine: all that may have been run is held, nothing else is; every open epoch is beyond any that was used; and
// the log tells it of each.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := zoo(t, b)
	before := map[string]row{}
	for name, id := range ids {
		before[name] = read(t, b.Pool, id)
	}
	since := time.Now().Add(-time.Hour)
	b.closed(t)
	q := b.quarantine(t, since)
	held := map[string]bool{
		"manual pending": true, "manual sending": true, "manual flagged": true, "probed pending": true, "probed sending": true,
		"probed flagged": true, "idempotent flagged": true, "unheard pending": true, "put off": true, "waiting": true, "hooked": true,
	}
	if want := (intent.Quarantined{Flagged: int64(len(held)), Fenced: 5, Errors: 3}); q != want {
		t.Errorf("quarantined %+v; want %+v", q, want)
	}
	for name, id := range ids {
		t.Run(name, func(t *testing.T) {
			was, is := before[name], read(t, b.Pool, id)
			if was.FinishedAt != nil {
				if was.State == "error" {
					was.Epoch += 1000 // it may have been retried
				}
				if diff := cmp.Diff(was, is); diff != "" {
					t.Errorf("a finished row was changed:\n%s", diff)
				}
				return
			}
			if is.Epoch != was.Epoch+1000 {
				t.Errorf("epoch %d → %d; want 1000 more", was.Epoch, is.Epoch)
			}
			if holder := testkit.Value[*uuid.UUID](t, b.DB, "SELECT worker_id FROM writ.intents WHERE id = $1", id); holder != nil {
				t.Errorf("held by %v", holder)
			}
			log := entries(t, b.Pool, id)
			last := log[len(log)-1]
			if last.Actor != "ann" || text(last.Why) != restored.Why || last.Evidence["from"] != was.State || last.Epoch != was.Epoch {
				t.Errorf("the log's last word is %+v", last)
			}
			if !held[name] {
				checkFenced(t, b, was, is, last)
				return
			}
			reason := map[bool]string{true: "hook-failed", false: "quarantined"}[name == "hooked"]
			if is.State != "sending" || is.FlaggedAt == nil || text(is.FlagReason) != reason || last.Event != "quarantined" {
				t.Errorf("it is %s, flagged %v for %s, told as %s", is.State, is.FlaggedAt, text(is.FlagReason), last.Event)
			}
			probed := strings.HasPrefix(name, "probed")
			if got := hints(t, b.Pool, id); probed != (len(got) == 1 && got[0].Op == "probe" && got[0].Epoch == is.Epoch) || !probed && len(got) > 0 {
				t.Errorf("hints: %+v; want one for the probe, if it has one", got)
			}
			if owed := is.ProbeAt != nil; owed != probed {
				t.Errorf("a probe is owed: %v", owed)
			}
			why := testkit.Value[string](t, b.DB, "SELECT writ.why($1)", id)
			if name != "hooked" && (!strings.Contains(why, "in quarantine") || !strings.Contains(why, "by ann") || !strings.Contains(why, "Do not retry yet")) {
				t.Errorf("why = %q", why)
			}
		})
	}
	summary := entries(t, b.Pool, uuid.Nil)
	if len(summary) != 1 || summary[0].Event != "quarantined" || summary[0].Evidence["flagged"] != float64(q.Flagged) {
		t.Errorf("the log's summary is %+v", summary)
	}
	if open := testkit.Value[bool](t, b.DB, "SELECT quarantining FROM writ.settings"); open {
		t.Error("the door was left open")
	}
}

// checkFenced: a row that cannot have been run, or may be run again, stands as it was, with a hint for its new epoch.
func checkFenced(t *testing.T, b *bench, was, is row, last entry) {
	t.Helper()
	if is.State != was.State || is.FlaggedAt != nil || !is.RunAt.Equal(was.RunAt) || last.Event != "fenced" {
		t.Errorf("it is %s, flagged %v, told as %s; want it as it was", is.State, is.FlaggedAt, last.Event)
	}
	got := hints(t, b.Pool, is.ID)
	if is.State == "pending" && (len(got) != 1 || got[0].Epoch != is.Epoch || got[0].DueAt.Before(is.RunAt)) {
		t.Errorf("hints %+v; want one for epoch %d at its time", got, is.Epoch)
	}
}

// TestQuarantine_fencesOff: a worker and a hint that are left from what was lost find nothing; a verdict settles the row,
// and it can be claimed again under an epoch that nobody ever had.
func TestQuarantine_fencesOff(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Run(t, "INSERT INTO writ.kinds (name, queue, class) VALUES ($1, 'q', 'manual')", kind)
	running := b.claim(t, b.insert(t, kind), time.Minute)
	waiting := b.insert(t, kind)
	b.closed(t)
	b.quarantine(t, time.Now())
	b.Run(t, "SELECT writ.adopt('ann', 'this is the real one now')")

	fate, err := b.store.FinishOne(ctx, b.worker, store.Outcome{ID: running.ID, Epoch: running.Epoch, Event: store.Succeeded})
	if err != nil || !fate.Late {
		t.Errorf("the old worker's outcome: %+v, %v; want it late", fate, err)
	}
	if log := entries(t, b.Pool, running.ID); log[len(log)-1].Event != "late-report" {
		t.Errorf("the log ends with %+v; want the late report", log[len(log)-1])
	}
	got, err := b.store.Claim(ctx, b.worker, []store.Group{{Timeout: time.Minute, IDs: []uuid.UUID{waiting}}})
	if err != nil || len(got) != 0 {
		t.Errorf("claimed %d by an old hint, %v", len(got), err)
	}
	seen := read(t, b.Pool, waiting)
	refused(t, b.Pool, store.CodeOverride, "SELECT writ.retry($1, 'sending', $2, 'ann', 'the ledger does not have it')", waiting, seen.Epoch)
	b.Run(t, "UPDATE writ.intents SET deadline_at = now() - interval '1 h' WHERE finished_at IS NULL") // time passes
	b.Run(t, "SELECT writ.retry($1, 'sending', $2, 'ann', 'the ledger does not have it')", waiting, seen.Epoch)
	if c := b.claim(t, waiting, time.Minute); c.Epoch <= 1000 {
		t.Errorf("claimed at epoch %d; want one beyond all that were used", c.Epoch)
	}
	seen = read(t, b.Pool, running.ID)
	b.Run(t, "SELECT writ.happened($1, 'sending', $2, 'ann', 'the ledger has it, once')", running.ID, seen.Epoch)
}

// TestQuarantine_raisesErrors: somebody may have retried an error in what was lost; the epochs of that are never used again.
func TestQuarantine_raisesErrors(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Run(t, "INSERT INTO writ.kinds (name, queue, class) VALUES ($1, 'q', 'manual')", kind)
	id := b.at(t, kind, "error")
	was := read(t, b.Pool, id)
	b.closed(t)
	b.quarantine(t, time.Now())
	log := entries(t, b.Pool, id)
	if last := log[len(log)-1]; last.Event != "fenced" || last.Actor != "ann" || last.Epoch != was.Epoch || last.Evidence["new_epoch"] != float64(was.Epoch+1000) {
		t.Errorf("the log's last word is %+v", last)
	}
	b.Run(t, "SELECT writ.adopt('ann', 'this is the real one now')")
	b.Run(t, "SELECT writ.retry($1, 'error', $2, 'ann', 'the ledger does not have it')", id, was.Epoch+1000)
	if c := b.claim(t, id, time.Minute); c.Epoch <= 1000 {
		t.Errorf("claimed at epoch %d; want one beyond all that were used", c.Epoch)
	}
}

// TestQuarantine_isRefused where it would do harm, and leaves nothing behind.
func TestQuarantine_isRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.insert(t, kind)
	before := read(t, b.Pool, id)
	noon := time.Now().Add(-time.Hour)
	for name, tt := range map[string]struct {
		since     time.Time
		word      intent.Word
		code      string
		closeWith string
	}{
		"work goes on":      {noon, restored, store.CodeIllegal, ""},
		"in the future":     {time.Now().Add(time.Hour), restored, store.CodeInvalid, "UPDATE writ.settings SET paused_at = now()"},
		"without a reason":  {noon, intent.Word{Actor: "ann", Why: "because"}, store.CodeInvalid, "UPDATE writ.settings SET paused_at = now()"},
		"since no real day": {time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), restored, store.CodeInvalid, "UPDATE writ.settings SET paused_at = now()"},
	} {
		b.rollback(t, func(tx pgx.Tx) {
			if tt.closeWith != "" {
				if _, err := tx.Exec(ctx, tt.closeWith); err != nil {
					t.Fatal(err)
				}
			}
			t.Log(name)
			refused(t, tx, tt.code, "SELECT writ.quarantine($1, $2, $3)", tt.since, tt.word.Actor, tt.word.Why)
		})
	}
	if diff := cmp.Diff(before, read(t, b.Pool, id)); diff != "" {
		t.Errorf("a refused quarantine changed the row:\n%s", diff)
	}
}

// TestQuarantine_door: what a quarantine may do to a row nobody else may, however they name it.
func TestQuarantine_door(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.at(t, kind, "pending")
	b.at(t, kind, "sending")
	b.at(t, kind, "error")
	for _, set := range []string{
		"epoch = epoch + 1000", "epoch = epoch + 1000, worker_id = NULL",
		"state = 'sending', event = 'quarantined', epoch = epoch + 1000, worker_id = NULL, flagged_at = now(), flag_reason = 'quarantined'",
	} {
		refused(t, b.Pool, store.CodeIllegal, "UPDATE writ.intents SET "+set)
	}
	// Not even with the door open may more be done than a quarantine does.
	for _, set := range []string{
		"epoch = epoch + 1", "epoch = epoch + 1000", // the latter would leave the holder
		"state = 'sending', event = 'quarantined', epoch = epoch + 1000, worker_id = NULL",
		"epoch = epoch + 1000, worker_id = NULL, event = 'made-up'",
		"epoch = epoch + 1000, worker_id = NULL, run_at = now() + interval '1 h'",
	} {
		b.rollback(t, func(tx pgx.Tx) {
			if _, err := tx.Exec(ctx, "UPDATE writ.settings SET quarantining = true"); err != nil {
				t.Fatal(err)
			}
			refused(t, tx, store.CodeIllegal, "UPDATE writ.intents SET "+set+" WHERE state = 'sending' OR $1", !strings.Contains(set, "1000") || strings.Contains(set, "event"))
		})
	}
}

// TestQuarantine_twice: after a lost answer it is done again, and does no harm; two at once come one after the other.
func TestQuarantine_twice(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.insert(t, kind)
	b.closed(t)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if q, err := intent.Quarantine(context.Background(), b.Pool, time.Now().Add(-time.Minute), restored, nil); err != nil || q.Flagged != 1 {
				t.Errorf("%+v, %v; want 1 flagged", q, err)
			}
		})
	}
	wg.Wait()
	if is := read(t, b.Pool, id); is.State != "sending" || is.Epoch != 2000 {
		t.Errorf("%s at epoch %d; want sending at 2000", is.State, is.Epoch)
	}
	if n := len(entries(t, b.Pool, id)); n != 2 {
		t.Errorf("%d log rows; want 2", n)
	}
}

// TestQuarantine_whileClaimed: a claim that was under way when everything was paused is waited for, and held too.
func TestQuarantine_whileClaimed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := b.insert(t, kind)
	tx, err := b.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(ctx) }()
	if _, err := tx.Exec(ctx, "UPDATE writ.intents SET state = 'sending', event = 'attempted', epoch = 1, attempt = 1, worker_id = $2, started_at = now(), deadline_at = now() WHERE id = $1", id, b.worker); err != nil {
		t.Fatal(err)
	}
	if err := intent.Pause(ctx, b.Pool, "", restored); err != nil {
		t.Fatal(err)
	}
	held := make(chan error, 1)
	go func() {
		_, err := intent.Quarantine(ctx, b.Pool, time.Now().Add(-time.Minute), restored, nil)
		held <- err
	}()
	testkit.Until(t, 20*time.Second, "the quarantine waits for the claim", func() (bool, string) {
		n := testkit.Value[int](t, b.DB, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
		return n > 0, "nobody waits"
	})
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-held; err != nil {
		t.Fatal(err)
	}
	if is := read(t, b.Pool, id); is.State != "sending" || is.FlaggedAt == nil || is.Epoch != 1001 {
		t.Errorf("%s, flagged %v, at epoch %d; want it held at 1001", is.State, is.FlaggedAt, is.Epoch)
	}
}

// TestQuarantine_diesInTheMiddle: the server ends its session half-way; nothing was done, and the next one does it all.
func TestQuarantine_diesInTheMiddle(t *testing.T) {
	t.Parallel()
	b := setup(t)
	free, locked := b.insert(t, kind), b.insert(t, kind)
	b.closed(t)
	tx, err := b.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(ctx) }()
	if _, err := tx.Exec(ctx, "SELECT FROM writ.intents WHERE id = $1 FOR UPDATE", locked); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := intent.Quarantine(ctx, b.Pool, time.Now().Add(-time.Minute), restored, nil)
		ended <- err
	}()
	testkit.Until(t, 20*time.Second, "it is in the middle, and dies", func() (bool, string) {
		n := testkit.Value[int](t, b.DB, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%writ.quarantine%'`)
		return n > 0, "nobody waits"
	})
	if err := <-ended; err == nil {
		t.Fatal("it was told that all went well")
	}
	if is := read(t, b.Pool, free); is.State != "pending" || is.Epoch != 0 {
		t.Errorf("%s at epoch %d after a quarantine that died; want nothing done", is.State, is.Epoch)
	}
	if err := tx.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	if q := b.quarantine(t, time.Now().Add(-time.Minute)); q.Flagged != 2 {
		t.Errorf("flagged %d the second time; want 2", q.Flagged)
	}
}
