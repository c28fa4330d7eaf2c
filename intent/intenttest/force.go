package intenttest

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/workers"
)

// How says how an attempt is to end, for [Kit.Force].
type How struct {
	force     func() error // in place of the handler; nil: the handler is run
	crash     bool         // the worker dies
	unstarted bool         // before the handler
}

var errForced = errors.New("forced by the test")

// The ways to end an attempt. All but CrashAfter and Run leave the handler out.
var (
	// Run runs the handler, as if nothing was forced.
	Run = How{}
	// Done is done, without a share of the handler's in it.
	Done = How{force: func() error { return nil }}
	// NotDone was surely not done.
	NotDone = How{force: func() error { return workers.NotDone(errForced) }}
	// Stop was not done, and never will be.
	Stop = How{force: func() error { return workers.Stop(errForced) }}
	// Unknown: nobody knows.
	Unknown = How{force: func() error { return workers.Unknown(errForced) }}
	// Panic is a panic in the effect.
	Panic = How{force: func() error { panic(errForced) }}
	// Timeout is a handler whose time was up in its effect.
	Timeout = How{force: func() error { return context.DeadlineExceeded }}
	// Crash is the death of the worker before the handler's first line. Nobody can tell that from CrashAfter.
	Crash = How{crash: true, unstarted: true}
	// CrashAfter runs the handler, and the worker dies before it writes the outcome down.
	CrashAfter = How{crash: true}
)

// Snooze is not now, but again in d.
func Snooze(d time.Duration) How { return How{force: func() error { return workers.Snooze(d) }} }

// NotDoneUntil is [NotDone], with the other side asking not to come again before d has passed.
func NotDoneUntil(d time.Duration) How {
	return How{force: func() error { return workers.NotDone(workers.RetryAfter(d, errForced)) }}
}

// Force has the next attempts of an intent end as said, one after the other; those after them are run.
func (k *Kit) Force(id intent.ID, hows ...How) {
	k.forced[id] = append(k.forced[id], hows...)
}

// next is what is forced upon an intent's next attempt.
func (k *Kit) next(id uuid.UUID) How {
	if hows := k.forced[id]; len(hows) > 0 {
		return hows[0]
	}
	return Run
}
