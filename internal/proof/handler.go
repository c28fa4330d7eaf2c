package proof

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/writhq/writ/internal/proof/ledger"
	"github.com/writhq/writ/workers"
)

// CallOf is the ledger's call for a job: made once for each start of its handler, with the handler's context, which has
// its deadline.
func CallOf[T any](ctx context.Context, job *workers.Job[T], kind string, settle time.Duration) ledger.Call {
	call := ledger.Call{ID: job.ID(), Key: job.Key(), Kind: kind, Epoch: job.Epoch(), Worker: job.WorkerID()}
	if deadline, ok := ctx.Deadline(); ok {
		call.Settled = deadline.Add(settle)
	}
	return call
}

// StepOf is the ledger's call for one step of a job that has several.
func StepOf[T any](ctx context.Context, job *workers.Job[T], kind string, settle time.Duration, step int) ledger.Call {
	call := CallOf(ctx, job, kind, settle)
	call.Step, call.Key = step, fmt.Sprintf("%s.%d", call.Key, step)
	return call
}

// Witnessed writes down when a handler starts and what it says. do says in one word what its error means.
func Witnessed[T any](runs *Journal[Run], do func(context.Context, *workers.Job[T]) (Said, error)) func(context.Context, *workers.Job[T]) error {
	return func(ctx context.Context, job *workers.Job[T]) error {
		note := func(said Said) {
			runs.Write(Run{ID: job.ID(), Epoch: job.Epoch(), Worker: job.WorkerID(), PID: os.Getpid(), At: time.Now(), Said: said})
		}
		note(SaidStarted)
		said := SaidPanic // until it returns
		defer func() { note(said) }()
		var err error
		said, err = do(ctx, job)
		return err
	}
}
