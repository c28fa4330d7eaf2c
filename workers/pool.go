package workers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/backoff"
	"github.com/writhq/writ/internal/rabbit"
	"github.com/writhq/writ/internal/store"
)

// Pool is a worker process: it claims intents of the mux's kinds and runs their handlers. Make it with [New].
type Pool struct {
	cfg     Config
	mux     *Mux
	pool    *pgxpool.Pool
	store   *store.Store
	amqpURL string
	id      uuid.UUID // new at each start, never used again
	host    string
	metrics *metrics

	application string // whose code this is

	pulse     pulse
	soon      chan struct{} // holds one token: beat now
	registry  registry
	slots     *slots
	finisher  *finisher
	reporter  *reporter
	executors *executors
	events    atomic.Pointer[rabbit.Consumer]
	near      chan store.Hint    // from the relay of this process
	probers   map[string]*prober // by kind
	clock     databaseClock
	valves    map[string]*valve // by kind
	stirred   chan struct{}     // holds one token: a valve may have opened or shut
	leasing   leasing

	handlers context.Context // parent of every handler's context; outlives Run's
	stop     context.CancelCauseFunc
	running  sync.WaitGroup  // handlers, and claims being resolved
	asking   context.Context // parent of every probe's context; ends with Run's
	cutShort context.CancelFunc
	probes   sync.WaitGroup
	settling context.Context // ends when nothing more is written to the database
	settled  context.CancelFunc

	draining atomic.Bool
	consumer atomic.Pointer[rabbit.Consumer]
	problem  atomic.Pointer[string]
}

// errDraining is why handlers' contexts are cancelled at shutdown.
var errDraining = errors.New("the worker is shutting down")

// New returns a worker process that does nothing until Run. pool is used for claims and outcomes, a handful of
// connections at most, and stays the caller's; the heartbeat has a connection of its own. The error lists every fault
// of the config and of the registrations.
func New(pool *pgxpool.Pool, amqpURL string, mux *Mux, cfg Config) (*Pool, error) {
	cfg, err := cfg.withDefaults()
	application, belongs := mux.belong(cfg.Application)
	if err := errors.Join(err, mux.check(), belongs); err != nil {
		return nil, err
	}
	if err := mux.wrap(); err != nil {
		return nil, err
	}
	if err := store.CheckPool(pool); err != nil {
		return nil, fmt.Errorf("workers: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	p := &Pool{
		cfg: cfg, mux: mux, pool: pool, store: store.New(pool), amqpURL: amqpURL,
		id: intent.NewID(), host: host, metrics: newMetrics(cfg.Metrics, mux.names()), slots: newSlots(cfg.Slots),
	}
	p.application = application
	p.pulse.ttl = cfg.TTL
	p.soon = make(chan struct{}, 1)
	p.near = make(chan store.Hint, maxNear)
	p.registry = newRegistry()
	p.stirred = make(chan struct{}, 1)
	p.openValves()
	p.finisher = newFinisher(p)
	p.reporter = newReporter(cfg, p.metrics.dropped)
	p.executors = newExecutors(p.attend)
	p.handlers, p.stop = context.WithCancelCause(context.Background())
	p.asking, p.cutShort = context.WithCancel(context.Background())
	p.openProbers()
	p.settling, p.settled = context.WithCancel(context.Background())
	p.leasing.ctx, p.leasing.cancel = context.WithCancel(context.Background())
	p.setProblem(errors.New("not running"))
	return p, nil
}

// ID of this worker process, as in the workers table.
func (p *Pool) ID() uuid.UUID { return p.id }

// Ready returns nil if the worker takes jobs, or what keeps it from that.
func (p *Pool) Ready() error {
	if problem := p.problem.Load(); problem != nil {
		return errors.New("worker: " + *problem)
	}
	if !p.pulse.alive() {
		return errors.New("worker: its heartbeat is not confirmed by the database, so it starts nothing new")
	}
	if c := p.consumer.Load(); c != nil {
		if s := c.State(); !s.Connected {
			return fmt.Errorf("worker: broker: %s", s.Reason)
		}
	}
	if c := p.events.Load(); c != nil {
		if s := c.State(); s.Reason != "" {
			return fmt.Errorf("worker: events: %s", s.Reason)
		}
	}
	return nil
}

func (p *Pool) setProblem(err error) {
	if err == nil {
		p.problem.Store(nil)
		return
	}
	text := err.Error()
	p.problem.Store(&text)
}

// Run works until ctx is cancelled: then it takes nothing new, lets running handlers go on for Config.Drain, cancels
// their contexts, writes all outcomes down, and returns nil. Outages of the database and the broker are survived. It
// returns an error only for a wrong AMQP URL, or a database that belongs to another application. Call it once.
func (p *Pool) Run(ctx context.Context) error {
	defer p.settled()
	defer p.cutShort()
	defer p.leasing.close()
	defer p.executors.close()
	consumer, err := p.newConsumer()
	if err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	p.consumer.Store(consumer)
	consuming := make(chan struct{})
	go func() { // it connects while the kinds are declared, and consumes nothing before
		defer close(consuming)
		if err := consumer.Run(ctx); err != nil && ctx.Err() == nil {
			p.setProblem(err)
		}
	}()
	stopConsuming := func() {
		_ = consumer.Close() // always nil
		<-consuming
	}
	defer stopConsuming()
	beating, endBeating := context.WithCancel(context.Background()) // it outlives ctx: whoever drains lives
	registered, beats := make(chan struct{}), make(chan struct{})
	go func() { defer close(beats); p.beat(beating, registered) }()
	stopBeating := func() {
		endBeating()
		<-beats
	}
	defer stopBeating()
	settings, err := p.register(ctx)
	if err != nil || ctx.Err() != nil {
		return err
	}
	intakes, err := p.intakes(settings.Installation)
	if err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	claimer := newClaimer(p, settings.Installation, consumer, intakes)
	claimer.tend(ctx) // before anything is consumed
	if err := consumer.SetQueues(slices.Sorted(maps.Keys(intakes))); err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	subscribed, err := p.subscribe(ctx, settings.Installation)
	if err != nil {
		return fmt.Errorf("worker: %w", err)
	}

	close(registered) // not before: who has beaten must sign off
	finishing := make(chan struct{})
	go func() { defer close(finishing); p.finisher.run(p.settling) }()

	telling, stopTelling := context.WithCancel(context.Background())
	defer stopTelling()
	if p.reporter != nil {
		go p.reporter.run(telling)
	}
	leaving := context.AfterFunc(ctx, p.leave)
	defer leaving()

	p.setProblem(nil)
	p.cfg.Log.Info("worker: started", "worker", p.id, "kinds", p.mux.names(), "slots", p.cfg.Slots)
	claimer.run(ctx)

	p.leave()       // also where the deliveries ended by themselves
	p.cutShort()    // others will ask
	stopConsuming() // what was not acked goes to others now
	p.drain()
	bound := time.AfterFunc(afterDrain, p.settled)
	p.finisher.close()
	<-finishing
	<-subscribed
	stopBeating()
	bound.Stop()
	p.leasing.close()
	left := p.registry.size()
	p.depart(left)
	stopTelling()
	p.reporter.awaitEnd()
	p.cfg.Log.Info("worker: stopped", "worker", p.id, "handlers_left", left)
	return nil
}

// leave has nothing begin any more, tells the handlers at their safe points, and the others with the next heartbeat.
func (p *Pool) leave() {
	p.draining.Store(true)
	p.beatSoon()
}

// register reads the settings and declares the kinds, trying until the database answers, and is the adopted one: a copy has
// the original's installation id, so that a worker on it would take the original's hints away. It returns early if ctx ends.
// The error is for good.
func (p *Pool) register(ctx context.Context) (store.Settings, error) {
	pause := backoff.New(100*time.Millisecond, 5*time.Second)
	for {
		settings, err := p.store.Settings(ctx)
		if err == nil && !settings.Adopted {
			err = errors.New(settings.Reason())
		}
		if err == nil {
			if err = p.own(ctx); forGood(err) {
				return settings, fmt.Errorf("worker: %w", err)
			}
		}
		if err == nil {
			err = p.store.Declare(ctx, p.mux.declarations())
		}
		if err == nil {
			err = p.declareSubscriptions(ctx, settings.Installation)
		}
		if err == nil {
			err = p.lookAtFlow(ctx, p.pool)
		}
		if err == nil {
			err = p.lookAtLimits(ctx, p.pool)
		}
		if err == nil {
			if why := settings.Reason(); why != "" {
				p.cfg.Log.Warn("worker: starting no jobs", "why", why)
			}
			return settings, nil
		}
		if ctx.Err() != nil {
			return settings, nil
		}
		p.setProblem(err)
		p.cfg.Log.Warn("worker: cannot register yet, trying again", "error", err)
		if !pause.Wait(ctx) {
			return settings, nil
		}
	}
}

func (p *Pool) newConsumer() (*rabbit.Consumer, error) {
	return rabbit.NewConsumer(rabbit.ConsumerConfig{
		Config:   rabbit.Config{URL: p.amqpURL, Name: "writ worker " + p.id.String(), Log: p.cfg.Log},
		Prefetch: min(p.cfg.Slots, maxPrefetch),
	})
}

// drain waits for the handlers, then cancels them and waits a little longer. The outcome of those that do not return is
// never written; the reconciler finds their rows when this process is gone.
func (p *Pool) drain() {
	defer p.stop(errDraining)
	done := make(chan struct{})
	go func() { p.running.Wait(); p.probes.Wait(); close(done) }()
	select {
	case <-done:
		return
	case <-time.After(p.cfg.Drain):
	}
	p.stop(errDraining)
	select {
	case <-done:
	case <-time.After(afterDrain):
	}
}
