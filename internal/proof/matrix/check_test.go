package matrix

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/fsm"
	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

// history keeps every version of every row, as it is committed.
const history = `
CREATE SCHEMA matrix;
CREATE TABLE matrix.history (n bigint GENERATED ALWAYS AS IDENTITY, id uuid, state text, event text, epoch int, attempt int, worker uuid, flagged boolean);
CREATE FUNCTION matrix.keep_history() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
	INSERT INTO matrix.history (id, state, event, epoch, attempt, worker, flagged)
	VALUES (NEW.id, NEW.state, NEW.event, NEW.epoch, NEW.attempt, NEW.worker_id, NEW.flagged_at IS NOT NULL);
	RETURN NULL;
END $$;
CREATE TRIGGER keep_history AFTER INSERT OR UPDATE ON writ.intents FOR EACH ROW EXECUTE FUNCTION matrix.keep_history();
ALTER TABLE writ.intents ADD CONSTRAINT times CHECK ((finished_at IS NULL) = (state IN ('pending', 'sending'))
	AND (failed_at IS NOT NULL) = (state = 'error') AND (flagged_at IS NULL OR state = 'sending'));
CREATE TABLE matrix.receipts (id uuid, epoch int)`

// version is a row as it was.
type version struct {
	State, Event   string
	Epoch, Attempt int
	Worker         *uuid.UUID
	Flagged        bool
}

// claimed reports whether a claim of the same intent, epoch and worker is committed.
func (w *world) claimed(e entry) bool {
	var yes bool
	err := w.db.QueryRow(context.Background(), "SELECT EXISTS (SELECT FROM matrix.history WHERE id = $1 AND epoch = $2 AND worker = $3 AND state = 'sending')",
		e.ID, e.Epoch, e.Worker).Scan(&yes)
	return err == nil && yes
}

// end is how an intent must stand when all is over.
type end struct {
	status   string
	starts   int      // of handlers
	effects  int      // in the outside world
	log      []string // events, in order
	receipts int
	late     string // what its late reports mean beside the word that came first
}

// restsAt waits until the world is at rest and the intent stands as it must, replays every hint that there may ever have
// been, stops all parts, and then checks everything.
func (w *world) restsAt(id intent.ID, want end) {
	w.t.Helper()
	w.restAt(map[intent.ID]end{id: want})
}

// restAt is restsAt for several intents.
func (w *world) restAt(wants map[intent.ID]end) {
	w.t.Helper()
	w.rest(wants)
	for id := range wants {
		// A doubled or late message is harmless: hints of every epoch come again, but for those that a quarantine left out.
		w.db.Run(w.t, `INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op)
			SELECT now(), kind, id, e, op FROM writ.intents, generate_series(0, epoch) e, unnest('{run,probe}'::text[]) op WHERE id = $1 AND (e < 10 OR e > epoch - 10)`, id)
	}
	w.rest(wants)
	w.stop()
	for id, want := range wants {
		w.verify(id, want)
	}
}

// rest waits until nothing is under way: the intents stand as they should, outbox and queue are empty, and no transaction
// is open.
func (w *world) rest(wants map[intent.ID]end) {
	w.t.Helper()
	for id, want := range wants {
		w.awaitStatus(id, want.status)
	}
	testkit.Until(w.t, soon, "the world is at rest", func() (bool, string) {
		outbox := testkit.Value[int](w.t, w.db, "SELECT count(*) FROM writ.outbox")
		open := testkit.Value[int](w.t, w.db, `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND state LIKE 'idle in transaction%'`)
		messages := w.messages()
		return outbox+messages+open == 0, fmt.Sprintf("outbox %d, queue %d, open transactions %d", outbox, messages, open)
	})
	for id, want := range wants {
		w.awaitStatus(id, want.status)
	}
}

func (w *world) verify(id intent.ID, want end) {
	w.t.Helper()
	starts, effects := w.ledger.of(started, id), w.ledger.of(effected, id)
	got := end{
		status: w.get(id).Status, starts: len(starts), effects: len(effects), log: w.events(id),
		receipts: testkit.Value[int](w.t, w.db, "SELECT count(*) FROM matrix.receipts WHERE id = $1", id),
		late: testkit.Value[string](w.t, w.db, `SELECT coalesce(string_agg(evidence ->> 'meaning', ' ' ORDER BY id), '')
			FROM writ.log WHERE intent_id = $1 AND event = 'late-report'`, id),
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(end{}), cmpopts.EquateEmpty()); diff != "" {
		w.t.Errorf("how %s ended (-want +got):\n%s", id, diff)
	}
	for _, e := range w.ledger.early() {
		w.t.Errorf("I2: a handler was at work at epoch %d before its claim was committed", e.Epoch)
	}
	seen := map[int]bool{}
	for _, e := range starts {
		if seen[e.Epoch] {
			w.t.Errorf("I3: more than one handler was started at epoch %d", e.Epoch)
		}
		seen[e.Epoch] = true
	}
	checkVersions(w.t, w.versions(id))
}

func (w *world) versions(id intent.ID) []version {
	w.t.Helper()
	rows, err := w.db.Query(context.Background(), "SELECT state, event, epoch, attempt, worker, flagged FROM matrix.history WHERE id = $1 ORDER BY n", id)
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowToStructByPos[version])
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// checkVersions holds a row's history against the state machine: legal moves, and epochs that rise by 1 without gaps,
// but in a quarantine.
func checkVersions(t *testing.T, versions []version) {
	t.Helper()
	for n, v := range versions {
		if n == 0 {
			if v.State != string(fsm.Pending) || v.Epoch != 0 {
				t.Errorf("I4: it began as %s at epoch %d", v.State, v.Epoch)
			}
			continue
		}
		before := versions[n-1]
		if v.Epoch == before.Epoch+1000 && v.Worker == nil && (v.Event == string(fsm.Quarantined) && v.Flagged || fenced(before, v)) {
			continue
		}
		if step := v.Epoch - before.Epoch; step < 0 || step > 1 {
			t.Errorf("I3: epoch %d came after %d", v.Epoch, before.Epoch)
		}
		if v.State == string(fsm.Sending) && before.State != v.State && v.Epoch != before.Epoch+1 {
			t.Errorf("I3: a claim left the epoch at %d", v.Epoch)
		}
		if v.State != before.State && !legal(before, v) {
			t.Errorf("I4: from %s (flagged: %t) to %s by %s", before.State, before.Flagged, v.State, v.Event)
		}
	}
}

// fenced: a quarantine raised the epoch and left the rest alone.
func fenced(from, to version) bool {
	from.Epoch, from.Worker = to.Epoch, to.Worker
	return from == to
}

func legal(from, to version) bool {
	return slices.ContainsFunc(fsm.Transitions(), func(m fsm.Transition) bool {
		return string(m.From) == from.State && string(m.To) == to.State && string(m.Event) == to.Event &&
			(from.Flagged || m.Flagged == fsm.AnyFlag)
	})
}
