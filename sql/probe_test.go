package sql_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

// doubt makes a probed kind and an overdue attempt of it, long past deadline + settle, held by a worker that beats.
func (b *bench) doubt(t *testing.T) (kind string, id, holder uuid.UUID) {
	t.Helper()
	kind, holder = "test.kind.asked", uuid.New()
	b.Run(t, "INSERT INTO writ.kinds (name, queue, class) VALUES ($1, 'q', 'probed')", kind)
	b.beat(t, holder, time.Minute, kind)
	id = b.insert(t, kind)
	b.claimAs(t, holder, id, time.Minute)
	b.Run(t, `UPDATE writ.intents SET started_at = now() - interval '3 h', deadline_at = now() - interval '2 h',
		flagged_at = now() - interval '1 h', flag_reason = 'overdue', probe_at = now() - interval '1 h' WHERE id = $1`, id)
	return kind, id, holder
}

// TestProbed_heldWhenAsked: the holder was at it when the probe looked, and is gone when its answer comes. What was not there
// then may be there now, so it says nothing; asked again, it does.
func TestProbed_heldWhenAsked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	kind, id, holder := b.doubt(t)
	s := store.New(b.Pool)
	answer := func(change string) string {
		asking, err := s.TakeProbe(ctx, store.Hint{ID: id, Epoch: 1, Kind: kind}, time.Minute)
		if err != nil || asking == nil {
			t.Fatalf("TakeProbe: %v, %v", asking, err)
		}
		b.Run(t, change)
		result, err := s.AnswerProbe(ctx, uuid.New(), asking, store.Answer{Finding: store.FoundNotDone, Rest: -time.Second, Why: "it is not there"})
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	if got := answer("DELETE FROM writ.workers WHERE id = '" + holder.String() + "'"); got != store.ProbeHeld {
		t.Errorf("asked while its worker lived: %s; want held", got)
	}
	b.Run(t, "UPDATE writ.intents SET probe_at = now() WHERE id = $1", id)
	if got := answer("SELECT 1"); got != "retry" {
		t.Errorf("asked when its worker was gone: %s; want retry", got)
	}
}

// TestProbed_pausedDatabase: after a pause of the database every heartbeat looks old; a worker is out only when a reconciler
// found it dead.
func TestProbed_pausedDatabase(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, id, holder := b.doubt(t)
	danger := func() string {
		return testkit.Value[string](t, b.DB, "SELECT coalesce(writ.probe_danger(i), '') FROM writ.intents i WHERE id = $1", id)
	}
	b.Run(t, "UPDATE writ.workers SET heartbeat_at = now() - interval '1 h' WHERE id = $1", holder)
	if danger() == "" {
		t.Error("a worker whose heartbeat is old is taken for dead")
	}
	b.Run(t, "UPDATE writ.workers SET swept_at = now() WHERE id = $1", holder)
	if got := danger(); got != "" {
		t.Errorf("its worker was found dead: %s", got)
	}
}

// TestProbed_known: what is known, or has no probe, is not settled by one.
func TestProbed_known(t *testing.T) {
	t.Parallel()
	b := setup(t)
	kind, id, _ := b.doubt(t)
	s := store.New(b.Pool)
	asking, err := s.TakeProbe(ctx, store.Hint{ID: id, Epoch: 1, Kind: kind}, time.Minute)
	if err != nil || asking == nil {
		t.Fatalf("TakeProbe: %v, %v", asking, err)
	}
	say := func(finding string) string {
		result, err := s.AnswerProbe(ctx, uuid.New(), asking, store.Answer{Finding: finding, Rest: -time.Second, Why: "it looked"})
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	b.Run(t, "UPDATE writ.intents SET flag_reason = 'hook-failed' WHERE id = $1", id)
	for _, finding := range []string{store.FoundDone, store.FoundNotDone, store.FoundNothing} {
		if got := say(finding); got != store.ProbeMoved { // a person must see to the application's share
			t.Errorf("its handler's word is known, and %s was found: %s", finding, got)
		}
	}
	b.Run(t, "UPDATE writ.kinds SET class = 'manual' WHERE name = $1", kind)
	if got := say(store.FoundDone); got != store.ProbeMoved {
		t.Errorf("a kind without a probe: %s", got)
	}
}

// TestProbesDue_once: a row that is long overdue gets one hint, not one for each doubling since.
func TestProbesDue_once(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.doubt(t)
	s := store.New(b.Pool)
	for turn, want := range []int{1, 0, 0} {
		if done, err := s.HintProbesDue(ctx); err != nil || len(done) != want {
			t.Errorf("turn %d: %d hints, %v; want %d", turn+1, len(done), err, want)
		}
	}
}

// TestProbe_isNotForged: a login signs as a probe neither by what its statement says, nor by what it writes into the log.
func TestProbe_isNotForged(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for role, sql := range map[string]string{
		"writ_operator": "PERFORM writ.retry('%s', 'sending', 1, 'mallory', 'a reason that is long enough', NULL, 'it has ended')",
		"writ_creator":  "PERFORM writ.cancel('%s', 'pending', 0, 'mallory', 'a reason that is long enough')",
		"writ_worker":   "PERFORM writ.cancel('%s', 'pending', 0, 'mallory', 'a reason that is long enough')",
		"writ_relay":    "UPDATE writ.intents SET state = 'sent' WHERE id = '%s'",
	} {
		position, before := "pending", 0
		if role == "writ_operator" || role == "writ_relay" {
			position, before = "flagged", 1
		}
		id := b.at(t, kind, position)
		pool := login(t, b.DB, role)
		if _, err := pool.Exec(ctx, "DO $$ BEGIN "+fmt.Sprintf(sql, id)+"; /* writ.probed(uuid,integer, */ END $$"); err != nil {
			t.Fatalf("%s: %v", role, err)
		}
		log := entries(t, b.Pool, id)[before:]
		if len(log) != 1 || log[0].Actor == "probe" {
			t.Errorf("%s: the log says %+v; want one entry, and not by a probe", role, log)
		}
		if position == "pending" || role == "writ_relay" {
			continue
		}
		if got := read(t, b.Pool, id); got.Attempt != 0 {
			t.Errorf("%s: attempt %d after a person's retry; it begins anew", role, got.Attempt)
		}
	}
	for _, role := range []string{"writ_worker", "writ_relay"} {
		pool := login(t, b.DB, role)
		for _, event := range []string{"happened", "retry", "give-up", "probed"} {
			refused(t, pool, denied, "INSERT INTO writ.log (intent_id, epoch, event, actor) VALUES (writ.uuid_v7(), 1, $1, 'probe')", event)
		}
	}
}

// TestProbe_isNobody: no person decides by the name of the probe, and so past the audit.
func TestProbe_isNobody(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, id, _ := b.doubt(t)
	refused(t, b.Pool, store.CodeInvalid, "SELECT writ.happened($1, 'sending', 1, 'probe', 'nobody sees who I am')", id)
	tx, err := b.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(ctx) // after the commit: nothing
	for _, sql := range []string{
		"SET LOCAL writ.actor = 'probe'", "SET LOCAL writ.probe = 'on'",
		"UPDATE writ.intents SET state = 'sent' WHERE id = '" + id.String() + "'",
	} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if log := entries(t, b.Pool, id); len(log) == 0 || log[len(log)-1].Actor == "probe" {
		t.Errorf("the log says %+v", log)
	}
}

// TestWhy_probeHindered: why says what keeps the probe of an ambiguous row from being asked, and what it said that does not count.
func TestWhy_probeHindered(t *testing.T) {
	t.Parallel()
	b := setup(t)
	kind, id, holder := b.doubt(t)
	says := func(wants ...string) {
		t.Helper()
		why := testkit.Value[string](t, b.DB, "SELECT writ.why($1)", id)
		for _, want := range wants {
			if !strings.Contains(why, want) {
				t.Errorf("why = %q; want %q", why, want)
			}
		}
	}
	b.Run(t, "INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) VALUES (now(), $1, $2, 1, 'probe')", kind, id)
	says("no relay runs to send its hint (writ run)", "no reconciler runs to send its hint again (writ run)", "Mend that, or look")
	b.Run(t, "UPDATE writ.kinds SET paused_at = now(), paused_by = 'eve', paused_why = 'out of paper' WHERE name = $1", kind)
	says("kind " + kind + " is paused by eve (out of paper)")
	b.Run(t, "UPDATE writ.kinds SET paused_at = NULL WHERE name = $1", kind)
	b.Run(t, "SELECT writ.pause('ann', 'the mail server moves')")
	says("everything is paused by ann (the mail server moves)")
	b.Run(t, "UPDATE writ.kinds SET class = 'manual' WHERE name = $1", kind)
	says("Besides, everything is paused by ann")
	b.Run(t, "UPDATE writ.kinds SET class = 'probed' WHERE name = $1", kind)
	b.Run(t, "SELECT writ.resume('ann', 'the mail server has moved')")

	s := store.New(b.Pool)
	asking, err := s.TakeProbe(ctx, store.Hint{ID: id, Epoch: 1, Kind: kind}, time.Minute)
	if err != nil || asking == nil {
		t.Fatalf("TakeProbe: %v, %v", asking, err)
	}
	result, err := s.AnswerProbe(ctx, holder, asking, store.Answer{Finding: store.FoundNotDone, Rest: -time.Second, Pause: time.Minute, Why: "it is not in the log"})
	if err != nil || result != store.ProbeHeld {
		t.Fatalf("AnswerProbe: %s, %v", result, err)
	}
	says("it said: it is not in the log, which does not count while its worker is alive")
}
