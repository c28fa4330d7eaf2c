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

type maker = func(t *testing.T, b *bench) uuid.UUID

// furnish adds kinds and workers that stand for one reason each.
func furnish(t *testing.T, b *bench) {
	t.Helper()
	b.Run(t, `INSERT INTO writ.kinds (name, queue, class) VALUES ('bank.transfer.send', 'bank', 'probed'), ('bank.transfer.check', 'bank', 'probed'),
		('web.page.fetch', 'gone', 'manual'), ('web.page.render', 'render', 'manual'), ('web.page.store', 'store', 'manual')`)
	b.Run(t, "INSERT INTO writ.relay (queue, ready) VALUES ('gone', NULL), ('render', 3), ('store', 0)")
	for _, k := range []string{"web.page.fetch", "web.page.render", "web.page.store"} {
		b.beat(t, uuid.New(), time.Hour, k)
	}
	b.Run(t, "UPDATE writ.workers SET running = 1, stuck = 1 WHERE 'web.page.render' = ANY (kinds)")
	b.Run(t, "UPDATE writ.workers SET draining = true WHERE 'web.page.fetch' = ANY (kinds)")
}

// moreScenes are those of probes, of late truth, and of who has to do something.
func moreScenes(after func(maker, ...string) maker, flagged func(*uuid.UUID, time.Duration, string, string) maker, with func(string) maker, running maker) []scene {
	const published = "DELETE FROM writ.outbox WHERE intent_id = $1"
	probed := func(kind string) maker {
		return func(t *testing.T, b *bench) uuid.UUID {
			t.Helper()
			id := b.insert(t, kind)
			b.finish(t, b.claim(t, id, -time.Hour), store.Outcome{Event: store.Flagged, Why: "timeout", Error: "context deadline exceeded", Probe: true})
			return id
		}
	}
	of := func(kind string) maker {
		return func(t *testing.T, b *bench) uuid.UUID { t.Helper(); return b.insert(t, kind) }
	}
	handedBack := func(why string) maker {
		return func(t *testing.T, b *bench) uuid.UUID {
			t.Helper()
			id := b.insert(t, kind)
			b.finish(t, b.claim(t, id, time.Minute), store.Outcome{Event: store.Retried, Free: true, Why: why, Delay: time.Hour})
			return id
		}
	}
	// late lets the worker speak after a verdict.
	late := func(verdict, event string) maker {
		return func(t *testing.T, b *bench) uuid.UUID {
			t.Helper()
			id := b.insert(t, kind)
			c := b.claim(t, id, -time.Hour)
			b.finish(t, c, store.Outcome{Event: store.Flagged, Why: "overdue"})
			b.Run(t, "SELECT writ."+verdict+"($1, 'sending', 1, 'ann', 'seen in the mail log'"+map[string]string{"retry": ", NULL, 'it cannot land'"}[verdict]+")", id)
			fate, err := b.store.FinishOne(ctx, b.worker, store.Outcome{ID: id, Epoch: c.Epoch, Event: event, Why: "late", Error: "said late"})
			if err != nil || !fate.Late {
				t.Fatalf("late finish: %+v, %v", fate, err)
			}
			return id
		}
	}
	return []scene{
		{"scheduled, snoozed", "scheduled", handedBack("snoozed")},
		{"scheduled, claimed too late", "scheduled", handedBack("claimed too late to begin")},
		{"ready, sent back by a person", "ready", after(with("error"), "SELECT writ.retry($1, 'error', 1, 'ann', 'the address is corrected')")},
		{"ready, queue gone, workers shutting down", "ready", after(of("web.page.fetch"), published)},
		{"ready, all slots taken", "ready", after(of("web.page.render"), published)},
		{"ready, hint lost", "ready", after(of("web.page.store"), published)},
		{"running, its worker has stuck handlers", "running", func(t *testing.T, b *bench) uuid.UUID {
			t.Helper()
			id := b.insert(t, "web.page.render")
			b.claimAs(t, testkit.Value[uuid.UUID](t, b.DB, "SELECT id FROM writ.workers WHERE stuck > 0"), id, -time.Hour)
			return id
		}},
		{"ambiguous, probe later", "ambiguous", after(probed("bank.transfer.send"), "UPDATE writ.intents SET probe_at = now() + interval '2 m', probes = 2 WHERE id = $1")},
		{"ambiguous, probe never asked", "ambiguous", after(probed("bank.transfer.send"), "UPDATE writ.intents SET probe_at = now() + interval '20 s' WHERE id = $1")},
		{"ambiguous, probe under way", "ambiguous", probed("bank.transfer.send")},
		{"ambiguous, probe due, no worker", "ambiguous", after(probed("bank.transfer.check"), "UPDATE writ.intents SET probe_at = now() - interval '1 h', probes = 1 WHERE id = $1")},
		{"ambiguous, probe spent", "ambiguous", after(probed("bank.transfer.send"), "UPDATE writ.intents SET probe_at = NULL, probes = 5 WHERE id = $1")},
		{"ambiguous, quarantined", "ambiguous", after(flagged(nil, -time.Hour, "quarantined", ""), "UPDATE writ.intents SET worker_id = NULL, started_at = NULL WHERE id = $1")},
		{"sent, late report agrees", "sent", late("happened", store.Succeeded)},
		{"sent, late report contradicts", "sent", late("happened", store.Failed)},
		{"error, late report contradicts", "error", late("give_up", store.Succeeded)},
		{"ready, late report contradicts", "ready", late("retry", store.Succeeded)},
		{"error, late report cannot tell", "error", late("give_up", store.Flagged)},
		{"error, recovery owed, no worker", "error", func(t *testing.T, b *bench) uuid.UUID {
			t.Helper()
			id := b.at(t, "bank.transfer.check", "error")
			b.Run(t, "UPDATE writ.intents SET probe_at = now() WHERE id = $1", id)
			return id
		}},
	}
}

// otherWorlds are the words where something is so for all: each is changed, asked about and changed back.
func otherWorlds(t *testing.T, b *bench, ids map[string]uuid.UUID) string {
	t.Helper()
	var got strings.Builder
	for _, world := range []struct {
		name, begin, end string
		scenes           []string
	}{
		{
			"everything is paused", "UPDATE writ.settings SET paused_at = now(), paused_by = 'eve', paused_why = 'maintenance of the provider'",
			"UPDATE writ.settings SET paused_at = NULL, paused_by = NULL, paused_why = NULL",
			[]string{"ready, in the outbox", "ready, with the broker", "ready, hint lost", "scheduled", "running, worker dead"},
		},
		{
			"its queue is paused", `INSERT INTO writ.queues SELECT DISTINCT queue, now(), 'eve', 'the provider is down' FROM writ.kinds`, "DELETE FROM writ.queues",
			[]string{"ready, with the broker", "scheduled"},
		},
		{
			"its breaker is open", `UPDATE writ.kinds SET breaker = '{}'; INSERT INTO writ.breakers (kind, state, until, why) SELECT name, 'open', now() + interval '20 s', '12 of 20 attempts within 30 s failed' FROM writ.kinds`,
			"DELETE FROM writ.breakers",
			[]string{"ready, with the broker"},
		},
		{
			"its breaker is half-open", `UPDATE writ.kinds SET breaker = '{}'; INSERT INTO writ.breakers (kind, state, holder, lease_until) SELECT name, 'half-open', (SELECT id FROM writ.workers WHERE host = 'web-1' ORDER BY id LIMIT 1), now() FROM writ.kinds`,
			"DELETE FROM writ.breakers",
			[]string{"ready, with the broker"},
		},
		{
			"the database is a copy", "UPDATE writ.settings SET fingerprint = 'elsewhere/1/1'", "UPDATE writ.settings SET fingerprint = writ.fingerprint()",
			[]string{"ready, in the outbox", "running, worker dead"},
		},
		{
			"no relay runs", "UPDATE writ.relay SET seen_at = now() - interval '1 h'", "UPDATE writ.relay SET seen_at = now()",
			[]string{"ready, in the outbox", "ready, with the broker"},
		},
		{
			"a reconciler runs", "INSERT INTO writ.leader VALUES ('reconciler', writ.uuid_v7(), now(), '1 h')", "DELETE FROM writ.leader",
			[]string{"ready, hint lost", "ready, queue gone, workers shutting down", "running, worker dead"},
		},
		{
			"many wait before it", `INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) SELECT now() - interval '3 d', 'a.b.c', writ.uuid_v7(), 0, 'run' FROM generate_series(1, 1500)`,
			"DELETE FROM writ.outbox WHERE kind = 'a.b.c'",
			[]string{"ready, in the outbox"},
		},
	} {
		b.Run(t, world.begin)
		for _, name := range world.scenes {
			id, ok := ids[name]
			if !ok {
				t.Fatalf("no scene %q", name)
			}
			fmt.Fprintf(&got, "# %s, while %s\n%s\n\n", name, world.name, steady(testkit.Value[string](t, b.DB, "SELECT writ.why($1)", id)))
		}
		b.Run(t, world.end)
	}
	return got.String()
}

// steady replaces what differs from run to run.
func steady(line string) string {
	for _, v := range volatile {
		line = v.pattern.ReplaceAllString(line, v.with)
	}
	return line
}

func TestWhy_whenMissing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.settled(t)
	id := uuid.Must(uuid.NewV7())
	old := "01890000-0000-7000-8000-000000000001" // of June 2023
	if got := testkit.Value[*string](t, b.DB, "SELECT writ.why($1)", id); got != nil {
		t.Errorf("why = %q; want null", *got)
	}
	deleted := b.at(t, kind, "error")
	b.Run(t, "SELECT writ.cancel($1, 'error', 1, 'ann', 'not wanted any more')", deleted)
	b.Run(t, "DELETE FROM writ.intents WHERE id = $1", deleted)
	for name, want := range map[string]string{
		id.String():         "rolled back, is not committed yet, or went to another database",
		old:                 "may have been done and pruned with its log",
		uuid.New().String(): "nothing can be told from the id",
		uuid.Nil.String():   "nothing can be told from the id",
		deleted.String():    "deleted by hand; its log ends SECONDS ago with cancel by ann (not wanted any more)",
	} {
		got := testkit.Value[string](t, b.DB, "SELECT writ.why_missing($1)", name)
		if !strings.Contains(steady(got), want) || !strings.HasPrefix(got, "there is no intent "+name) {
			t.Errorf("%s: %s; want it to say %q", name, got, want)
		}
	}
}
