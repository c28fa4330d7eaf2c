package rabbit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/writhq/writ/internal/backoff"
)

// The defaults of ConsumerConfig.
const (
	defaultPrefetch = 64
	defaultBuffer   = 256
	maxPrefetch     = 65535 // the protocol's field has 16 bits
)

// ConsumerConfig configures a Consumer. The zero value of each field but
// Config.URL is its default.
type ConsumerConfig struct {
	Config
	// Queues are the broker's names (see QueueName) of the queues to consume from
	// the start; SetQueues changes them. Default: none.
	Queues []string
	// Bindings name the fanout exchange that a queue is bound to, by queue; both are declared. Default: none.
	Bindings map[string]string
	// Prefetch is how many unacked deliveries the broker lets each queue have
	// here. 1 to 65,535. Default: 64.
	Prefetch int
	// Buffer is how many deliveries wait in the channel of Deliveries; the rest of
	// what was prefetched waits in the library. Default: 256.
	Buffer int
}

func (c ConsumerConfig) withDefaults() (ConsumerConfig, error) {
	var err error
	c.Config, err = c.Config.withDefaults()
	errs := []error{err}
	if c.Prefetch < 0 || c.Prefetch > maxPrefetch {
		errs = append(errs, fmt.Errorf("rabbit: ConsumerConfig.Prefetch is %d; it must be 1 to %d", c.Prefetch, maxPrefetch))
	}
	if c.Buffer < 0 {
		errs = append(errs, fmt.Errorf("rabbit: ConsumerConfig.Buffer is %d; it must not be negative", c.Buffer))
	}
	errs = append(errs, checkQueues(c.Queues))
	if c.Prefetch == 0 {
		c.Prefetch = defaultPrefetch
	}
	if c.Buffer == 0 {
		c.Buffer = defaultBuffer
	}
	return c, errors.Join(errs...)
}

func checkQueues(queues []string) error {
	var errs []error
	for _, q := range queues {
		if q == "" || len(q) > maxShortstr {
			errs = append(errs, fmt.Errorf("rabbit: queue name of %d bytes; it has 1 to %d", len(q), maxShortstr))
		}
	}
	return errors.Join(errs...)
}

// Consumer consumes a changing set of queues over one connection and one channel,
// which Run keeps up. All methods are safe for concurrent use.
type Consumer struct {
	cfg        ConsumerConfig
	deliveries chan Delivery
	news       chan struct{} // holds one token: queues has changed
	ended      chan struct{} // closed when Run has returned
	faults     faults        // only Run's goroutine touches it

	mu      sync.Mutex
	queues  []string
	limits  map[string]int // prefetch of the queues that have another than the common one
	state   State
	stop    context.CancelFunc // ends Run; nil until it has begun
	closed  bool
	drained *link // left open by Run, for acks, until Close
}

// NewConsumer returns a consumer that does nothing until Run. It does not block.
// The error lists every fault of the config.
func NewConsumer(cfg ConsumerConfig) (*Consumer, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Consumer{
		cfg:        cfg,
		deliveries: make(chan Delivery, cfg.Buffer),
		news:       make(chan struct{}, 1),
		ended:      make(chan struct{}),
		faults:     faults{},
		queues:     slices.Clone(cfg.Queues),
		state:      State{Reason: "not running"},
	}, nil
}

// Deliveries returns the channel of what arrives, of all queues. A receive that
// does not block finds what waits. It is closed when Run returns; what is then
// still in it can be received and acked until Close.
func (c *Consumer) Deliveries() <-chan Delivery { return c.deliveries }

// SetQueues replaces the set of queues. It does not block: Run declares and
// consumes the new ones, and stops consuming those that are gone; their
// deliveries that are already here still come and can be acked.
func (c *Consumer) SetQueues(queues []string) error {
	if err := checkQueues(queues); err != nil {
		return err
	}
	c.mu.Lock()
	c.queues = slices.Clone(queues)
	c.mu.Unlock()
	select {
	case c.news <- struct{}{}:
	default: // Run has not looked yet: it will see this set
	}
	return nil
}

// Held as a queue's prefetch means that it is declared, and not consumed.
const Held = -1

// SetPrefetch replaces the prefetch of single queues: [Held], or 1 to 65,535; those
// that are not named, or named with 0, have the config's. It does not block: Run
// consumes a queue anew whose prefetch has changed, and stops consuming those that
// are held; deliveries that are already here still come and can be acked.
func (c *Consumer) SetPrefetch(limits map[string]int) error {
	for queue, n := range limits {
		if n < Held || n > maxPrefetch {
			return fmt.Errorf("rabbit: a prefetch of %d for queue %q; it must be Held, or 0 to %d", n, queue, maxPrefetch)
		}
	}
	c.mu.Lock()
	c.limits = maps.Clone(limits)
	c.mu.Unlock()
	select {
	case c.news <- struct{}{}:
	default: // Run has not looked yet: it will see these
	}
	return nil
}

// prefetch is how a queue is wanted.
func (c *Consumer) prefetch(queue string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return cmp.Or(c.limits[queue], c.cfg.Prefetch)
}

func (c *Consumer) wanted() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queues // never changed in place
}

// State returns the state of the connection. Its Reason tells of a queue that
// cannot be consumed, while the others are. It does not block.
func (c *Consumer) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

func (c *Consumer) setState(s State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = s
}

// Run consumes until ctx is cancelled, connecting again whenever the connection
// or the channel is lost, and then returns nil. Each queue is declared first (as
// a durable quorum queue), so that deleting one only empties it. A queue that
// cannot be declared or consumed is tried again and again, at most a minute apart,
// and does not hold up the others.
//
// When ctx is cancelled the broker is told to send nothing more, which takes a
// round trip per queue, and the connection is left open, so that what was
// delivered can be acked until Close.
//
// It can be called once; after Close, or when Close ends it, the error is
// ErrClosed.
func (c *Consumer) Run(ctx context.Context) error {
	parent := ctx
	ctx, err := c.begin(ctx)
	if err != nil {
		return err
	}
	defer close(c.ended)
	defer close(c.deliveries) // nobody sends any more: serve waits for its pumps
	log := c.cfg.Log.With(slog.String("connection", c.cfg.Name), slog.String("broker", Redact(c.cfg.URL)))
	wait := backoff.New(minBackoff, maxBackoff)
	for level := slog.LevelWarn; ; {
		began := time.Now()
		connected, err := c.serve(ctx, log)
		if ctx.Err() != nil {
			break
		}
		c.setState(State{Reason: err.Error()})
		if connected {
			wait.Settle(time.Since(began))
			level = slog.LevelWarn
		}
		log.Log(ctx, level, "broker not connected", slog.Any("error", err))
		level = slog.LevelDebug // once is enough: State tells that it lasts
		wait.Wait(ctx)
	}
	c.setState(State{Reason: "stopped"})
	if parent.Err() == nil {
		return ErrClosed
	}
	return nil
}

func (c *Consumer) begin(ctx context.Context) (context.Context, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, ErrClosed
	case c.stop != nil:
		return nil, errors.New("rabbit: Consumer.Run was called twice")
	}
	ctx, c.stop = context.WithCancel(ctx)
	return ctx, nil
}

// Close ends Run if it still runs, and closes the connection. What was delivered
// and not acked is delivered again by the broker, to whoever consumes its queue.
// It blocks until that is done, for two seconds or so if the broker does not
// answer. The error is always nil.
func (c *Consumer) Close() error {
	c.mu.Lock()
	c.closed = true
	stop := c.stop
	c.mu.Unlock()
	if stop == nil {
		return nil
	}
	stop()
	<-c.ended
	c.mu.Lock()
	l := c.drained
	c.drained = nil
	c.mu.Unlock()
	if l != nil {
		l.close()
	}
	return nil
}

// serve consumes over one connection, until that is lost or ctx ends, and reports
// whether there was one.
func (c *Consumer) serve(ctx context.Context, log *slog.Logger) (connected bool, err error) {
	l, err := dial(ctx, c.cfg.Config)
	if err != nil {
		return false, err
	}
	s, err := newSubscription(ctx, c, l, log)
	if err != nil {
		l.close()
		return false, err
	}
	err = s.run(ctx)
	if ctx.Err() != nil {
		s.drain()
		c.mu.Lock()
		c.drained = l
		c.mu.Unlock()
		return true, nil
	}
	close(s.stopping)
	l.close()
	s.pumps.Wait()
	c.dropStale()
	return true, err
}

// dropStale empties the buffer after the connection was lost: the broker delivers
// all of it again, and a second copy is work for nothing.
func (c *Consumer) dropStale() {
	for {
		select {
		case <-c.deliveries:
		default:
			return
		}
	}
}
