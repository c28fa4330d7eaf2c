// Package backoff spaces the attempts of loops that try until something outside is back: a connection, a statement, a
// queue. (Retries of intents are spaced in the database, see package workers.)
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is jittered and exponential: each pause is drawn between a half and the whole of a step that doubles from Min
// to Max. One goroutine owns it.
type Backoff struct {
	Min, Max time.Duration

	step time.Duration
}

// New returns a backoff from lo to hi.
func New(lo, hi time.Duration) *Backoff { return &Backoff{Min: lo, Max: hi} }

// Next returns the next pause.
func (b *Backoff) Next() time.Duration {
	b.step = min(max(2*b.step, b.Min), b.Max)
	return Jitter(b.step)
}

// Wait blocks for the next pause; false: ctx ended.
func (b *Backoff) Wait(ctx context.Context) bool { return Sleep(ctx, b.Next()) }

// Settle starts again from Min if what was attempted then held for a while, twice Max: a connection that is taken and
// dropped at once must not be tried again at full speed.
func (b *Backoff) Settle(held time.Duration) {
	if held >= 2*b.Max {
		b.step = 0
	}
}

// Jitter draws between a half and the whole of d.
func Jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// Sleep blocks for d; false: ctx ended.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
