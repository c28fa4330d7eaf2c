// Package rehearsal is how package intent/intenttest runs an application's handlers as package workers does, without
// showing those who use package workers a way to run them otherwise.
package rehearsal

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/internal/store"
)

// Open returns the handlers of a *workers.Mux, or the faults of their registration. Package workers sets it.
var Open func(mux any, log *slog.Logger) (Handlers, error)

// Stage is what a handler finds beside its job, and, without a store, leaves.
type Stage struct {
	Progress []byte // JSON; nil: none
	Draining atomic.Bool
}

// Delivered is what became of an event at a subscription.
type Delivered struct {
	Subscription string
	Created      []uuid.UUID
	Repeated     bool
	Err          error
}

// Handlers are those of a mux. Not safe for concurrent use.
type Handlers interface {
	// Declarations of the kinds, as a worker writes them down.
	Declarations() []store.Declaration
	// Timeout of a kind's attempts.
	Timeout(kind string) time.Duration
	// Attend runs one attempt and judges it. s is where the handler's safe points go; nil: nowhere. force, if it is not nil, takes
	// the place of the handler.
	Attend(ctx context.Context, s *store.Store, stage *Stage, worker uuid.UUID, c store.Claimed, force func() error) (store.Outcome, error)
	// Write writes an outcome down, as often as a worker would where the application's share in it fails.
	Write(ctx context.Context, s *store.Store, worker uuid.UUID, c store.Claimed, o store.Outcome) (event string, err error)
	// Ask asks a kind's probe.
	Ask(ctx context.Context, asking *store.Asking) store.Answer
	// Application that the mux belongs to.
	Application() string
	// Deliver hands an event to all subscriptions to it, as a worker does with a message.
	Deliver(ctx context.Context, s *store.Store, event string, headers map[string]any, body []byte) ([]Delivered, error)
	// Recover returns the states in which a kind has a share of its own in a verdict, and that share.
	Recover(worker uuid.UUID, kind string) (states []string, share func(ctx context.Context, tx pgx.Tx, o store.Owed) error)
}
