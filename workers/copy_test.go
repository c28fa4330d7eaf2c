package workers_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

// heard is a log that a test waits for. It is safe for concurrent use.
type heard struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.Write(p)
}

// await waits until the log says something.
func (h *heard) await(t *testing.T, what string) {
	t.Helper()
	testkit.Until(t, 20*time.Second, "the log says "+what, func() (bool, string) {
		h.mu.Lock()
		defer h.mu.Unlock()
		return strings.Contains(h.text.String(), what), h.text.String()
	})
}

// becomeCopy makes the database look as if it were not the one that was adopted.
func (b *bench) becomeCopy() {
	b.t.Helper()
	b.db.Run(b.t, "UPDATE writ.settings SET fingerprint = '1/00000001/1'")
}

// waiting starts a worker whose handler and probe wait for gates.
func (b *bench) waiting(do func() error, probe func() workers.Finding) *heard {
	b.t.Helper()
	log := &heard{}
	mux := workers.NewMux()
	h := workers.Handler[args]{Do: func(context.Context, *workers.Job[args]) error { return do() }, Probing: quick}
	if probe != nil {
		h.Probe = func(context.Context, *workers.Attempt[args]) (workers.Answer, error) {
			return workers.Answer{Finding: probe(), Why: "the ledger was asked", Evidence: "page 7"}, nil
		}
	}
	workers.Handle(mux, asked, h)
	w, err := workers.New(b.db.Pool, testkit.AMQPURL(b.t), mux, workers.Config{
		Heartbeat: 50 * time.Millisecond, TTL: time.Second, Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.run(w.Run)
	return log
}

var restored = intent.Word{Actor: "ann", Why: "db1 restored to noon (INC-431)"}

// TestCopy_takesNoOutcome: an outcome that reaches a restored database before anybody adopted it changes nothing there: accepted,
// it would look like that database's own past, and a retry that is planned for later would escape the quarantine. It is
// repeated. After a quarantine it is a late report; where nothing was lost it counts.
func TestCopy_takesNoOutcome(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		says   error
		status string // if nothing was lost
	}{
		"done":                        {nil, "sent"},
		"not done, and again at once": {workers.NotDone(errors.New("refused")), "sent"},
		"not done, and again later":   {workers.Snooze(time.Hour), "scheduled"},
		"not done, and of no use":     {workers.Stop(errors.New("no such customer")), "error"},
		"nobody knows":                {errors.New("reset"), "ambiguous"},
	} {
		for _, lost := range []string{"with something lost", "with nothing lost"} {
			t.Run(name+", "+lost, func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				gate, begun := make(chan struct{}), make(chan struct{})
				var first sync.Once
				log := b.waiting(func() (err error) {
					first.Do(func() { close(begun); <-gate; err = tt.says })
					return err
				}, nil)
				id := b.create(asked, 1)
				<-begun
				b.becomeCopy()
				close(gate)
				log.await(t, "a copy that nobody adopted, and takes no reports")
				if row := b.await(id, "running"); row.Epoch != 1 || len(b.events(id)) != 0 {
					t.Fatalf("the copy has it at epoch %d, with %v", row.Epoch, b.events(id))
				}
				if lost == "with nothing lost" {
					b.db.Run(t, "SELECT writ.adopt($1, $2)", restored.Actor, restored.Why)
					b.await(id, tt.status)
					return
				}
				if q, err := intent.Quarantine(context.Background(), b.db, time.Now().Add(-time.Minute), restored, nil); err != nil || q.Flagged != 1 {
					t.Fatalf("quarantined %+v, %v", q, err)
				}
				b.db.Run(t, "SELECT writ.adopt($1, $2)", restored.Actor, restored.Why)
				testkit.Until(t, 20*time.Second, "the late report is in", func() (bool, string) {
					n := testkit.Value[int](t, b.db, "SELECT count(*) FROM writ.log WHERE intent_id = $1 AND event = 'late-report' AND epoch = 1", id)
					return n == 1, strings.Join(b.events(id), " ")
				})
				if row := b.await(id, "ambiguous"); row.Epoch != 1001 {
					t.Errorf("epoch %d after the quarantine; want 1001", row.Epoch)
				}
			})
		}
	}
}

// TestCopy_takesNoAnswer: nor does it take the answer of a probe that was asked before; it keeps its evidence until then.
func TestCopy_takesNoAnswer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	gate, asking := make(chan struct{}), make(chan struct{})
	var first sync.Once
	log := b.waiting(func() error { return errors.New("no answer came") }, func() workers.Finding {
		first.Do(func() { close(asking) })
		<-gate
		return workers.WasDone
	})
	id := b.create(asked, 1)
	<-asking
	b.becomeCopy()
	close(gate)
	log.await(t, "cannot write down what the probe found yet")
	if row := b.await(id, "ambiguous"); row.Epoch != 1 || strings.Join(b.events(id), " ") != "flagged" {
		t.Fatalf("the copy has it at epoch %d, with %v", row.Epoch, b.events(id))
	}
	b.db.Run(t, "SELECT writ.adopt($1, $2)", restored.Actor, restored.Why)
	b.await(id, "sent")
	if evidence := testkit.Value[string](t, b.db, "SELECT evidence ->> 'probe' FROM writ.log WHERE actor = 'probe' AND event = 'happened'"); evidence != "page 7" {
		t.Errorf("evidence %q; want what the probe said", evidence)
	}
}

// TestCopy_recoversNothing: nor is a recovery function run in it, until somebody adopts it. A pause holds nothing of all this back.
func TestCopy_recoversNothing(t *testing.T) {
	t.Parallel()
	b := &bench{t: t, db: testkit.Database(t)}
	id := b.create(asked, 1)
	b.db.Run(t, "INSERT INTO writ.kinds (name, queue, class, recovers) VALUES ($1, $1, 'manual', true)", asked.Name)
	b.db.Run(t, "UPDATE writ.intents SET state = 'sending', event = 'attempted', epoch = 1, attempt = 1, started_at = now(), deadline_at = now()")
	b.db.Run(t, "UPDATE writ.intents SET flagged_at = now(), flag_reason = 'unknown'")
	b.db.Run(t, "UPDATE writ.intents SET state = 'error'") // given up by hand, which owes a recovery
	run := false
	owed := func() (bool, error) {
		return store.New(b.db.Pool).Recover(context.Background(), intent.NewID(), store.Hint{ID: id, Epoch: 2, Kind: asked.Name, Op: "recover"}, []string{store.StateError},
			func(context.Context, pgx.Tx, store.Owed) error { run = true; return nil })
	}
	b.becomeCopy()
	if _, err := owed(); err == nil || !strings.Contains(err.Error(), store.CodeCopy) || !store.Down(err) || run {
		t.Errorf("a copy: %v, run %v; want it refused for now", err, run)
	}
	b.db.Run(t, "SELECT writ.adopt($1, $2)", restored.Actor, restored.Why)
	b.db.Run(t, "SELECT writ.pause($1, $2)", restored.Actor, restored.Why)
	if done, err := owed(); err != nil || !done || !run {
		t.Errorf("adopted, and paused: %v, %v, run %v; want it run", done, err, run)
	}
}
