package intenttest

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/rehearsal"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/workers"
)

// Job is what [Do] gives to a handler. Zero fields mean the defaults.
type Job[T any] struct {
	Args        T
	ID          intent.ID       // default: a new one
	TID         intent.ID       // default: ID
	Attempt     int             // default 1
	Epoch       int             // default: Attempt
	Generation  int             // part of the idempotency key from 1 on
	ArgsVersion int             // default: the kind's
	RawArgs     json.RawMessage // instead of Args: as an older version, or SQL, wrote them
	Subjects    []string
	Meta        map[string]any
	RequestedAt time.Time // default: now

	// Progress is what the last safe point of an earlier attempt left. Default: there was none.
	Progress any

	// Draining has the worker shut down: the first safe point is the last one.
	Draining bool
}

// Result is what a handler's words come to.
type Result struct {
	// Status that the intent would have now: sent, retrying, error, ambiguous; or scheduled, after a Snooze.
	Status string

	// Why says in words what was made of it, as the log would.
	Why string

	// Err is what the handler returned, or its panic.
	Err error

	// Delay before the next attempt, if there is to be one. Backoff is drawn at random.
	Delay time.Duration

	// Progress is what the last safe point left, and Result what the handler gave to Job.Result; nil: nothing.
	Progress json.RawMessage
	Result   json.RawMessage

	share func(ctx context.Context, tx pgx.Tx) error
}

// Share runs the application's part of the transaction in which the outcome would be written: what the handler gave to
// Job.Done if the status is sent, the kind's OnError if it is error. It does nothing where there is none.
func (r Result) Share(ctx context.Context, tx pgx.Tx) error {
	if r.share == nil {
		return nil
	}
	return r.share(ctx, tx)
}

// Do runs one handler with a job, in the caller's goroutine and without a database, and says what would become of the
// intent. The handler's context ends at the kind's timeout, and with the test.
func Do[T any](t TB, kind intent.Kind[T], handler workers.Handler[T], job Job[T]) Result {
	t.Helper()
	mux := workers.NewMux()
	workers.Handle(mux, kind, handler)
	handlers := open(t, mux)
	claimed := job.claimed(t, kind)
	stage := &rehearsal.Stage{}
	stage.Draining.Store(job.Draining)
	if job.Progress != nil {
		var err error
		if stage.Progress, err = json.Marshal(job.Progress); err != nil {
			t.Fatalf("intenttest: progress cannot be written as JSON: %v", err)
		}
	}
	o, err := handlers.Attend(t.Context(), nil, stage, uuid.New(), claimed, nil)
	r := Result{Status: statuses[o.Event], Why: o.Why, Err: err, Progress: stage.Progress, Result: o.Result, share: o.Hook}
	if o.Event == store.Retried {
		r.Delay = o.Delay
		if o.Free {
			r.Status = "scheduled"
		}
	}
	return r
}

// statuses are where outcomes lead.
var statuses = map[string]string{store.Succeeded: "sent", store.Retried: "retrying", store.Failed: "error", store.Flagged: "ambiguous"}

func (j Job[T]) claimed(t TB, kind intent.Kind[T]) store.Claimed {
	t.Helper()
	settings, err := kind.Settings()
	if err != nil {
		t.Fatalf("intenttest: %v", err)
	}
	c := store.Claimed{
		ID: j.ID, Kind: kind.Name, TID: j.TID, Attempt: int32(j.Attempt), Epoch: int32(j.Epoch), Generation: int32(j.Generation),
		ArgsVersion: int32(j.ArgsVersion), Args: j.RawArgs, Subjects: j.Subjects, RequestedAt: j.RequestedAt,
	}
	if c.ID == uuid.Nil {
		c.ID = intent.NewID()
	}
	if c.TID == uuid.Nil {
		c.TID = c.ID
	}
	if c.Attempt == 0 {
		c.Attempt = 1
	}
	if c.Epoch == 0 {
		c.Epoch = c.Attempt
	}
	if c.ArgsVersion == 0 {
		c.ArgsVersion = int32(settings.ArgsVersion)
	}
	if c.RequestedAt.IsZero() {
		c.RequestedAt = time.Now()
	}
	if c.Args == nil {
		if c.Args, err = json.Marshal(j.Args); err != nil {
			t.Fatalf("intenttest: args cannot be written as JSON: %v", err)
		}
	}
	if j.Meta != nil {
		if c.Meta, err = json.Marshal(j.Meta); err != nil {
			t.Fatalf("intenttest: meta cannot be written as JSON: %v", err)
		}
	}
	return c
}

// open returns the handlers of a mux, which log to the test.
func open(t TB, mux *workers.Mux) rehearsal.Handlers {
	t.Helper()
	handlers, err := rehearsal.Open(mux, slog.New(slog.NewTextHandler(lines{t}, nil)))
	if err != nil {
		t.Fatalf("intenttest: %v", err)
	}
	return handlers
}

// lines are a test's log as a writer.
type lines struct{ t TB }

func (l lines) Write(p []byte) (int, error) {
	l.t.Logf("%s", p)
	return len(p), nil
}
