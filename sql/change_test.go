package sql_test

import (
	"testing"

	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
)

// TestChange_args: arguments changed by hand are another job, with another key, and the log has both; while an attempt is out
// they stay what they are.
func TestChange_args(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.settled(t)
	const change = "UPDATE writ.intents SET args = '{\"n\": 2}' WHERE id = $1"
	for _, position := range []string{"pending", "error"} {
		id := b.at(t, kind, position)
		b.Run(t, change, id)
		b.Run(t, change, id) // no change
		got := b.last(t, id)
		if got.Event != "changed" || got.Actor != got.DBUser || got.Evidence["old_args"].(map[string]any)["n"] != 1.0 || got.Evidence["new_args"].(map[string]any)["n"] != 2.0 {
			t.Errorf("%s: the log ends with %+v; want the arguments before and after", position, got)
		}
		if position == "error" {
			b.Run(t, "UPDATE writ.intents SET state = 'pending' WHERE id = $1", id)
		}
		if r := read(t, b.Pool, id); r.Generation != 1 || r.State != "pending" {
			t.Errorf("%s: %+v; want another key", position, r)
		}
		if !testkit.Value[bool](t, b.DB, "SELECT writ.same_args(i, '{\"n\": 1}') FROM writ.intents i WHERE id = $1", id) {
			t.Errorf("%s: its creator, asking again, is a stranger", position)
		}
	}
	for _, position := range []string{"sending", "flagged"} {
		refused(t, b.Pool, store.CodeIllegal, change, b.at(t, kind, position))
	}
	id := b.at(t, kind, "flagged")
	b.Run(t, "UPDATE writ.intents SET state = 'pending', args = '{\"n\": 2}' WHERE id = $1", id)
	if got := b.last(t, id); got.Event != "retry" || got.Evidence["old_args"] == nil || read(t, b.Pool, id).Generation != 1 {
		t.Errorf("with the verdict: %+v", got)
	}
	b.Run(t, change, b.at(t, kind, "sent")) // what is done may be made unreadable
}

// TestVerbs_anyEvidence: evidence that is no object stays readable in the log, and what the engine adds beside it.
func TestVerbs_anyEvidence(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, evidence := range []string{`"ch_71"`, `[1]`, `7`, `null`, `{"evidence": 7}`} {
		id := b.at(t, kind, "flagged")
		b.Run(t, "SELECT writ.happened($1, 'sending', 1, 'ann', 'the provider shows it', $2)", id, evidence)
		if !testkit.Value[bool](t, b.DB, `SELECT evidence ? 'evidence' AND evidence ->> 'from' = 'sending' FROM writ.log WHERE intent_id = $1 AND event = 'happened'`, id) {
			t.Errorf("%s: the log says %+v", evidence, b.last(t, id))
		}
	}
}
