package workers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/writhq/writ/internal/store"
)

// start runs the handler of a claimed intent in a goroutine of its own. sent is when its claim was first sent: the local
// deadline counts from there, so that it never lies behind the database's. A claim that came back too late, to a
// process that must be taken for dead, or to one that is to end, is not run: it is given back as not done, with no attempt
// spent.
func (p *Pool) start(c store.Claimed, sent time.Time, through pass) {
	v := p.valves[c.Kind]
	kind := v.kind
	if v.breaker == nil {
		through = 0 // a hint written by hand may name another kind
	}
	a := &attempt{
		Claimed: c, kind: kind, valve: v, pass: through, worker: p.id, deadline: sent.Add(kind.Timeout), started: time.Now(),
		logger: p.cfg.Log, desk: p.store, patience: p.cfg.TTL, draining: &p.draining,
	}
	if kind.maxExtend > 0 {
		a.clock = newMovable(a.cause(p.handlers), a.deadline)
	}
	p.registry.start(claim{c.ID, c.Epoch - 1}, a)
	p.metrics.kinds[c.Kind].claimed().Inc()
	why := ""
	switch {
	case p.draining.Load(): // its claim was under way when the process was told to end
		why = "not begun: the worker is shutting down"
	case !p.pulse.alive() || v.share.limited.Load() && p.pulse.lapsedSince(sent) || !time.Now().Before(a.deadline):
		why = "claimed too late to begin"
	}
	if why != "" {
		if a.clock != nil {
			a.clock.cancel()
		}
		a.returned.Store(true)
		v.without(claim{c.ID, c.Epoch - 1}, through)
		p.slots.returned(1)
		p.finisher.submit(a, store.Outcome{ID: c.ID, Epoch: c.Epoch, Event: store.Retried, Free: true, Why: why})
		return
	}
	p.running.Add(1)
	p.executors.run(a)
}

// attend runs an attempt, from its handler's start to handing its outcome over.
func (p *Pool) attend(a *attempt) {
	defer p.running.Done()
	var o store.Outcome
	returned := false
	defer func() { // deferred, for a handler may end its goroutine (runtime.Goexit)
		if !returned {
			o, a.failure = judgeSafely(p.handlers, a, errGone)
			a.note(failing)
		}
		a.returned.Store(true)
		a.valve.done(claim{a.ID, a.Epoch - 1})
		p.slots.returned(1)
		p.finisher.submit(a, o)
	}()
	o = p.execute(a)
	returned = true
}

// errGone is what a handler says that never returned.
var errGone = Unknown(errors.New("the handler ended its goroutine"))

// execute calls the handler and judges what it says.
func (p *Pool) execute(a *attempt) store.Outcome {
	ctx, cancel := a.context(p.handlers)
	defer cancel()
	began := time.Now()
	err := call(ctx, a)
	took := time.Since(began)
	if a.kind.run.add(took) {
		p.beatSoon()
	}

	o, err := judgeSafely(ctx, a, err)
	a.note(meaningOf(ctx, err))
	p.metrics.kinds[a.Kind].ran(o.Event, took)
	if err != nil {
		a.failure = err
		a.log().Info("worker: attempt ended", "outcome", o.Event, "why", o.Why, "error", err, "took", took)
		var panicked *PanicError
		if errors.As(err, &panicked) {
			a.log().Error("worker: the handler panicked", "panic", panicked.Value, "stack", string(panicked.Stack))
		}
	}
	return o
}

// note tells the kind's breaker what the end of the attempt says of the outside system; the first word counts.
func (a *attempt) note(m meaning) {
	if a.pass > 0 && !a.noted.Swap(true) {
		a.valve.breaker.note(a.pass, m)
	}
}

// judgeSafely judges an error that may itself panic when it is asked, as a typed nil pointer does: it must not take the
// process with it, and with that all that runs beside it. It returns the error that can be asked.
func judgeSafely(ctx context.Context, a *attempt, err error) (o store.Outcome, sane error) {
	defer func() {
		if p := recover(); p != nil {
			sane = &PanicError{Value: fmt.Sprintf("the error that the handler returned panics: %v", p)}
			o = judge(ctx, a, sane)
		}
		if o.Event == store.Failed {
			o.Hook = onErrorHook(a, sane)
		}
	}()
	return judge(ctx, a, err), err
}

// context is that of the handler: it ends at the deadline, and with its parent.
func (a *attempt) context(parent context.Context) (context.Context, context.CancelFunc) {
	if a.clock != nil {
		return a.clock, a.clock.cancel
	}
	a.plain.at, a.plain.parent, a.plain.cause = a.deadline, parent, a
	return &a.plain, a.plain.end
}

// call runs the handler and turns its panic into an error.
func call(ctx context.Context, a *attempt) (err error) {
	defer recovered(&err)
	return a.kind.do(ctx, a)
}
