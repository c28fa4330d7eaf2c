package sql_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

// While a deployment rolls, kinds holds the class that who started last declared, and other code may be at work. These tests
// have a worker that holds a kind otherwise than it is declared.

// holding signs a worker on that holds a kind as of a class.
func (b *bench) holding(t *testing.T, kind, class string) uuid.UUID {
	t.Helper()
	worker := uuid.New()
	b.beat(t, worker, time.Hour, "test.kind.else", kind)
	b.Run(t, "UPDATE writ.workers SET classes = ARRAY['manual', $2] WHERE id = $1", worker, class)
	return worker
}

// TestProbed_redeclared: the kind was declared otherwise since; what is found settles the row all the same if who asked has a
// probe for it. Who has none is not heard.
func TestProbed_redeclared(t *testing.T) {
	t.Parallel()
	for declared, tests := range map[string][]struct{ holds, finding, want string }{
		"manual": {
			{"probed", store.FoundDone, "happened"},
			{"probed", store.FoundNotDone, "retry"},
			{"probed", store.FoundNothing, "again"},
			{"manual", store.FoundDone, store.ProbeMoved},
			{"", store.FoundDone, store.ProbeMoved},
		},
		"idempotent": {{"probed", store.FoundDone, "happened"}, {"probed", store.FoundNotDone, "retry"}, {"idempotent", store.FoundDone, store.ProbeMoved}},
		"probed":     {{"manual", store.FoundDone, "happened"}, {"", store.FoundDone, "happened"}},
	} {
		for _, tt := range tests {
			t.Run(declared+" over "+tt.holds+" "+tt.finding, func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				kind, id, holder := b.doubt(t)
				b.Run(t, "DELETE FROM writ.workers WHERE id = $1", holder)
				asker := uuid.New() // of an older release: without classes
				b.beat(t, asker, time.Hour, kind)
				if tt.holds != "" {
					asker = b.holding(t, kind, tt.holds)
				}
				b.Run(t, "UPDATE writ.kinds SET class = $2 WHERE name = $1", kind, declared)
				s := store.New(b.Pool)
				asking, err := s.TakeProbe(ctx, store.Hint{ID: id, Epoch: 1, Kind: kind}, time.Minute)
				if err != nil || asking == nil {
					t.Fatalf("TakeProbe: %v, %v", asking, err)
				}
				got, err := s.AnswerProbe(ctx, asker, asking, store.Answer{Finding: tt.finding, Rest: -time.Second, Why: "it looked"})
				if err != nil || got != tt.want {
					t.Errorf("%s, %v; want %s", got, err, tt.want)
				}
			})
		}
	}
}

// TestProbesDue_redeclared: lost hints come again, and askings that nobody planned are planned, as long as a worker lives that has the probe.
func TestProbesDue_redeclared(t *testing.T) {
	t.Parallel()
	b := setup(t)
	kind, id, _ := b.doubt(t)
	b.Run(t, "UPDATE writ.kinds SET class = 'manual' WHERE name = $1", kind)
	s := store.New(b.Pool)
	look := func(what string, hint func() ([]store.Requeued, error), want int) {
		t.Helper()
		if done, err := hint(); err != nil || len(done) != want {
			t.Errorf("%s: %d hints, %v; want %d", what, len(done), err, want)
		}
	}
	due := func() ([]store.Requeued, error) { return s.HintProbesDue(ctx) }
	missing := func() ([]store.Requeued, error) { return s.HintProbesMissing(ctx) }
	look("nobody has a probe", due, 0)
	b.Run(t, "UPDATE writ.intents SET probe_at = NULL WHERE id = $1", id)
	look("nobody has a probe, and none was planned", missing, 0)
	asker := b.holding(t, kind, "probed")
	look("none was planned", missing, 1)
	if line := testkit.Value[string](t, b.DB, "SELECT writ.why($1)", id); !strings.Contains(line, "probe") {
		t.Errorf("why says nothing of its probe: %q", line)
	}
	b.Run(t, "UPDATE writ.intents SET probe_at = now() - interval '1 h' WHERE id = $1", id)
	look("the hint was lost", due, 1)
	b.Run(t, "UPDATE writ.intents SET probe_at = now() - interval '1 h', requeues = 0 WHERE id = $1", id)
	b.Run(t, "UPDATE writ.workers SET heartbeat_at = now() - interval '2 h' WHERE id = $1", asker)
	look("who had the probe is dead", due, 0)
}

// TestQuarantine_redeclared: what may have been run by code that is not idempotent is held, whatever was declared last.
func TestQuarantine_redeclared(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ids := map[string]uuid.UUID{}
	for _, held := range []string{"idempotent", "probed", "manual"} {
		kind := "test.kind.held-" + held
		b.Run(t, "INSERT INTO writ.kinds (name, queue, class) VALUES ($1, 'q', 'idempotent')", kind)
		b.holding(t, kind, "idempotent")
		b.holding(t, kind, held)
		ids[held] = b.insert(t, kind)
	}
	b.Run(t, "UPDATE writ.workers SET heartbeat_at = now() - interval '1 h'") // the database went back in time, they with it
	b.closed(t)
	if q := b.quarantine(t, time.Now().Add(-time.Hour)); q.Flagged != 2 || q.Fenced != 1 {
		t.Errorf("quarantined %+v; want 2 held and 1 run again", q)
	}
	for held, id := range ids {
		is := read(t, b.Pool, id)
		if again := held == "idempotent"; again != (is.State == "pending") || again != (is.FlaggedAt == nil) || (held == "probed") != (is.ProbeAt != nil) {
			t.Errorf("held as %s: it is %s, flagged %v, a probe planned for %v", held, is.State, is.FlaggedAt, is.ProbeAt)
		}
	}
}

// TestRetryDanger_redeclared: what a worker that is not idempotent said to have done is not repeated without a word, whoever calls the kind
// idempotent since.
func TestRetryDanger_redeclared(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const kind = "test.kind.again"
	b.Run(t, "INSERT INTO writ.kinds (name, queue, class) VALUES ($1, 'q', 'idempotent')", kind)
	for held, want := range map[string]string{"idempotent": "", "manual": "its handler said that it was done"} {
		holder := b.holding(t, kind, held)
		id := b.insert(t, kind)
		c := b.claimAs(t, holder, id, -time.Hour)
		b.finishAs(t, holder, c, store.Outcome{Event: store.Flagged, Why: "hook-failed", Error: "the handler says succeeded: no such table"})
		if got := testkit.Value[string](t, b.DB, "SELECT coalesce(writ.said_done(i), '') FROM writ.intents i WHERE id = $1", id); got != want {
			t.Errorf("held as %s: %q; want %q", held, got, want)
		}
	}
}
