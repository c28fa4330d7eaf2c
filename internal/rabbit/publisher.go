package rabbit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/writhq/writ/internal/backoff"
)

// Publisher publishes with confirms on a connection of its own, which it keeps
// up from NewPublisher to Close. All methods are safe for concurrent use; calls
// of Publish take turns.
type Publisher struct {
	cfg  Config
	stop context.CancelFunc
	done chan struct{} // closed when supervise has returned
	turn chan struct{} // holds one token: who took it owns session.channel

	mu      sync.Mutex
	session *session      // nil while there is no connection
	problem error         // why there is none; nil only until the first attempt has ended
	blocked *string       // the broker's reason, while it is blocked
	changed chan struct{} // closed, and replaced, when one of the above changes
}

// session is one connection's life.
type session struct {
	link    *link
	closed  chan *amqp.Error
	blocks  chan amqp.Blocking
	channel *channel      // owned by the holder of the turn
	retired *amqp.Channel // given up during an alarm, still to be closed; likewise
}

// State is a glance at a connection, for readiness and metrics.
type State struct {
	Connected bool
	Blocked   bool   // by an alarm of the broker; publishing is refused meanwhile
	Reason    string // why it is not connected, blocked, or not consuming a queue; else empty
}

// NewPublisher returns a publisher that connects in the background. It does not
// block. The error lists every fault of the config. The caller closes it.
func NewPublisher(cfg Config) (*Publisher, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &Publisher{cfg: cfg, stop: stop, done: make(chan struct{}), turn: make(chan struct{}, 1), changed: make(chan struct{})}
	p.turn <- struct{}{}
	go p.supervise(ctx)
	return p, nil
}

// Close closes the connection and waits for that, at most two seconds or so.
// Messages being published are left Unknown. The error is always nil.
func (p *Publisher) Close() error {
	p.stop()
	<-p.done
	return nil
}

// State returns the state of the connection. It does not block.
func (p *Publisher) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.session == nil && p.problem == nil:
		return State{Reason: "connecting"}
	case p.session == nil:
		return State{Reason: p.problem.Error()}
	case p.blocked != nil:
		return State{Connected: true, Blocked: true, Reason: *p.blocked}
	default:
		return State{Connected: true}
	}
}

// Wait blocks until the publisher is connected and not blocked, so that a relay
// can pause instead of asking again and again. The error is ErrClosed, or what
// ended ctx.
func (p *Publisher) Wait(ctx context.Context) error {
	for {
		p.mu.Lock()
		ready, closed, changed := p.session != nil && p.blocked == nil, errors.Is(p.problem, ErrClosed), p.changed
		p.mu.Unlock()
		switch {
		case closed:
			return ErrClosed
		case ready:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// current returns the session to publish on. It blocks only while the very first
// attempt to connect is under way. The error is ErrBlocked, ErrDisconnected,
// ErrClosed, or what ended ctx.
func (p *Publisher) current(ctx context.Context) (*session, error) {
	for {
		p.mu.Lock()
		s, problem, blocked, changed := p.session, p.problem, p.blocked, p.changed
		p.mu.Unlock()
		switch {
		case s != nil && blocked != nil:
			return nil, fmt.Errorf("%w: %s", ErrBlocked, *blocked)
		case s != nil:
			return s, nil
		case problem != nil:
			return nil, problem
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// supervise keeps a session until ctx ends. It is the owner of the connection's
// notifications.
func (p *Publisher) supervise(ctx context.Context) {
	defer close(p.done)
	log := p.cfg.Log.With(slog.String("connection", p.cfg.Name), slog.String("broker", Redact(p.cfg.URL)))
	wait := backoff.New(minBackoff, maxBackoff)
	for level := slog.LevelWarn; ctx.Err() == nil; {
		began := time.Now()
		s, err := newSession(ctx, p.cfg)
		if err == nil {
			log.Info("broker connected")
			p.enter(s)
			err = p.leave(s, p.watch(ctx, s))
			s.link.close()
			wait.Settle(time.Since(began))
			level = slog.LevelWarn
		}
		if ctx.Err() != nil {
			break
		}
		_ = p.leave(nil, err)
		log.Log(ctx, level, "broker not connected", slog.Any("error", err))
		level = slog.LevelDebug // once is enough: State tells that it lasts
		wait.Wait(ctx)
	}
	_ = p.leave(nil, ErrClosed)
}

func newSession(ctx context.Context, cfg Config) (*session, error) {
	l, err := dial(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &session{
		link:   l,
		closed: l.conn.NotifyClose(make(chan *amqp.Error, 1)),
		blocks: l.conn.NotifyBlocked(make(chan amqp.Blocking, 16)),
	}, nil
}

// watch blocks until the connection is gone or ctx ends, and says why.
func (p *Publisher) watch(ctx context.Context, s *session) error {
	blocks := s.blocks
	for {
		select {
		case <-ctx.Done():
			return ErrClosed
		case e := <-s.closed:
			if e == nil {
				return ErrDisconnected
			}
			return fmt.Errorf("%w: %w", ErrDisconnected, e)
		case b, ok := <-blocks:
			if !ok {
				blocks = nil
				continue
			}
			p.block(s, b)
		}
	}
}

func (p *Publisher) enter(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.session, p.problem, p.blocked = s, nil, nil
	p.wake()
}

// leave forgets the session and says why it ended. If Publish has seen that
// before, its reason counts. It does nothing if another session is in its place.
func (p *Publisher) leave(s *session, why error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session != s {
		return cmp.Or(p.problem, why)
	}
	p.session, p.problem, p.blocked = nil, why, nil
	p.wake()
	return why
}

func (p *Publisher) block(s *session, b amqp.Blocking) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session != s {
		return
	}
	p.blocked = nil
	level, message := slog.LevelInfo, "broker unblocked"
	if b.Active {
		p.blocked = &b.Reason
		level, message = slog.LevelWarn, "broker blocked"
	}
	p.cfg.Log.Log(context.Background(), level, message, slog.String("connection", p.cfg.Name), slog.String("reason", b.Reason))
	p.wake()
}

// wake is called with mu held.
func (p *Publisher) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// drop gives up a session's connection at once; supervise makes a new one.
func (p *Publisher) drop(s *session, why error) {
	_ = p.leave(s, why)
	s.link.sever()
}

func (p *Publisher) isBlocked() bool {
	_, blocked := p.glance()
	return blocked
}

// glance returns a channel that is closed when the state changes, and part of it.
func (p *Publisher) glance() (changed <-chan struct{}, blocked bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed, p.blocked != nil
}
