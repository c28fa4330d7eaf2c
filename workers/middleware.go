package workers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/writhq/writ/intent"
)

// Do carries out one attempt at a job of any kind, whose arguments are JSON.
type Do func(ctx context.Context, job *Job[json.RawMessage]) error

// Middleware wraps the code of a kind, as the layers of an onion: what it returns is called in place of next, mostly calls next, and
// sees and may change what that returns, on which the outcome depends. It is called once for each kind, when the pool
// is made; what it returns may run concurrently with itself.
//
// An attempt runs its handler once: next called again does nothing, and returns an error that leaves the outcome open; to try again is what
// the next attempt is for. A middleware that returns while next is still running, in a goroutine of its own, is waited for, and then
// what next returns counts: only the handler knows when it is no more at work.
//
// A panic of the handler comes out of next as a *[PanicError]. A panic of the middleware itself is taken for the handler's. So is a nil without a call
// of next: the job is then done. Arguments are decoded, and held to their schema, within next.
type Middleware func(next Do) Do

// Use wraps the handlers of all kinds of the mux, also of those that are registered later; the first one is the outermost. Handler.Use adds
// layers for one kind within these. Probes, recovery functions, hooks and subscriptions are not wrapped. Without any, nothing is
// wrapped and nothing paid for it.
func (m *Mux) Use(layers ...Middleware) {
	m.layers = append(m.layers, layers...)
	m.noneNil("Mux.Use", layers)
}

func (m *Mux) noneNil(where string, layers []Middleware) {
	for _, layer := range layers {
		if layer == nil {
			m.faults = append(m.faults, fmt.Errorf("workers: %s: a Middleware is nil", where))
		}
	}
}

// wrap puts the layers around all handlers, once, when the mux is full and without faults. The error names the kinds that a layer
// made nothing of.
func (m *Mux) wrap() error {
	m.wrapping.Do(func() {
		for _, name := range m.names() {
			r := m.kinds[name]
			layers := append(append([]Middleware(nil), m.layers...), r.layers...)
			if len(layers) == 0 {
				continue
			}
			inner := r.do
			do := Do(func(ctx context.Context, job *Job[json.RawMessage]) error {
				return job.attempt.passage.through(func() error { return inner(ctx, job.attempt) })
			})
			for i := len(layers) - 1; i >= 0; i-- {
				if do = layers[i](do); do == nil {
					m.unwrapped = errors.Join(m.unwrapped, fmt.Errorf("workers: kind %s: a Middleware returned nil in place of a function", name))
					break
				}
			}
			r.do = func(ctx context.Context, a *attempt) error {
				a.passage = &passage{done: make(chan struct{})}
				return a.passage.around(func() error { return do(ctx, &Job[json.RawMessage]{Args: a.Args, attempt: a}) })
			}
		}
	})
	return m.unwrapped
}

// passage is one attempt's way through its layers to its handler.
type passage struct {
	mu    sync.Mutex
	begun bool          // the handler was
	over  bool          // the outermost layer has returned
	done  chan struct{} // closed when the handler has returned
	said  error         // what it returned then
}

// errNextAgain is what next returns that is not to run the handler.
var errNextAgain = Unknown(errors.New("a middleware called next again, or after it had returned: an attempt runs its handler once"))

// through runs the handler, the first time.
func (p *passage) through(handler func() error) (err error) {
	p.mu.Lock()
	refused := p.begun || p.over
	p.begun = true
	p.mu.Unlock()
	if refused {
		return errNextAgain
	}
	err = errGone // unless it returns
	defer func() { p.said = err; close(p.done) }()
	defer recovered(&err)
	return handler()
}

// around runs the layers, and does not return, or panic, before the handler has returned. If it had to wait for that, what the
// handler says counts.
func (p *passage) around(layers func() error) (err error) {
	defer func() {
		p.mu.Lock()
		p.over = true
		begun := p.begun
		p.mu.Unlock()
		if !begun {
			return
		}
		select {
		case <-p.done:
		default:
			<-p.done
			err = p.said
		}
	}()
	return layers()
}

// recovered makes an error of a panic; it is to be deferred.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = &PanicError{Value: p, Stack: debug.Stack()}
	}
}

// Logging is a middleware that writes a line when an attempt begins and one when its handler has returned, with the job's id, tid, kind and
// attempt, at a level of its own. Without it the engine logs only what did not end well.
func Logging(level slog.Level) Middleware {
	return func(next Do) Do {
		return func(ctx context.Context, job *Job[json.RawMessage]) error {
			log := job.Log()
			log.Log(ctx, level, "job: begun", "epoch", job.Epoch())
			began := time.Now()
			err := next(ctx, job)
			took := slog.Duration("took", time.Since(began))
			if err != nil {
				log.Log(ctx, level, "job: returned", took, slog.Any("error", err))
			} else {
				log.Log(ctx, level, "job: returned", took)
			}
			return err
		}
	}
}

// Span begins a span of a tracing library around an attempt: as a child of the traceparent that job.Trace returns, if that is not empty. It
// returns the handler's context with the span in it, the span's own W3C traceparent, and what ends the span with the handler's
// error.
type Span func(ctx context.Context, job *Job[json.RawMessage]) (inside context.Context, traceparent string, end func(error))

// Tracing is a middleware that puts a span around each attempt; what the job creates and publishes inherits the span's
// traceparent in place of the intent's. It links no tracing library: docs/kinds.md has the few lines for OpenTelemetry.
func Tracing(begin Span) Middleware {
	return func(next Do) Do {
		return func(ctx context.Context, job *Job[json.RawMessage]) error {
			ctx, traceparent, end := begin(ctx, job)
			err := errGone // unless it returns
			defer func() { end(err) }()
			if traceparent != "" {
				cause := intent.CauseOf(ctx)
				cause.Trace = traceparent
				ctx = intent.WithCause(ctx, cause)
			}
			err = next(ctx, job)
			return err
		}
	}
}
