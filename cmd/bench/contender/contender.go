// Package contender holds the systems that are measured, behind one interface: how each makes its tables, creates jobs,
// says that all are finished, and is run as a process of its own.
package contender

import (
	"context"
	"fmt"
	"os/exec"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Args are the arguments of every job, the same for all contenders.
type Args struct {
	N    int64 `json:"n"`
	At   int64 `json:"at,omitempty"`   // microseconds since 1970 from which its latency counts; 0: it is not timed
	Wait int64 `json:"wait,omitempty"` // milliseconds that the handler sleeps
}

// Options of a worker process.
type Options struct {
	Slots int      // handlers at once
	Kinds int      // kinds of jobs it handles, at least 1
	Roles []string // parts of Writ to run; empty: all
}

// Target is a database and the broker that belong to one run.
type Target struct {
	DatabaseURL string
	AMQPURL     string
	Pool        *pgxpool.Pool // of the process that creates jobs and looks at them
}

// Contender is one system in one setting. Its methods are called from one goroutine, but for Create.
type Contender interface {
	// Name is short, and unique among contenders.
	Name() string
	// About says in a line what is measured: version, settings, and in what it differs from the others.
	About() string
	// Migrate makes the schema in an empty database, which is then cloned for each run.
	Migrate(ctx context.Context, databaseURL string) error
	// Adopt makes a clone usable; nothing runs on it yet. o is how the workers will be started.
	Adopt(ctx context.Context, t Target, o Options) error
	// Leave removes what a run left outside of its database.
	Leave(ctx context.Context, t Target, o Options) error
	// Create creates one job that belongs to no other write, by the call that the system has for that, in a transaction
	// of its own. Safe for concurrent use.
	Create(ctx context.Context, t Target, args Args) error
	// CreateTx creates one job in a transaction that the application begins and commits. Safe for concurrent use.
	CreateTx(ctx context.Context, t Target, args Args) error
	// CreateMany creates n jobs, spread over so many kinds, in one transaction.
	CreateMany(ctx context.Context, t Target, n, kinds int, args Args) error
	// Open reports whether a job that is due is not yet finished, by the database.
	Open(ctx context.Context, t Target) (bool, error)
	// Worker is the command of a worker process, which speaks the protocol of Work.
	Worker(t Target, o Options) (*exec.Cmd, error)
	// Slots is how many handlers a process runs at once unless a workload says otherwise.
	Slots() int
}

// kindName is the name of the kind with this number, for systems that want one word.
func kindName(i int) string { return fmt.Sprintf("noop_%03d", i) }

// poolSize is the most connections that a worker process may hold, the same for all that use pgx.
const poolSize = 20
