package workers

import (
	"testing"
	"time"
)

// TestLeaving: however many come, those that are left come again spread over time, and none later than the reconciler counts on.
func TestLeaving(t *testing.T) {
	t.Parallel()
	var l leaving
	now := time.Now()
	for n := range 40_000 {
		got := l.pause(now)
		share := min(time.Duration(n+1)*leaveEvery, leaveMost)
		if least, most := share+leaveFor/2, share+leaveFor; got < least || got > most {
			t.Fatalf("the %dth is left for %v; want %v to %v", n+1, got, least, most)
		}
	}
	if most := leaveMost + leaveFor; most > 11*time.Minute {
		t.Errorf("the longest pause is %v; StalePending counts on 11 min", most)
	}
	if got := l.pause(now.Add(time.Hour)); got > leaveFor+leaveEvery {
		t.Errorf("an hour later one is left for %v; want no more than %v", got, leaveFor+leaveEvery)
	}
}

func TestLeaving_tells(t *testing.T) {
	t.Parallel()
	var l leaving
	now := time.Now()
	for _, tt := range []struct {
		n     int
		after time.Duration
		want  int
	}{{3, 0, 3}, {4, time.Second, 0}, {5, tellEvery - time.Millisecond, 0}, {6, tellEvery, 15}, {1, tellEvery + time.Second, 0}} {
		if got := l.tell(tt.n, now.Add(tt.after)); got != tt.want {
			t.Errorf("%d more after %v: tells of %d; want %d", tt.n, tt.after, got, tt.want)
		}
	}
}

func TestStrangers_bounded(t *testing.T) {
	t.Parallel()
	s := strangers{}
	for n := range 10 * maxStrangers {
		s.of(time.Duration(n).String())
	}
	if len(s) > maxStrangers {
		t.Errorf("keeps %d names; want at most %d", len(s), maxStrangers)
	}
}
