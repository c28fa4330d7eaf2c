package workload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/reconciler"

	"github.com/writhq/writ/cmd/bench/contender"
	"github.com/writhq/writ/cmd/bench/report"
)

const (
	// tickSteady is how long the reconciler must have seen the database run before it looks for dead workers; ticks before
	// that do less and are not counted.
	tickSteady = 12 * time.Second
	tickFor    = 20 * time.Second
	// tickGap ends a tick: its statements follow each other more closely, and the next one comes a second later.
	tickGap = 50 * time.Millisecond
	// tickBegins is what only the first statement of a tick speaks of: the lease.
	tickBegins = "writ.leader"
)

// Tick times the looks of a reconciler that finds nothing to do, at their most expensive: 100,000 pending rows that are due
// for so long that each must be looked at, and the full sweep and the search for old rows at every look.
func Tick(c contender.Writ) Workload {
	return Workload{
		Name: "tick", Title: "a reconciler's look, each with full sweep, 100,000 rows pending and overdue, beside finished ones", Length: Long, Rounds: tickRounds,
		Turns: []Turn{{Contender: c, Variant: oneFull, Number: fewRows}, {Contender: c, Variant: manyFull, Number: manyRows}},
		Run: func(ctx context.Context, e *Env, t Turn) (Sample, error) {
			f, err := e.withFinished(ctx, c, t.Number)
			if err != nil {
				return Sample{}, err
			}
			if open, err := c.Open(ctx, f.target); err != nil {
				return Sample{}, err
			} else if !open {
				if err := c.Fill(ctx, f.target, contender.Stale, e.scaled(tickIdle), contender.Args{}); err != nil {
					return Sample{}, err
				}
			}
			if err := f.settle(ctx); err != nil {
				return Sample{}, err
			}
			if err := c.Freshen(ctx, f.target); err != nil {
				return Sample{}, err
			}
			return f.ticks(ctx)
		},
	}
}

// ticks runs a reconciler in this process and times its looks by its statements.
func (f *field) ticks(ctx context.Context) (Sample, error) {
	config, err := pgxpool.ParseConfig(f.target.DatabaseURL)
	if err != nil {
		return Sample{}, err
	}
	watch := &statementWatch{}
	config.ConnConfig.Tracer = watch
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return Sample{}, err
	}
	defer pool.Close()
	r, err := reconciler.New(pool, reconciler.Config{
		Schedule: "@every 1s", Schedules: map[reconciler.Duty]string{reconciler.Sweep: "@every 1s", reconciler.Prune: "@every 1s"}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return Sample{}, err
	}
	running, stop := context.WithTimeout(ctx, tickSteady+tickFor)
	defer stop()
	began := time.Now()
	if err := r.Run(running); err != nil {
		return Sample{}, err
	}
	if err := ctx.Err(); err != nil {
		return Sample{}, err
	}
	ms := watch.ticks(began.Add(tickSteady))
	if len(ms) < int(tickFor.Seconds())/2 {
		return Sample{}, fmt.Errorf("saw %d looks of the reconciler in %v (is there still a statement about %s?): %w", len(ms), tickFor, tickBegins, errors.Join(r.Ready()))
	}
	return Sample{Metrics: Metrics{"tick_ms": report.Median(ms), "tick_max_ms": slices.Max(ms), "ticks": float64(len(ms))}}, nil
}

// statementWatch notes when statements began and ended. It is safe for concurrent use.
type statementWatch struct {
	mu   sync.Mutex
	seen []*statement
}

type statement struct {
	sql        string
	begun, end time.Time
}

type statementKey struct{}

// TraceQueryStart implements pgx.QueryTracer.
func (w *statementWatch) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	return w.begin(ctx, data.SQL)
}

// TraceQueryEnd implements pgx.QueryTracer.
func (w *statementWatch) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryEndData) {
	w.end(ctx)
}

// TraceBatchStart implements pgx.BatchTracer.
func (w *statementWatch) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	var all strings.Builder
	for _, q := range data.Batch.QueuedQueries {
		all.WriteString(q.SQL)
	}
	return w.begin(ctx, all.String())
}

// TraceBatchQuery implements pgx.BatchTracer.
func (w *statementWatch) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

// TraceBatchEnd implements pgx.BatchTracer.
func (w *statementWatch) TraceBatchEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchEndData) {
	w.end(ctx)
}

func (w *statementWatch) begin(ctx context.Context, sql string) context.Context {
	s := &statement{sql: sql, begun: time.Now()}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, s)
	return context.WithValue(ctx, statementKey{}, s)
}

func (w *statementWatch) end(ctx context.Context) {
	if s, ok := ctx.Value(statementKey{}).(*statement); ok {
		w.mu.Lock()
		s.end = time.Now()
		w.mu.Unlock()
	}
}

// ticks are the lengths, in ms, of the ticks that began after a moment: from a statement about the lease to the end of the
// last one that followed closely. The very last is left out, as it may have been cut off.
func (w *statementWatch) ticks(after time.Time) []float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	var lengths []float64
	var from, to time.Time
	for _, s := range w.seen {
		switch {
		case s.end.IsZero():
		case strings.Contains(s.sql, tickBegins):
			if from.After(after) {
				lengths = append(lengths, to.Sub(from).Seconds()*1000)
			}
			from, to = s.begun, s.end
		case s.begun.Sub(to) < tickGap && s.end.After(to):
			to = s.end
		}
	}
	return lengths
}
