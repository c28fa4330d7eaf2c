package workers

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/internal/store"
)

// pulse is when this process last knew that the database has its sign of life. Safe for concurrent use.
type pulse struct {
	ttl       time.Duration
	confirmed atomic.Pointer[time.Time] // from before the beat was sent, monotonic
	steady    atomic.Pointer[time.Time] // of the first beat since which none was missing
	lapses    atomic.Int64              // how often it was silent for a TTL
	lapsed    atomic.Pointer[time.Time] // when that was last found
}

// confirm is called by one goroutine.
func (p *pulse) confirm(sent time.Time) {
	last := p.confirmed.Load()
	if last == nil || sent.Sub(*last) > p.ttl/2 {
		p.steady.Store(&sent)
	}
	if last != nil && time.Since(*last) >= p.ttl {
		now := time.Now()
		p.lapsed.Store(&now)
		p.lapses.Add(1)
	}
	p.confirmed.Store(&sent)
}

// lapsedSince reports whether the process may have been taken for dead since then, and for alive again.
func (p *pulse) lapsedSince(t time.Time) bool {
	at := p.lapsed.Load()
	return at != nil && at.After(t)
}

// watched is for how long the process has been in touch with the database without a break: who has not cannot tell whether
// others are dead.
func (p *pulse) watched() time.Duration {
	t := p.steady.Load()
	if t == nil || !p.alive() {
		return 0
	}
	return time.Since(*t)
}

// alive reports whether others must still believe that this process lives.
func (p *pulse) alive() bool {
	t := p.confirmed.Load()
	return t != nil && time.Since(*t) < p.ttl
}

// beat writes the heartbeat until ctx ends, on a connection of its own: a busy pool must not make a worker look dead.
// Between beats it looks after handlers past their deadline.
//
// It connects at once, while the process still registers, and begins to beat when registered is closed.
func (p *Pool) beat(ctx context.Context, registered <-chan struct{}) {
	conn, _ := p.call(ctx) // without one the first beat calls again
	defer func() { hangUp(conn) }()
	select {
	case <-ctx.Done():
		return
	case <-registered:
	}
	var flags sync.WaitGroup
	defer flags.Wait()
	for tick := time.NewTicker(p.cfg.Heartbeat); ; {
		p.flagOverdue(&flags)
		kept := conn != nil // for a while: it may be lost by now
		var err error
		if conn, err = p.sendBeat(ctx, conn); err != nil && ctx.Err() == nil {
			p.cfg.Log.Warn("worker: heartbeat failed", "error", err, "alive", p.pulse.alive())
			hangUp(conn)
			conn = nil
			if kept {
				continue // on a new one: its failure is not tried again before the next beat
			}
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		case <-p.soon:
		}
	}
}

// beatSoon asks for a beat before its time; it does not block.
func (p *Pool) beatSoon() {
	select {
	case p.soon <- struct{}{}:
	default:
	}
}

// sendBeat connects if need be, beats, and then, on the same connection, writes down run times that have changed and
// reads what holds kinds back.
func (p *Pool) sendBeat(ctx context.Context, conn *pgx.Conn) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.TTL/2)
	defer cancel()
	if conn == nil {
		var err error
		if conn, err = p.call(ctx); err != nil {
			return nil, err
		}
	}
	stuck := 0
	for _, a := range p.registry.started() {
		if a.flagged.Load() {
			stuck++
		}
	}
	p.metrics.stuck.Set(float64(stuck))
	sent := time.Now()
	at, err := store.SendBeat(ctx, conn, store.Beat{
		ID: p.id, Host: p.host, PID: os.Getpid(), Version: p.cfg.Version, Kinds: p.mux.names(), Classes: p.mux.classes(), Slots: p.cfg.Slots,
		Running: p.slots.running(), Stuck: stuck, TTL: p.cfg.TTL, Draining: p.draining.Load(),
	})
	if err != nil {
		return conn, err
	}
	if dead := !p.pulse.alive(); dead {
		defer p.slots.loosen() // whoever waits for a slot waits for life, too
	}
	p.pulse.confirm(sent)
	p.clock.see(at, time.Now())
	for name, kind := range p.mux.kinds {
		if mean, ok := kind.run.news(); ok {
			if err := store.NoteRun(ctx, conn, name, mean); err != nil {
				return conn, err
			}
		}
	}
	if err := p.lookAtFlow(ctx, conn); err != nil {
		return conn, err
	}
	if err := p.lookAtLimits(ctx, conn); err != nil {
		return conn, err
	}
	return conn, p.reportBreakers(ctx, conn)
}

// call connects for the heartbeats, within half a TTL. Where has it come to? In a copy that nobody adopted it does not live,
// and so starts nothing.
func (p *Pool) call(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.TTL/2)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, p.pool.Config().ConnConfig.Copy())
	if err != nil {
		return nil, err
	}
	settings, err := store.ReadSettings(ctx, conn)
	if err == nil && !settings.Adopted {
		err = errors.New(settings.Reason())
	}
	if err != nil {
		hangUp(conn)
		return nil, err
	}
	return conn, nil
}

// flagOverdue flags rows whose handlers ignore their cancelled contexts. They keep slot and row: no outcome is written
// before they return. Idempotent kinds are never ambiguous; theirs only count as stuck.
func (p *Pool) flagOverdue(flags *sync.WaitGroup) {
	for _, a := range p.registry.started() {
		grace, why := overdue, "overdue"
		if a.returned.Load() {
			grace, why = unwritten, "unwritten"
		}
		if time.Since(a.due()) < grace || !a.flagged.CompareAndSwap(false, true) {
			continue
		}
		if !a.returned.Load() {
			a.note(failing)
		}
		a.log().Warn("worker: past its deadline without an outcome", "reason", why, "deadline", a.due())
		if a.kind.class == Idempotent {
			continue
		}
		flags.Go(func() {
			o := store.Outcome{ID: a.ID, Epoch: a.Epoch, Event: store.Flagged, Why: why, Probe: a.kind.class == Probed && why == "overdue"}
			event, _ := p.finisher.write(p.settling, a, o)
			p.metrics.kinds[a.Kind].finished(event)
			if event == store.Flagged {
				p.reporter.report(a, event, why, nil)
			}
		})
	}
}

// depart removes this worker's row if it holds nothing any more; otherwise its heartbeat grows old, and what it held is
// looked after.
func (p *Pool) depart(left int) {
	if left > 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, p.pool.Config().ConnConfig.Copy())
	if err == nil {
		err = store.Depart(ctx, conn, p.id)
		hangUp(conn)
	}
	if err != nil {
		p.cfg.Log.Warn("worker: could not sign off; its row grows old instead", "error", err)
	}
}

func hangUp(conn *pgx.Conn) {
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // the server finds out by itself
}
