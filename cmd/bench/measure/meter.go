package measure

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

// Meter reads everything that one run costs.
type Meter struct {
	Admin    *pgx.Conn // to another database than the one that is measured
	Database string
	Postgres int   // pid of the postmaster
	Broker   int   // pid of the broker
	Workers  []int // pids of the worker processes
	Creator  int   // pid of the process that creates the jobs
}

// Reading is the state of all meters at one moment.
type Reading struct {
	At       time.Time
	Postgres time.Duration
	Broker   time.Duration
	Workers  time.Duration
	Creator  time.Duration
	Counters Counters
}

// Read reads all meters.
func (m *Meter) Read(ctx context.Context) (Reading, error) {
	r := Reading{At: time.Now()}
	var errs [3]error
	r.Postgres, errs[0] = CPU(m.Postgres)
	r.Broker, errs[1] = CPU(m.Broker)
	for _, pid := range m.Workers {
		cpu, err := CPU(pid)
		r.Workers, errs[2] = r.Workers+cpu, errors.Join(errs[2], err)
	}
	all, err := stats()
	if err == nil {
		r.Creator = all[m.Creator].Own // without its children: they are the workers
	}
	counters, countErr := ReadCounters(ctx, m.Admin, m.Database)
	r.Counters = counters
	return r, errors.Join(errs[0], errs[1], errs[2], err, countErr)
}

// Cost is what was used between two readings.
type Cost struct {
	Wall     time.Duration
	Postgres time.Duration
	Broker   time.Duration
	Workers  time.Duration
	Creator  time.Duration
	Counters Counters
}

// Since is the cost from an earlier reading to this one.
func (r Reading) Since(before Reading) Cost {
	return Cost{
		Wall: r.At.Sub(before.At), Postgres: r.Postgres - before.Postgres, Broker: r.Broker - before.Broker,
		Workers: r.Workers - before.Workers, Creator: r.Creator - before.Creator, Counters: r.Counters.Sub(before.Counters),
	}
}

// Add sums two phases of one run.
func (c Cost) Add(o Cost) Cost {
	return Cost{
		c.Wall + o.Wall, c.Postgres + o.Postgres, c.Broker + o.Broker, c.Workers + o.Workers, c.Creator + o.Creator,
		c.Counters.Add(o.Counters),
	}
}
