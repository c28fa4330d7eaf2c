package measure

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseStat(t *testing.T) {
	t.Parallel()
	rest := " S 7 40 40 0 -1 4194560 1 2 3 4 150 50 20 10 20 0 1 0 9000 1 2"
	want := Stat{Parent: 7, Own: 2 * time.Second, Reaped: 300 * time.Millisecond}
	for name, comm := range map[string]string{
		"plain": "postgres", "with blanks": "a b c", "with parentheses": "x) S (y", "empty": "",
	} {
		got, err := ParseStat([]byte("42 (" + comm + ")" + rest))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestParseStat_refused(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]string{
		"empty": "", "no name": "42 S 7", "short": "42 (a) S 7 40", "not a number": "42 (a) S 7 40 40 0 -1 4194560 1 2 3 4 x 50 20 10",
	} {
		if got, err := ParseStat([]byte(line)); err == nil {
			t.Errorf("%s: %+v; want an error", name, got)
		}
	}
}

func TestTree(t *testing.T) {
	t.Parallel()
	all := map[int]Stat{
		1: {Own: time.Hour},
		7: {Parent: 1, Own: 1 * time.Second, Reaped: 2 * time.Second},
		8: {Parent: 7, Own: 4 * time.Second},
		9: {Parent: 8, Own: 8 * time.Second, Reaped: 16 * time.Second},
		6: {Parent: 1, Own: 32 * time.Second},
	}
	if got, want := tree(all, 7, all[7]), 31*time.Second; got != want {
		t.Errorf("CPU of 7 and below = %v; want %v", got, want)
	}
}

// The real /proc has this very process in it, and it uses time.
func TestCPU(t *testing.T) {
	t.Parallel()
	all, err := stats()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Error("no process was read")
	}
	if _, err := CPU(1 << 30); err == nil {
		t.Error("a process that does not exist has a CPU time; want an error")
	}
}

func TestParseResident(t *testing.T) {
	t.Parallel()
	if got, err := parseResident("900 12 3 4 0 5 0\n", 4096); err != nil || got != 12*4096 {
		t.Errorf("parseResident = %d, %v; want %d", got, err, 12*4096)
	}
	for _, bad := range []string{"", "900", "900 x"} {
		if got, err := parseResident(bad, 4096); err == nil {
			t.Errorf("parseResident(%q) = %d; want an error", bad, got)
		}
	}
}

func TestReading_Since(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	before := Reading{At: at, Postgres: time.Second, Broker: 1, Workers: 2, Creator: 3, Counters: Counters{1, 2, 3, 4, 5}}
	after := Reading{At: at.Add(time.Minute), Postgres: 3 * time.Second, Broker: 11, Workers: 22, Creator: 33, Counters: Counters{10, 20, 30, 40, 50}}
	phase := Cost{Wall: time.Minute, Postgres: 2 * time.Second, Broker: 10, Workers: 20, Creator: 30, Counters: Counters{9, 18, 27, 36, 45}}
	if diff := cmp.Diff(phase, after.Since(before)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	twice := Cost{Wall: 2 * time.Minute, Postgres: 4 * time.Second, Broker: 20, Workers: 40, Creator: 60, Counters: Counters{18, 36, 54, 72, 90}}
	if diff := cmp.Diff(twice, phase.Add(phase)); diff != "" {
		t.Errorf("two phases (-want +got):\n%s", diff)
	}
}
