package workers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/backoff"
	"github.com/writhq/writ/internal/rabbit"
	"github.com/writhq/writ/internal/store"
)

// How subscriptions move; not tunable.
const (
	// eventPrefetch bounds the messages of one subscription that wait here unacked.
	eventPrefetch = 64
	// inboxBatch is how many events one transaction settles.
	inboxBatch = 64
	// inboxPoll is how often events that failed are looked for, where there are no more of them than are taken at once.
	inboxPoll = time.Second
	// inboxAhead is how many of them are taken for each place that they may have.
	inboxAhead = 2
	// inboxGrace is how long past its timeout a try may take before others take the event over.
	inboxGrace = 30 * time.Second
)

// subscriber takes events from the broker and creates what the subscriptions return. Each subscription has a line of its
// own, with its own places and its own transactions, so that none waits for another.
type subscriber struct {
	*Pool
	store    *store.Store // on connections of its own: one for each line, and one to look for what failed
	consumer *rabbit.Consumer
	lines    map[string]*line // by the broker's name of the queue
	room     chan struct{}    // holds one token: a line has room for events that failed
	writing  sync.WaitGroup
}

// newSubscriber returns the subscriber of a mux that has subscriptions. The pool is the caller's to close.
func newSubscriber(p *Pool, installation uuid.UUID) (*subscriber, *pgxpool.Pool, error) {
	config := p.pool.Config()
	config.MinConns, config.MinIdleConns, config.MaxConns = 0, 0, int32(len(p.mux.subscriptions)+1)
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, nil, err
	}
	s := &subscriber{Pool: p, store: store.New(pool), lines: map[string]*line{}, room: make(chan struct{}, 1)}
	bindings := map[string]string{}
	for _, one := range p.mux.subscriptions {
		queue, err := rabbit.QueueName(installation, one.queue(p.application))
		if err != nil {
			pool.Close()
			return nil, nil, err
		}
		bindings[queue] = rabbit.EventExchange(one.event)
		s.lines[queue] = newLine(s, one)
	}
	s.consumer, err = rabbit.NewConsumer(rabbit.ConsumerConfig{
		Config: rabbit.Config{URL: p.amqpURL, Name: "writ subscriber " + p.id.String(), Log: p.cfg.Log},
		Queues: slices.Sorted(maps.Keys(bindings)), Bindings: bindings, Prefetch: eventPrefetch,
	})
	if err != nil {
		pool.Close()
		return nil, nil, err
	}
	return s, pool, nil
}

// run works until ctx ends; then it takes nothing new. It returns when what was begun is written, or may not be written
// any more.
func (s *subscriber) run(ctx context.Context) {
	consuming := make(chan struct{})
	go func() {
		defer close(consuming)
		if err := s.consumer.Run(ctx); err != nil && ctx.Err() == nil {
			s.setProblem(err)
		}
	}()
	routing := make(chan struct{})
	go func() {
		defer close(routing)
		for d := range s.consumer.Deliveries() {
			s.lines[d.Queue].put(arrival{letter: newLetter(d.Headers, d.ContentType, d.Body), delivery: &d})
		}
	}()
	s.pollDue(ctx)
	<-consuming
	<-routing
	s.writing.Wait()
	_ = s.consumer.Close() // what was not acked goes to others now; the error is always nil
}

// pollDue takes events that failed and are to be tried again, until ctx ends: now and then, and as soon as there is room
// while there are more.
func (s *subscriber) pollDue(ctx context.Context) {
	pause := backoff.New(inboxPoll, 30*time.Second)
	for ctx.Err() == nil {
		wait := inboxPoll
		more, err := s.takeDue(ctx)
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.Warn("worker: cannot look for events that are to be tried again", "error", err)
			wait, more = pause.Next(), false
		} else {
			pause.Settle(inboxPoll)
		}
		room := s.room
		if !more {
			room = nil
		}
		late := time.NewTimer(wait)
		select {
		case <-room:
		case <-late.C:
		case <-ctx.Done():
		}
		late.Stop()
	}
}

// takeDue reports whether there may be more than there was room for.
func (s *subscriber) takeDue(ctx context.Context) (more bool, err error) {
	byName := map[string]*line{}
	var names []string
	var most []int32
	longest := time.Duration(0)
	for _, l := range s.lines {
		name := l.full(s.application)
		byName[name] = l
		room := l.room()
		if room > 0 {
			names, most = append(names, name), append(most, int32(room))
			longest = max(longest, l.timeout)
		}
		more = more || room <= 0
	}
	if len(names) == 0 {
		return more, nil
	}
	asking, cancel := context.WithTimeout(ctx, s.cfg.TTL)
	defer cancel()
	due, err := s.store.DueArrivals(asking, names, most, (inboxAhead+1)*longest+inboxGrace)
	got := map[string]int32{}
	for _, a := range due {
		letter, err := restored(a.Headers, a.Payload)
		byName[a.Subscription].put(arrival{letter: letter, fault: err, failures: a.Failures})
		got[a.Subscription]++
	}
	for i, name := range names {
		more = more || got[name] == most[i]
	}
	return more, err
}

// arrival is an event in a line: from the broker, or from the inbox, where it failed before.
type arrival struct {
	letter   letter
	fault    error            // it cannot be read
	delivery *rabbit.Delivery // nil: from the inbox
	failures int32
}

// verdict is what a subscription made of an arrival.
type verdict struct {
	arrival
	store.Arrival
	event Event[json.RawMessage]
	news  []intent.New
	err   error
	back  bool // the shutdown cancelled it, so that err says nothing

	fresh   bool        // it was not taken before
	created []intent.ID // by it
}

// line is one subscription's.
type line struct {
	*subscription
	s        *subscriber
	verdicts chan verdict

	mu      sync.Mutex
	filled  *sync.Cond
	waiting []arrival // from the broker, bounded by the prefetch
	again   []arrival // from the inbox, bounded by room
	retries int       // of those that came from the inbox, in any stage
	trying  int       // of those, how many have a place
	turn    bool      // the next one is one of those, if they have a place left
	closed  bool
}

func newLine(s *subscriber, one *subscription) *line {
	l := &line{subscription: one, s: s, verdicts: make(chan verdict, inboxBatch)}
	l.filled = sync.NewCond(&l.mu)
	return l
}

// share is how many places those that failed before may have: the others are left to those that come from the broker.
func (l *line) share() int { return max(1, l.places/2) }

// room is how many events may be taken from the inbox now.
func (l *line) room() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return inboxAhead*l.share() - l.retries
}

func (l *line) put(a arrival) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.delivery == nil {
		l.retries++
		l.again = append(l.again, a)
		l.filled.Signal()
		return
	}
	if len(l.waiting) >= eventPrefetch { // some may be of a connection that is gone: they come, or have come, again
		l.waiting = slices.DeleteFunc(l.waiting, func(a arrival) bool { return a.delivery != nil && a.delivery.Stale() })
	}
	l.waiting = append(l.waiting, a)
	l.filled.Signal()
}

// next blocks until there is an arrival; false: the line is closed.
func (l *line) next() (a arrival, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.closed {
		old := len(l.again) > 0 && l.trying < l.share()
		switch {
		case old && (l.turn || len(l.waiting) == 0):
			a, l.again = l.again[0], l.again[1:]
			l.trying++
			l.turn = false
			return a, true
		case len(l.waiting) > 0:
			a, l.waiting = l.waiting[0], l.waiting[1:]
			l.turn = true
			return a, true
		}
		l.filled.Wait()
	}
	return a, false
}

// attended gives the place of one that failed before back.
func (l *line) attended(a arrival) {
	if a.delivery != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trying--
	l.filled.Signal()
}

// open starts the places and the writer. They end when ctx has ended, and what they had begun is written.
func (l *line) open(ctx context.Context) {
	context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.closed = true
		l.filled.Broadcast()
	})
	var places sync.WaitGroup
	for range l.places {
		l.s.running.Add(1) // the drain waits for it
		places.Go(func() {
			defer l.s.running.Done()
			for a, ok := l.next(); ok; a, ok = l.next() {
				v := l.attend(a)
				l.attended(a)
				select {
				case l.verdicts <- v:
				case <-l.s.settling.Done():
					return
				}
			}
		})
	}
	go func() { places.Wait(); close(l.verdicts) }()
	l.s.writing.Go(l.write)
}

// attend asks the subscription.
func (l *line) attend(a arrival) verdict {
	v := verdict{arrival: a}
	v.Source, v.EventID = a.letter.identity()
	v.Subscription, v.Failures, v.Headers, v.Payload = l.full(l.s.application), a.failures, a.letter.headers(), a.letter.body
	if v.err = a.fault; v.err == nil {
		v.event, v.err = a.letter.read(l.event)
	}
	if v.err != nil {
		v.err = fmt.Errorf("malformed: %w", v.err)
		return v
	}
	ctx, cancel := context.WithTimeout(l.cause(l.s.handlers, v.event), l.timeout)
	defer cancel()
	v.news, v.err = l.ask(ctx, v.event)
	v.back = v.err != nil && context.Cause(ctx) == errDraining
	return v
}

// cause is what the intents of an event inherit.
func (l *line) cause(ctx context.Context, e Event[json.RawMessage]) context.Context {
	return intent.WithCause(ctx, intent.Cause{TID: e.TID, Parent: e.Parent, Trace: e.Trace, Application: l.s.application})
}

// errEnded is what a subscription says that never returned.
var errEnded = errors.New("the subscription ended its goroutine")

// ask calls the application's code, in a goroutine that it may end (runtime.Goexit), and turns its panic into an error.
func (l *line) ask(ctx context.Context, e Event[json.RawMessage]) (news []intent.New, err error) {
	err = errEnded
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				err = &PanicError{Value: p, Stack: debug.Stack()}
				l.s.cfg.Log.Error("worker: a subscription panicked", "subscription", l.full(l.s.application), "event", e.ID, "tid", e.TID, "panic", p, "stack", string(debug.Stack()))
			}
		}()
		news, err = l.do(ctx, e)
	}()
	<-done
	return news, err
}
