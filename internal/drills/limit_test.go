//go:build drill

package drills

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

// times are when the ledger saw effects, in order.
func (f *field) times() []time.Time {
	f.t.Helper()
	var all []time.Time
	for entries := range maps.Values(f.entries()) {
		for _, e := range entries {
			all = append(all, e.At)
		}
	}
	slices.SortFunc(all, time.Time.Compare)
	return all
}

// mostWithin is the most of them in any time as long as window: a window that slides, not the clock's own seconds.
func mostWithin(at []time.Time, window time.Duration) int {
	most, first := 0, 0
	for i := range at {
		for at[i].Sub(at[first]) >= window {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

func (f *field) limit(kind intent.Kind[effect], l intent.Limit) {
	f.t.Helper()
	if err := intent.SetLimit(context.Background(), f.db, kind.Name, l, intent.Word{Actor: "drill", Why: "a drill of limits"}); err != nil {
		f.t.Fatal(err)
	}
}

// TestRateLimit: 100 a second over 4 processes for 20 seconds, with more to do than that: by the ledger 2,000, and never more
// than 110 in any second.
func TestRateLimit(t *testing.T) {
	f := newField(t)
	f.limit(repeatable, intent.Limit{Starts: 100})
	f.start("relay")
	f.start("reconciler")
	for range 4 {
		f.start("worker")
	}
	f.bulk(repeatable, 2600, effect{})
	testkit.Until(t, 30*time.Second, "the first effects", func() (bool, string) { n := len(f.times()); return n >= 100, fmt.Sprint(n) })
	during(t, 21*time.Second, func() {})
	all := f.times()
	from := all[50] // all processes have come to work
	within := slices.DeleteFunc(slices.Clone(all), func(at time.Time) bool { return at.Before(from) || at.Sub(from) >= 20*time.Second })
	most := mostWithin(all, time.Second)
	t.Logf("in 20 s: %d; in any second at most %d", len(within), most)
	if len(within) < 1960 || len(within) > 2040 {
		t.Errorf("%d in 20 s; want 2,000 ± 2 %%", len(within))
	}
	if most > 110 {
		t.Errorf("%d within a second; want at most 110", most)
	}
}

// TestRateLimit_kills: processes that are killed with tokens in hand do not starve the others, and none is spent twice.
func TestRateLimit_kills(t *testing.T) {
	f := newField(t)
	f.limit(repeatable, intent.Limit{Starts: 100})
	f.start("relay")
	f.start("reconciler")
	workers := []*process{f.start("worker"), f.start("worker"), f.start("worker"), f.start("worker")}
	f.bulk(repeatable, 2500, effect{})
	testkit.Until(t, 30*time.Second, "the first effects", func() (bool, string) { n := len(f.times()); return n >= 100, fmt.Sprint(n) })
	began := time.Now()
	for i := range 10 {
		during(t, 1500*time.Millisecond, func() {})
		workers[i%4].kill()
		workers[i%4] = f.start("worker")
	}
	took := time.Since(began)
	all := f.times()
	n := len(slices.DeleteFunc(slices.Clone(all), func(at time.Time) bool { return at.Before(began) || at.Sub(began) >= took }))
	most := mostWithin(all, time.Second)
	rate := float64(n) / took.Seconds()
	t.Logf("with a kill each 1.5 s: %.1f a second; in any second at most %d", rate, most)
	if rate < 80 {
		t.Errorf("%.1f a second; want about 100", rate)
	}
	if most > 110 {
		t.Errorf("%d within a second; want at most 110", most)
	}
	f.awaitRest(2 * time.Minute)
}

// TestPlaces_kills: never more at once than there are places, while processes are killed and others take over; and their
// places come free.
func TestPlaces_kills(t *testing.T) {
	const places, lasts = 6, 300 * time.Millisecond
	f := newField(t)
	f.limit(repeatable, intent.Limit{Running: places})
	f.start("relay")
	f.start("reconciler")
	workers := []*process{f.start("worker"), f.start("worker"), f.start("worker"), f.start("worker")}
	f.bulk(repeatable, 500, effect{Sleep: int(lasts / time.Millisecond)})
	testkit.Until(t, 30*time.Second, "the first effects", func() (bool, string) { n := len(f.times()); return n >= 10, fmt.Sprint(n) })
	killed := map[string]time.Time{}
	for i := range 5 {
		during(t, 4*time.Second, func() {})
		workers[i%4].kill()
		killed[workers[i%4].hello] = time.Now()
		workers[i%4] = f.start("worker")
	}
	states := f.awaitRest(3 * time.Minute)

	type change struct {
		at time.Time
		by int
	}
	var changes []change
	runs := 0
	for entries := range maps.Values(f.entries()) {
		for _, e := range entries {
			end := e.At.Add(lasts)
			if at, ok := killed[e.Worker]; ok && at.Before(end) {
				end = at
			}
			changes = append(changes, change{e.At, 1}, change{end, -1})
			runs++
		}
	}
	slices.SortFunc(changes, func(a, b change) int { return a.at.Compare(b.at) })
	now, most := 0, 0
	for _, c := range changes {
		now += c.by
		most = max(most, now)
	}
	t.Logf("%d runs of 500 intents, 5 kills, at most %d at once; %v", runs, most, states)
	if most != places {
		t.Errorf("%d at once; want %d", most, places)
	}
	if states["sent"] != 500 {
		t.Errorf("%v; want all sent", states)
	}
}
