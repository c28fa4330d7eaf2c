package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/internal/backoff"
	"github.com/writhq/writ/internal/rabbit"
	"github.com/writhq/writ/internal/store"
)

// Relay publishes the outbox of one database to one broker. Make it with [New]; its methods are safe for concurrent use.
type Relay struct {
	cfg       Config
	pool      *pgxpool.Pool
	amqpURL   string
	metrics   *metrics
	publisher atomic.Pointer[rabbit.Publisher]
	problem   atomic.Pointer[string] // why the database side does not run; nil: it does
	fanouts   map[string]*fanout     // by exchange; only the session's goroutine touches it
}

// New returns a relay that does nothing until Run. pool is asked for its configuration, and for a connection to look with
// for workers of this process (Config.Near); all else the relay does on one connection of its own. The error lists every fault of the config.
func New(pool *pgxpool.Pool, amqpURL string, cfg Config) (*Relay, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := store.CheckPool(pool); err != nil {
		return nil, fmt.Errorf("dispatch: %w", err)
	}
	r := &Relay{cfg: cfg, pool: pool, amqpURL: amqpURL, metrics: newMetrics(cfg.Metrics), fanouts: map[string]*fanout{}}
	r.setProblem(errors.New("not running"))
	return r, nil
}

// Run relays until ctx is cancelled, then returns nil; what is being published then is either confirmed and deleted or
// published again by the next relay. It survives outages of the database and the broker: both are tried again with
// backoff. It returns an error only for a wrong AMQP URL. Call it once.
func (r *Relay) Run(ctx context.Context) error {
	publisher, err := rabbit.NewPublisher(rabbit.Config{
		URL: r.amqpURL, Name: "writ relay", ConfirmTimeout: r.cfg.ConfirmTimeout, Log: r.cfg.Log,
	})
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	r.publisher.Store(publisher)
	defer publisher.Close()

	pause := backoff.New(100*time.Millisecond, 5*time.Second)
	for {
		began := time.Now()
		err := r.session(ctx, publisher)
		if ctx.Err() != nil {
			return nil
		}
		r.setProblem(err)
		r.cfg.Log.Warn("relay: database session ended, connecting again", "error", err)
		pause.Settle(time.Since(began))
		if !pause.Wait(ctx) {
			return nil
		}
	}
}

// Ready returns nil if the relay works, or what keeps it from publishing: the outbox then absorbs, and nothing is lost.
func (r *Relay) Ready() error {
	if p := r.problem.Load(); p != nil {
		return errors.New("relay: " + *p)
	}
	if p := r.publisher.Load(); p != nil {
		if s := p.State(); !s.Connected || s.Blocked {
			return fmt.Errorf("relay: broker: %s", s.Reason)
		}
	}
	return nil
}

// Blocked reports whether the broker has blocked publishing by an alarm.
func (r *Relay) Blocked() bool {
	p := r.publisher.Load()
	return p != nil && p.State().Blocked
}

func (r *Relay) setProblem(err error) {
	if err == nil {
		r.problem.Store(nil)
		return
	}
	text := err.Error()
	r.problem.Store(&text)
}

// session relays over one database connection until ctx ends or the connection is lost.
func (r *Relay) session(ctx context.Context, publisher *rabbit.Publisher) error {
	connecting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := pgx.ConnectConfig(connecting, r.pool.Config().ConnConfig.Copy())
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		conn.Close(closing) // gives back the locks; an error leaves that to the server
	}()
	settings, err := store.ReadSettings(connecting, conn)
	if err != nil {
		return err
	}
	if why := settings.Reason(); why != "" {
		r.cfg.Log.Warn("relay: publishing nothing", "why", why)
	}
	if !settings.Adopted {
		return errors.New(settings.Reason()) // looked at again with the next session
	}
	s := &session{
		Relay: r, outbox: store.NewOutbox(conn), publisher: publisher, installation: settings.Installation,
		measured: make(chan map[string]int, 1),
	}
	defer func() {
		s.glance.close()
		s.bell.close()
	}()
	r.setProblem(nil)
	return s.run(ctx)
}

// session is the relay's state on one database connection. One goroutine owns it.
type session struct {
	*Relay
	outbox       *store.Outbox
	publisher    *rabbit.Publisher
	installation uuid.UUID

	routes     map[string]store.Route
	routesAt   time.Time
	subscribed map[string]string // by event: a subscription of this database

	learning bool          // a backlog travels singly because the typical run time of its kind is not known
	lesson   time.Duration // how soon the kinds are read again then
	known    bool          // that of some kind in the last batch was

	low        time.Time // where the next scan begins, by the database's clock
	stragglers time.Time // when to look behind it again, by ours
	pace       pace      // of what is taken
	seat       bool      // this relay listens at the door
	bell       *bell     // what it listens to; nil: polling only
	hung       time.Time // when it was last tried to hang one
	glance     *glance   // shows the outbox to workers of this process; nil: no need

	depthsAt time.Time
	measured chan map[string]int // from the goroutine that asks the broker
}

// run alternates between pumping while there is work and dozing while there is none.
func (s *session) run(ctx context.Context) error {
	var worked time.Time
	for idle := 0; ctx.Err() == nil; {
		if err := s.housekeep(ctx); err != nil {
			return err
		}
		if err := s.awaitBroker(ctx); err != nil {
			return err
		}
		n, err := s.pump(ctx)
		s.pace.note(max(n, s.bell.rung()))
		s.glimpse(ctx)
		if n > 0 {
			idle, worked = 0, time.Now()
		}
		switch {
		case err != nil:
		case n >= min(s.enough(), s.cfg.Batch):
			s.outbox.Rise()
		case n > 0 && s.quiet():
			err = s.doze(ctx)
		case n > 0 || !s.quiet() && time.Since(worked) < alert:
			s.outbox.Rise()
			backoff.Sleep(ctx, s.linger())
		case !s.low.IsZero():
			s.low = distantPast // everything is looked at before it dozes
		default:
			if idle++; idle > 1 {
				// What is due and cannot be had is in another relay's hands: no reason to ask at full speed.
				backoff.Sleep(ctx, restless)
			}
			if s.nearby() && !s.quiet() {
				s.outbox.Rise() // many are rung for that this relay cannot have: another takes them, or the installation is paused
				continue
			}
			err = s.doze(ctx)
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// awaitBroker blocks while the broker takes nothing: the outbox absorbs meanwhile.
func (s *session) awaitBroker(ctx context.Context) error {
	if state := s.publisher.State(); state.Connected && !state.Blocked {
		return nil
	}
	if err := s.outbox.Wake(ctx); err != nil { // or creations would ring in vain
		return err
	}
	wait, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := s.publisher.Wait(wait); errors.Is(err, rabbit.ErrClosed) {
		return err
	}
	return nil
}

// pump publishes one batch from the low-water mark, and, when it is time, one from behind it. It returns how many rows
// it settled.
func (s *session) pump(ctx context.Context) (int, error) {
	n, err := s.take(ctx, s.low, distantFuture)
	if err != nil || time.Now().Before(s.stragglers) {
		return n, err
	}
	began := time.Now()
	behind, err := s.take(ctx, distantPast, s.low)
	// Dead rows that a long transaction keeps make this scan slow; then it is made less often.
	s.stragglers = time.Now().Add(max(stragglers, 5*time.Since(began)))
	return n + behind, err
}

func (s *session) take(ctx context.Context, from, until time.Time) (int, error) {
	limit := s.cfg.Batch
	if !s.known { // all of it travels singly, which is dear, and soon it need not
		limit = min(limit, unknown)
	}
	taken, err := s.outbox.Take(ctx, from, until, limit)
	if err != nil || len(taken.Rows) == 0 {
		return 0, err
	}
	if until.Equal(distantFuture) {
		s.low = maxTime(s.low, taken.Rows[len(taken.Rows)-1].DueAt.Add(-trail))
	}
	settled, err := s.publish(ctx, taken)
	if settled == 0 && err == nil {
		// Nothing moved and nothing failed: the broker is away or refuses everything for now.
		backoff.Sleep(ctx, 50*time.Millisecond) // the loop sees if ctx ended
	}
	return settled, err
}

// restless reports whether housekeeping is due, for which a sleeper gets up.
func (s *session) restless() bool {
	return s.stale() || len(s.measured) > 0
}

// housekeep reads the declared kinds and notes the depths of their queues, now and then.
func (s *session) housekeep(ctx context.Context) error {
	if s.stale() {
		if err := s.refresh(ctx); err != nil {
			return err
		}
		if err := s.sit(ctx); err != nil {
			return err
		}
	}
	select {
	case measured := <-s.measured:
		if err := s.outbox.NoteDepths(ctx, measured); err != nil {
			return fmt.Errorf("note queue depths: %w", err)
		}
	default:
	}
	if s.seat && time.Since(s.depthsAt) > depths && s.publisher.State().Connected {
		s.depthsAt = time.Now()
		go s.measure(ctx, s.routes)
	}
	return nil
}

// stale reports whether it is time to read the declared kinds again.
func (s *session) stale() bool {
	age := time.Since(s.routesAt)
	return age > refresh || s.learning && age > s.lesson
}

// refresh reads the declared kinds again. Hints of a kind that was declared meanwhile need not wait out their backoff.
func (s *session) refresh(ctx context.Context) error {
	before := s.routes
	routes, subscribed, err := s.outbox.Routes(ctx)
	if err != nil {
		return err
	}
	s.subscribed = subscribed
	if s.learning {
		s.lesson = min(2*s.lesson, refresh)
	} else {
		s.lesson = learn
	}
	s.routes, s.routesAt, s.learning = routes, time.Now(), false
	if before == nil {
		for _, route := range routes {
			s.known = s.known || route.Typical > 0
		}
		return nil
	}
	var fresh []string
	for kind := range routes {
		if _, known := before[kind]; !known {
			fresh = append(fresh, kind)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	return s.outbox.Revive(ctx, fresh)
}

// measure asks the broker, beside the pump, how deep the queues are. At most one answer waits to be noted.
func (s *session) measure(ctx context.Context, routes map[string]store.Route) {
	names := map[string]string{} // the broker's name → ours
	for _, route := range routes {
		if name, err := rabbit.QueueName(s.installation, route.Queue); err == nil {
			names[name] = route.Queue
		}
	}
	queues := make([]string, 0, len(names))
	for name := range names {
		queues = append(queues, name)
	}
	deep, err := s.publisher.Depths(ctx, queues)
	if err != nil {
		return // the next round asks again
	}
	out := map[string]int{}
	for name, queue := range names {
		n, found := deep[name]
		if !found {
			n = -1
		}
		out[queue] = n
	}
	select {
	case s.measured <- out:
	default:
	}
}

var (
	distantPast   = time.Time{}
	distantFuture = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
)

func maxTime(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
