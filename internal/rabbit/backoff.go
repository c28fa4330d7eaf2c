package rabbit

import (
	"cmp"
	"math/rand/v2"
	"time"
)

const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 5 * time.Second
)

// backoff spaces attempts: each pause is drawn between half and all of a step
// that doubles from minBackoff to a limit. The zero value is ready.
type backoff struct {
	step  time.Duration
	limit time.Duration // default: maxBackoff
}

func (b *backoff) next() time.Duration {
	b.step = min(max(2*b.step, minBackoff), cmp.Or(b.limit, maxBackoff))
	return b.step/2 + rand.N(b.step/2)
}

// settle starts again from the shortest pause if what was attempted then held
// for a while: a connection that is taken and dropped at once must not be
// retried at full speed.
func (b *backoff) settle(held time.Duration) {
	if held >= 2*maxBackoff {
		b.step = 0
	}
}
