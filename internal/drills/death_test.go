//go:build drill

package drills

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

const ttl = 10 * time.Second // the default

func (f *field) one(kind intent.Kind[effect], args effect) intent.ID {
	f.t.Helper()
	id, err := create(context.Background(), f.db, kind, args)
	if err != nil {
		f.t.Fatal(err)
	}
	return id
}

func (f *field) get(id intent.ID) intent.Intent {
	f.t.Helper()
	i, err := intent.Get(context.Background(), f.db, id)
	if err != nil {
		f.t.Fatal(err)
	}
	return i
}

func (f *field) awaitEffect(id intent.ID, n int) {
	f.t.Helper()
	testkit.Until(f.t, 30*time.Second, "the ledger has seen it", func() (bool, string) {
		got := len(f.entries()[id.String()])
		return got >= n, fmt.Sprint(got)
	})
}

func TestKilledWorker(t *testing.T) {
	f := newField(t)
	f.start("relay")
	f.start("reconciler")
	f.start("reconciler")
	victim := f.start("worker")
	lost := f.one(manual, effect{Sleep: 60_000})
	again := f.one(repeatable, effect{Sleep: 60_000})
	f.awaitEffect(lost, 1)
	f.awaitEffect(again, 1)
	victim.kill()
	killed := time.Now()
	f.start("worker")

	testkit.Until(t, 2*ttl, "flagged", func() (bool, string) { s := f.get(lost).Status; return s == "ambiguous", s })
	t.Logf("flagged %v after the kill; TTL %v", time.Since(killed).Round(100*time.Millisecond), ttl)
	// Its hint comes again, as after a redelivery: both at the old epoch and at the row's.
	for epoch := range 2 {
		f.db.Run(t, "INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) VALUES (now(), $1, $2, $3, 'run')", manual.Name, lost, epoch)
	}
	during(t, 5*ttl, func() {
		if n := len(f.entries()[lost.String()]); n != 1 {
			t.Fatalf("done %d times", n)
		}
	})
	f.awaitEffect(again, 2)
	if i := f.get(again); i.Epoch < 3 || i.FlaggedAt != nil {
		t.Errorf("the idempotent one is %s at epoch %d; want a second attempt", i.Status, i.Epoch)
	}

	i := f.get(lost)
	line, err := intent.Why(context.Background(), f.db, lost)
	if err != nil || !strings.Contains(line, "its worker died") || !strings.Contains(line, i.IdempotencyKey) {
		t.Errorf("why says %q, %v", line, err)
	}
	t.Log(line)
	if _, err := intent.Happened(context.Background(), f.db, intent.Verdict{ID: lost, Seen: i.Position(), Actor: "drill", Why: "the ledger has it"}); err != nil {
		t.Fatal(err)
	}
	if i := f.get(lost); i.Status != "sent" {
		t.Errorf("after the verdict it is %s", i.Status)
	}
}

func TestZombie(t *testing.T) {
	f := newField(t)
	f.start("relay")
	f.start("reconciler")
	zombie := f.start("worker")
	accepted := f.one(manual, effect{Sleep: 3000})
	refused := f.one(manual, effect{Sleep: 3000})
	f.awaitEffect(accepted, 1)
	f.awaitEffect(refused, 1)
	if err := zombie.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for _, id := range []intent.ID{accepted, refused} {
		testkit.Until(t, 3*ttl, "flagged", func() (bool, string) { s := f.get(id).Status; return s == "ambiguous", s })
	}
	ctx := context.Background()
	if _, err := intent.GiveUp(ctx, f.db, intent.Verdict{ID: refused, Seen: f.get(refused).Position(), Actor: "drill", Why: "we cannot tell any more"}); err != nil {
		t.Fatal(err)
	}
	if err := zombie.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	testkit.Until(t, 30*time.Second, "the late finish is accepted", func() (bool, string) { s := f.get(accepted).Status; return s == "sent", s })
	testkit.Until(t, 30*time.Second, "the late report is kept", func() (bool, string) {
		n := testkit.Value[int](t, f.db, "SELECT count(*) FROM writ.log WHERE intent_id = $1 AND event = 'late-report'", refused)
		return n == 1, fmt.Sprint(n)
	})
	if i := f.get(refused); i.Status != "error" {
		t.Errorf("the late finish changed a verdict: it is %s", i.Status)
	}
	f.noneDoubled(nil)
}

func TestFrozenPostgres(t *testing.T) {
	f := newField(t)
	f.start("relay")
	f.start("reconciler")
	f.start("reconciler")
	f.start("worker")
	var ids []intent.ID
	for n := range 20 {
		ids = append(ids, f.one(manual, effect{N: n, Sleep: 45_000}))
	}
	for _, id := range ids {
		f.awaitEffect(id, 1)
	}
	during(t, 15*time.Second, func() {}) // the reconcilers have seen the database steady
	if err := stack.FreezePostgres(); err != nil {
		t.Fatal(err)
	}
	frozen := time.Now()
	tick := time.NewTicker(100 * time.Millisecond)
	for time.Since(frozen) < 2*ttl {
		<-tick.C
	}
	tick.Stop()
	if err := stack.ThawPostgres(); err != nil {
		t.Fatal(err)
	}
	states := f.awaitRest(2 * time.Minute)
	flagged := testkit.Value[int](t, f.db, "SELECT count(*) FROM writ.log WHERE event = 'flagged'")
	if states["sent"] != 20 || flagged != 0 {
		t.Errorf("states %v, flagged %d; want 20 sent and none ever flagged", states, flagged)
	}
	f.noneDoubled(ids)
}

func TestMemory(t *testing.T) {
	f := newField(t)
	f.start("relay")
	const million = 1_000_000
	f.declare()
	_, err := f.db.Exec(context.Background(), `WITH i AS (
		INSERT INTO writ.intents (id, tid, kind, event, args) SELECT id, id, $1, 'requested', '{"sleep": 200}'
		FROM (SELECT writ.uuid_v7() AS id FROM generate_series(1, $2::int) OFFSET 0) g RETURNING id, kind)
		INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) SELECT now(), kind, id, 0, 'run' FROM i`, slow.Name, million)
	if err != nil {
		t.Fatal(err)
	}
	testkit.Until(t, 10*time.Minute, "a million hints are with the broker", func() (bool, string) {
		n := testkit.Value[int](t, f.db, "SELECT count(*) FROM (SELECT FROM writ.outbox LIMIT 2000) o")
		return n < 1000, fmt.Sprint(n)
	})
	w := f.start("worker")
	peak := 0
	during(t, 30*time.Second, func() { peak = max(peak, resident(t, w.Process.Pid)) })
	running := f.states()
	t.Logf("peak resident memory with a million waiting: %d MiB; states %v", peak>>20, running)
	if running["sent"] == 0 {
		t.Error("the worker did nothing")
	}
	if peak > 64<<20 {
		t.Errorf("the worker uses %d MiB; want at most 64", peak>>20)
	}
}

func resident(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
