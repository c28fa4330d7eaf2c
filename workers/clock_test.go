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
			c := databaseClock{window: 90 * time.Second}
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
