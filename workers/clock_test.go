package workers

import (
	"testing"
	"time"
)

// TestDatabaseClock: what this process can vouch for, when the database's clock runs on, jumps, or is not seen for a while.
func TestDatabaseClock(t *testing.T) {
	t.Parallel()
	own := time.Now()
	db := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(s float64) time.Time { return own.Add(time.Duration(s * float64(time.Second))) }
	said := func(s float64) time.Time { return db.Add(time.Duration(s * float64(time.Second))) }
	type seen struct{ own, database float64 }
	every := func(from, to, ahead float64) (looks []seen) {
		for s := from; s <= to; s += 2 {
			looks = append(looks, seen{s, s + ahead})
		}
		return looks
	}
	tests := []struct {
		name   string
		looks  []seen
		moment float64 // by the database's clock
		now    float64 // by the own one
		want   float64 // seconds
	}{
		{"never seen", nil, -100, 0, 10},
		{"just begun, and long past", every(0, 0, 0), -1000, 1, 9},
		{"watched for long enough, and past", every(0, 20, 0), 15, 20, -5},
		{"watched for long enough, still to come", every(0, 20, 0), 25, 20, 5},
		{"jumped forwards", append(every(0, 20, 0), every(22, 30, 3600)...), 40, 30, 10},
		{"jumped forwards, and the window has passed", append(every(0, 20, 0), every(22, 200, 3600)...), 3700, 200, -100},
		{"jumped forwards while it was not seen", append(every(0, 20, 0), seen{500, 4100}), 600, 500, 100},
		{"jumped back", append(every(0, 20, 0), every(22, 30, -3600)...), 25, 30, 3595},
		{"a slow answer does not bring it forward", append(every(0, 20, 0), seen{22, 20}), 21, 22, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := databaseClock{least: 90 * time.Second}
			for _, l := range tt.looks {
				c.see(said(l.database), at(l.own))
			}
			got := c.rest(said(tt.moment), 10*time.Second, at(tt.now))
			if got != time.Duration(tt.want*float64(time.Second)) {
				t.Errorf("rest %v; want %vs", got, tt.want)
			}
			if len(c.low) > 50 {
				t.Errorf("it keeps %d looks", len(c.low))
			}
		})
	}
}

// watching is a clock that has seen the database's for so long, every two seconds, while that drifted by so much a look.
func watching(c *databaseClock, own, db time.Time, from, to, drift time.Duration) {
	for d := from; d <= to; d += 2 * time.Second {
		c.see(db.Add(d+time.Duration(d/(2*time.Second))*drift), own.Add(d))
	}
}

// TestDatabaseClock_isBounded: a clock that always runs ahead, and an attempt that took ages, do not make it remember for ever.
func TestDatabaseClock_isBounded(t *testing.T) {
	t.Parallel()
	own, db := time.Now(), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := databaseClock{least: 90 * time.Second}
	watching(&c, own, db, 0, 10*time.Minute, time.Millisecond)
	at := own.Add(10 * time.Minute)
	if got := c.rest(db, 24*time.Hour, at); got < 23*time.Hour {
		t.Errorf("it vouches for an attempt of a day in %v, having watched for ten minutes", got)
	}
	watching(&c, own, db, 10*time.Minute, 20*time.Hour, time.Millisecond)
	if len(c.low) > maxLooks || c.window != 24*time.Hour {
		t.Errorf("it keeps %d looks in a window of %v; want %d at most, in a day", len(c.low), c.window, maxLooks)
	}
	watching(&c, own, db, 20*time.Hour, 50*time.Hour, time.Millisecond)
	if len(c.low) > 50 || c.window != c.least {
		t.Errorf("a day after anybody asked it keeps %d looks in a window of %v", len(c.low), c.window)
	}
}

// TestDatabaseClock_forgotten: it does not vouch for an attempt that is longer than it remembers, over a jump that it has
// forgotten; and what is thinned out only makes it more careful.
func TestDatabaseClock_forgotten(t *testing.T) {
	t.Parallel()
	own, db := time.Now(), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := databaseClock{least: 90 * time.Second}
	watching(&c, own, db, 0, time.Hour, 0)
	watching(&c, own, db.Add(2*time.Hour), time.Hour+2*time.Second, time.Hour+5*time.Minute, 0) // a jump, five minutes ago
	now := time.Hour + 5*time.Minute
	// An attempt under an old timeout of half an hour, begun ten minutes ago: by the database's clock its time is long up.
	if got := c.rest(db.Add(90*time.Minute), 30*time.Minute, own.Add(now)); got < 20*time.Minute {
		t.Errorf("it vouches in %v for what it cannot know", got)
	}
	watching(&c, own, db.Add(2*time.Hour), now, now+31*time.Minute, 0)
	if got := c.rest(db.Add(90*time.Minute), 30*time.Minute, own.Add(now+31*time.Minute)); got > 0 {
		t.Errorf("it does not vouch, %v to go, though it has watched for all that time", got)
	}

	careful, exact := databaseClock{least: 4 * time.Hour}, databaseClock{least: 4 * time.Hour}
	watching(&careful, own, db, 0, 2*time.Hour, time.Millisecond)
	watching(&exact, own, db, 0, 2*time.Hour, time.Millisecond)
	careful.thin()
	for _, after := range []time.Duration{0, time.Hour, 3 * time.Hour} {
		now := own.Add(2*time.Hour + after)
		if a, b := careful.rest(db.Add(2*time.Hour), time.Minute, now), exact.rest(db.Add(2*time.Hour), time.Minute, now); a < b {
			t.Errorf("after %v a thinned clock vouches %v sooner", after, b-a)
		}
	}
}
