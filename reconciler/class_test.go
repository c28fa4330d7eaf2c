package reconciler_test

import (
	"testing"
	"time"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

// TestDeadWorker_redeclared: while a deployment rolls, a kind's class is what who started last declared, and the attempt may
// be that of other code. It is repeated only if that was idempotent, too; its probe is asked if anybody alive has one.
func TestDeadWorker_redeclared(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, declared, claimer, other string // classes; of the claimer and of another, living worker; empty: of an older release
		retried, asked                 bool
	}{
		{"all idempotent", "idempotent", "idempotent", "idempotent", true, false},
		{"an older release's", "idempotent", "", "", true, false},
		{"idempotent, and probed by another", "idempotent", "idempotent", "probed", true, false},
		{"probed when claimed", "idempotent", "probed", "", false, false},
		{"probed when claimed, and another has its probe", "idempotent", "probed", "probed", false, true},
		{"manual when claimed", "idempotent", "manual", "idempotent", false, false},
		{"probed over idempotent", "probed", "idempotent", "idempotent", false, true},
		{"manual over idempotent", "manual", "idempotent", "idempotent", false, false},
		{"manual over probed", "manual", "probed", "manual", false, false},
		{"manual over probed, and another has its probe", "manual", "probed", "probed", false, true},
		{"probed over manual", "probed", "manual", "manual", false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			dead, _ := b.holding(0, tt.claimer), b.holding(-time.Hour, tt.other)
			b.declare(job.Name, tt.declared)
			id := b.insert(job.Name, 1, 0)[0]
			b.claim(dead, id)
			b.silence(dead, time.Minute)
			got := b.once()
			if i := b.get(id); (got.Retried == 1) != tt.retried || (got.Flagged == 1) == tt.retried || (i.State == "pending") != tt.retried {
				t.Errorf("it did %+v, and it is %s; want retried: %t", got, i.Status, tt.retried)
			}
			asked := testkit.Value[bool](t, b.db, `SELECT i.flagged_at IS NOT NULL AND i.probe_at IS NOT NULL AND EXISTS (
				SELECT FROM writ.outbox o WHERE o.intent_id = i.id AND o.op = 'probe') FROM writ.intents i WHERE i.id = $1`, id)
			hints := map[bool]int{true: 1}[tt.retried || tt.asked]
			if asked != tt.asked || b.hints(id) != hints {
				t.Errorf("its probe is asked: %t, with %d hints; want %t and %d", asked, b.hints(id), tt.asked, hints)
			}
		})
	}
}

// holding makes a worker that holds the job as of a class; empty: it does not say, as an older release.
func (b *bench) holding(silent time.Duration, class string) intent.ID {
	b.t.Helper()
	w := b.worker(silent)
	b.db.Run(b.t, `UPDATE writ.workers SET kinds = ARRAY['test.job.else', $2], classes = CASE WHEN $3 <> '' THEN ARRAY['manual', $3] END WHERE id = $1`,
		w, job.Name, class)
	return w
}
