package sql_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

// last is the newest log entry of an intent.
func (b *bench) last(t *testing.T, id uuid.UUID) entry {
	t.Helper()
	log := entries(t, b.Pool, id)
	if len(log) == 0 {
		t.Fatalf("nothing is in the log of %s", id)
	}
	return log[len(log)-1]
}

// danger is why a retry of an intent needs an override; empty: it needs none.
func (b *bench) danger(t *testing.T, id uuid.UUID) string {
	t.Helper()
	return testkit.Value[string](t, b.DB, "SELECT coalesce(writ.retry_danger(i), '') FROM writ.intents i WHERE id = $1", id)
}

// lately lets the holder of an attempt speak when a verdict has come first, and returns what that means beside it.
func (b *bench) lately(t *testing.T, id uuid.UUID, epoch int32, event, why string) string {
	t.Helper()
	fate, err := b.store.FinishOne(ctx, b.worker, store.Outcome{ID: id, Epoch: epoch, Event: event, Why: why})
	if err != nil || !fate.Late {
		t.Fatalf("late finish: %+v, %v", fate, err)
	}
	return fate.Meaning
}

const retrySQL = "SELECT writ.retry($1, $2, $3, 'ann', 'it looked undone to me', NULL, $4)"

// TestRetry_knownDone: whoever retries what is said to have been done says that he knows. Such a word moves neither state nor
// epoch, so a position that was seen before it still fits.
func TestRetry_knownDone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Run(t, "INSERT INTO writ.kinds (name, queue, class) VALUES ('test.kind.again', 'q', 'idempotent')")
	hook := func(kind, known string) uuid.UUID {
		id := b.insert(t, kind)
		c := b.claim(t, id, -time.Hour)
		b.Run(t, "UPDATE writ.intents SET flagged_at = now(), flag_reason = 'worker-died' WHERE id = $1", id) // frozen
		b.finish(t, c, store.Outcome{Event: store.Flagged, Why: "hook-failed", Error: known + "; its hook failed 5 times: no such table"})
		return id
	}
	givenUp := func(kind, event string) uuid.UUID {
		id := b.at(t, kind, "flagged")
		b.Run(t, "SELECT writ.give_up($1, 'sending', 1, 'ann', 'nobody can tell any more')", id)
		b.lately(t, id, 1, event, "stopped")
		return id
	}
	abandoned := hook(kind, "the handler says done")
	b.Run(t, "SELECT writ.give_up($1, 'sending', 1, 'ann', 'nobody can tell any more')", abandoned)
	for name, tt := range map[string]struct {
		id     uuid.UUID
		danger string
	}{
		"its hook failed":                      {hook(kind, "the handler says done"), "its handler said that it was done"},
		"its hook failed, given up since":      {abandoned, "its handler said that it was done"},
		"its OnError failed":                   {hook(kind, "the handler says failed: refused"), ""},
		"a late report says done":              {givenUp(kind, store.Succeeded), "a late report says that it was done"},
		"a late report says not done":          {givenUp(kind, store.Failed), ""},
		"done, says a late report, idempotent": {givenUp("test.kind.again", store.Succeeded), ""},
	} {
		b.Run(t, "UPDATE writ.workers SET heartbeat_at = now() - interval '2 h'") // only what is known counts here
		got := read(t, b.Pool, tt.id)
		if danger := b.danger(t, tt.id); danger != tt.danger {
			t.Errorf("%s: danger %q; want %q", name, danger, tt.danger)
		}
		why := testkit.Value[string](t, b.DB, "SELECT writ.why($1)", tt.id)
		if tt.danger == "" {
			b.Run(t, retrySQL, tt.id, got.State, got.Epoch, nil)
			continue
		}
		if !strings.Contains(why, "A retry needs an override: "+tt.danger) {
			t.Errorf("%s: why says %q", name, why)
		}
		refused(t, b.Pool, store.CodeOverride, retrySQL, tt.id, got.State, got.Epoch, nil)
		refused(t, b.Pool, store.CodeOverride, "UPDATE writ.intents SET state = 'pending' WHERE id = $1", tt.id)
		b.Run(t, retrySQL, tt.id, got.State, got.Epoch, "the provider has rolled it back")
	}
}

// TestRetry_handSetReason: a reason of the engine that a person wrote says nothing about the handler.
func TestRetry_handSetReason(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, reason := range []string{"unknown", "timeout", "panic", "cancelled", "hook-failed"} {
		id := b.insert(t, kind)
		c := b.claim(t, id, -time.Hour)
		b.Run(t, "UPDATE writ.intents SET flagged_at = now(), flag_reason = $2 WHERE id = $1", id, reason)
		held := func(what string) {
			if got := b.danger(t, id); !strings.Contains(got, "its worker is alive") {
				t.Errorf("%s, set by hand, %s: danger %q; want that its worker lives", reason, what, got)
			}
			if got := testkit.Value[string](t, b.DB, "SELECT coalesce(writ.probe_danger(i), '') FROM writ.intents i WHERE id = $1", id); got == "" {
				t.Errorf("%s, set by hand, %s: its probe would be believed", reason, what)
			}
		}
		held("while it runs")
		b.finish(t, c, store.Outcome{Event: store.Flagged, Why: "overdue"})
		held("when it is overdue")
		b.finish(t, c, store.Outcome{Event: store.Flagged, Why: "panic"})
		if got := b.danger(t, id); strings.Contains(got, "alive") {
			t.Errorf("its worker said that the handler returned, and still: %s", got)
		}
		b.Run(t, "SELECT writ.give_up($1, 'sending', 1, 'ann', 'nobody can tell any more')", id)
		if got := b.danger(t, id); strings.Contains(got, "alive") {
			t.Errorf("given up: %s", got)
		}
	}
}

// TestSucceeded_afterFlag: a success that takes a flag away is in the log, and a probe that says otherwise finds it there.
// A plain one writes nothing.
func TestSucceeded_afterFlag(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Run(t, "INSERT INTO writ.kinds (name, queue, class) VALUES ('test.kind.asked', 'q', 'probed')")
	plain := b.at(t, kind, "sent")
	if log := entries(t, b.Pool, plain); len(log) != 0 {
		t.Errorf("a plain success wrote %+v", log)
	}
	for finding, want := range map[string]string{store.FoundNotDone: store.Contradicts, store.FoundDone: store.Confirms} {
		for _, how := range []string{"alone", "in a batch"} {
			id := b.insert(t, "test.kind.asked")
			c := b.claim(t, id, time.Minute)
			b.Run(t, "UPDATE writ.intents SET started_at = now() - interval '3 h', deadline_at = now() - interval '2 h' WHERE id = $1", id)
			b.finish(t, c, store.Outcome{Event: store.Flagged, Why: "overdue", Probe: true})
			asking, err := b.store.TakeProbe(ctx, store.Hint{ID: id, Epoch: 1, Kind: "test.kind.asked"}, time.Minute)
			if err != nil || asking == nil {
				t.Fatalf("TakeProbe: %v, %v", asking, err)
			}
			if how == "alone" {
				b.finish(t, c, store.Outcome{Event: store.Succeeded})
			} else if left, err := b.store.FinishBatch(ctx, b.worker, []store.Outcome{{ID: id, Epoch: 1, Event: store.Succeeded}}); err != nil || len(left) > 0 {
				t.Fatalf("FinishBatch: %v, %v", left, err)
			}
			if got := b.last(t, id); got.Event != "succeeded" || got.Actor != "worker" || got.Epoch != 1 || got.Evidence["flag"] != "overdue" {
				t.Errorf("%s: the log ends with %+v; want the success, and the flag that it ended", how, got)
			}
			result, err := b.store.AnswerProbe(ctx, uuid.New(), asking, store.Answer{Finding: finding, Rest: -time.Second, Why: "it looked"})
			if err != nil || result != want {
				t.Errorf("%s: its probe says %s: %q, %v; want %s", how, finding, result, err, want)
			}
			if got := b.last(t, id); got.Event != "late-report" || got.Actor != "probe" {
				t.Errorf("%s: the log ends with %+v; want what its probe said", how, got)
			}
			told := 0
			for _, e := range b.timeline(t, id) {
				if e == "succeeded" {
					told++
				}
			}
			if told != 1 {
				t.Errorf("%s: the timeline tells of %d successes", how, told)
			}
		}
	}
}

func (b *bench) timeline(t *testing.T, id uuid.UUID) (events []string) {
	t.Helper()
	all, err := intent.Timeline(ctx, b.Pool, id)
	must(t, "Timeline", err)
	for _, e := range all {
		events = append(events, e.Event)
	}
	return events
}

// TestLateReport_afterQuarantine: what a worker from before says is compared with the verdict on what was held for it, however
// often that was raised, and needs an override before there is one.
func TestLateReport_afterQuarantine(t *testing.T) {
	t.Parallel()
	b := setup(t)
	quarantine := func() {
		b.Run(t, "UPDATE writ.settings SET fingerprint = 'elsewhere'")
		b.Run(t, "SELECT writ.quarantine(now() - interval '1 h', 'ann', 'restored from the backup')")
		b.Run(t, "SELECT writ.adopt('ann', 'this is the real one now')")
	}
	busy, waiting, early := b.insert(t, kind), b.insert(t, kind), b.insert(t, kind)
	b.claim(t, busy, -time.Hour)
	quarantine()
	b.Run(t, "SELECT writ.retry($1, 'sending', 1001, 'ann', 'it is not in the ledger', NULL, 'all were stopped')", busy)
	// A claim that is lost: the row was pending at epoch 0, and its attempt had epoch 1.
	b.Run(t, "SELECT writ.happened($1, 'sending', 1000, 'ann', 'it is in the ledger')", waiting)
	if got := b.lately(t, early, 1, store.Succeeded, ""); got != "neither" {
		t.Errorf("before a verdict: %s", got)
	}
	if got := b.danger(t, early); !strings.Contains(got, "a late report says that it was done") {
		t.Errorf("danger %q; want what the late report says", got)
	}
	quarantine()
	b.Run(t, "SELECT writ.give_up($1, 'sending', 2000, 'ann', 'nobody can tell any more')", early)
	for name, tt := range map[string]struct {
		id      uuid.UUID
		event   string
		meaning string
	}{
		"done, retried":               {busy, store.Succeeded, store.Contradicts},
		"done, happened":              {waiting, store.Succeeded, store.Confirms},
		"not done, given up":          {early, store.Failed, store.Confirms},
		"not done, happened by a lie": {waiting, store.Failed, store.Contradicts},
	} {
		if got := b.lately(t, tt.id, 1, tt.event, "stopped"); got != tt.meaning {
			t.Errorf("%s: %s; want %s", name, got, tt.meaning)
		}
	}
}

// TestLateReport_whenSettled: a flag that comes after the outcome of the same attempt is no late report, nor is one of a row
// that is gone: what is known of it went with it.
func TestLateReport_whenSettled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	overdue := store.Outcome{Epoch: 1, Event: store.Flagged, Why: "overdue"}
	for _, position := range []string{"sent", "error"} {
		overdue.ID = b.at(t, kind, position)
		before := len(entries(t, b.Pool, overdue.ID))
		if fate, err := b.store.FinishOne(ctx, b.worker, overdue); err != nil || fate.Late {
			t.Errorf("%s: %+v, %v; want nothing to report", position, fate, err)
		}
		if log := entries(t, b.Pool, overdue.ID); len(log) != before {
			t.Errorf("%s: the log says %+v", position, log)
		}
	}
	gone := overdue.ID
	prune := login(t, b.DB, "writ_relay")
	for _, sql := range []string{"DELETE FROM writ.intents WHERE id = $1", "DELETE FROM writ.log WHERE intent_id = $1"} {
		_, err := prune.Exec(ctx, sql, gone)
		must(t, sql, err)
	}
	fate, err := b.store.FinishOne(ctx, b.worker, store.Outcome{ID: gone, Epoch: 1, Event: store.Succeeded})
	if err != nil || !fate.Late || fate.State != "missing" {
		t.Errorf("of a row that is gone: %+v, %v", fate, err)
	}
	if log := entries(t, b.Pool, gone); len(log) != 0 {
		t.Errorf("a log without its intent: %+v", log)
	}
	if got := testkit.Value[string](t, b.DB, "SELECT writ.why_missing($1)", gone); strings.Contains(got, "by hand") {
		t.Errorf("why says %q", got)
	}
}
