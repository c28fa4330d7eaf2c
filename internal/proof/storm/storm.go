// Package storm runs the product as real processes on private servers, breaks everything at random, and then lets the
// checker of package proof count what was lost or done twice. One seed draws the same faults and tasks; when they meet
// depends on the machine.
package storm

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/internal/devstack"
	"github.com/writhq/writ/internal/proof"
	"github.com/writhq/writ/internal/proof/ledger"
	"github.com/writhq/writ/migrations"
)

// Config of a storm.
type Config struct {
	// Duration of the faults. Default one minute. What comes before and after is beside it.
	Duration time.Duration
	// Seed of all dice. Default: drawn from the clock, and printed.
	Seed uint64
	// Binary that plays workers, relays and reconcilers: another build of the same command, like one with a mutated
	// protocol. Default: this one.
	Binary string
	// Bound is how long after the last fault all must be at rest. Default 3 minutes.
	Bound time.Duration
	// Drill is which one to make. Default: none, but a storm.
	Drill Drill
	// Intents and Faults are the least that the storm must have made to prove anything. Default: 0.
	Intents, Faults int
	// Dir keeps the logs and journals. Default: a temporary one, which is removed if all is well.
	Dir string
	Log io.Writer
}

// Outcome of a storm.
type Outcome struct {
	Seed   uint64
	Faults map[string]int // by sort
	Rest   time.Duration  // from the last fault until all was at rest
	Report proof.Report
	// Drains are how long workers took to end that were asked to, the shortest first; HandedOver is how often a job went on in another one.
	Drains     []time.Duration
	HandedOver int
	// Verdicts on what nobody knew.
	Verdicts Verdicts
	Faulty   []error // what went wrong besides the invariants: processes that ended by themselves, or would not end
	Dir      string
}

// Total is how many faults there were.
func (o Outcome) Total() (n int) {
	for _, m := range o.Faults {
		n += m
	}
	return n
}

// Err is nil if every invariant held and every process behaved.
func (o Outcome) Err() error { return errors.Join(append(o.Faulty, o.Report.Err())...) }

// storm is one run.
type storm struct {
	cfg    Config
	dir    string
	stack  *devstack.Stack
	db     *pgxpool.Pool // past all faults of the network
	ledger *process
	client ledger.Client
	cables map[string]*cable
	taps   taps
	slots  []*slot

	brokerDies sync.Mutex // held by whoever is about to kill the broker, or needs it alive

	mu      sync.Mutex
	faulty  []error
	counts  map[string]int
	drained []time.Duration
	freezes []proof.Freeze
}

// Run makes a storm. The error says that it could not be made, or ctx ended; what it found is in the outcome.
func Run(ctx context.Context, cfg Config) (out Outcome, err error) {
	if cfg.Duration <= 0 {
		cfg.Duration = time.Minute
	}
	if cfg.Bound <= 0 {
		cfg.Bound = 3 * time.Minute
	}
	if cfg.Seed == 0 {
		cfg.Seed = uint64(time.Now().UnixNano())
	}
	if cfg.Binary == "" {
		if cfg.Binary, err = os.Executable(); err != nil {
			return out, err
		}
	}
	s := &storm{cfg: cfg, dir: cfg.Dir, cables: map[string]*cable{}, counts: map[string]int{}}
	if s.dir == "" {
		if s.dir, err = os.MkdirTemp("", "writ-storm-"); err != nil {
			return out, err
		}
	} else if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return out, err
	}
	s.printf("seed %d, faults for %v, logs in %s", cfg.Seed, cfg.Duration, s.dir)
	defer func() {
		err = errors.Join(err, s.takeDown())
		out.Faulty = s.faulty
		if cfg.Dir == "" && err == nil && out.Err() == nil {
			err = os.RemoveAll(s.dir)
			out.Dir = ""
		}
	}()
	if err := s.bringUp(ctx); err != nil {
		return out, err
	}
	rest, err := s.blow(ctx)
	if err != nil {
		return out, err
	}
	e, err := s.gather(ctx)
	if err != nil {
		return out, err
	}
	out = Outcome{Seed: cfg.Seed, Faults: s.counts, Rest: rest, Report: proof.Check(e), Dir: s.dir}
	if out.Verdicts, err = s.verdicts(ctx); err != nil {
		return out, err
	}
	if out.Drains, out.HandedOver, err = s.drainsHeld(ctx); err != nil {
		return out, err
	}
	if out.Report.Created < cfg.Intents || out.Total() < cfg.Faults {
		s.fault(fmt.Errorf("%d intents and %d faults prove too little; at least %d and %d are wanted", out.Report.Created, out.Total(), cfg.Intents, cfg.Faults))
	}
	return out, nil
}

func (s *storm) printf(format string, args ...any) {
	fmt.Fprintf(s.cfg.Log, "%s storm: "+format+"\n", append([]any{time.Now().UTC().Format("15:04:05")}, args...)...)
}

// fault notes what must not be, whatever the checker says.
func (s *storm) fault(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faulty = append(s.faulty, err)
}

// count notes a fault that was made.
func (s *storm) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[what]++
}

// dice of a part, the same for each storm of a seed.
func (s *storm) dice(part uint64) *rand.Rand { return rand.New(rand.NewPCG(s.cfg.Seed, part)) }

//go:embed storm.sql
var tables string

// bringUp starts servers, ledger and network, and the product's processes.
func (s *storm) bringUp(ctx context.Context) (err error) {
	s.stack, err = devstack.Up(ctx, devstack.Options{Dir: filepath.Join(s.dir, "stack"), Log: s.cfg.Log, Mode: devstack.ModePrivate})
	if err != nil {
		return err
	}
	if s.db, err = pgxpool.New(ctx, s.stack.DatabaseURL); err != nil {
		return err
	}
	if _, err := migrations.Up(ctx, s.db.Config().ConnConfig); err != nil {
		return err
	}
	if err := proof.SwitchOn(ctx, s.db); err != nil {
		return err
	}
	if _, err := s.db.Exec(ctx, tables); err != nil {
		return fmt.Errorf("storm: its tables: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if s.ledger, err = start(keeper, self, s.dir, []string{envDB + "=" + s.stack.DatabaseURL}); err != nil {
		return err
	}
	s.client = ledger.Client{URL: s.ledger.hello}
	if err := s.client.Replan(ctx, s.plan()); err != nil {
		return err
	}
	for _, of := range []struct {
		role Role
		n    int
	}{{worker, 4}, {relay, 2}, {reconciles, 2}, {creator, 3}} {
		if err := s.man(of.role, of.n); err != nil {
			return err
		}
	}
	return nil
}

// plan is how the ledger misbehaves. What is killed, hung or left open is bounded: each costs a decision.
func (s *storm) plan() ledger.Plan {
	if s.cfg.Drill == Drains {
		return ledger.Plan{Seed: s.cfg.Seed, Witness: 200, PerMille: map[ledger.Behaviour]int{ledger.Refused: 30, ledger.Rejected: 5, ledger.Busy: 20}}
	}
	return ledger.Plan{
		Seed: s.cfg.Seed, Late: 3 * time.Second, Witness: 200,
		PerMille: map[ledger.Behaviour]int{
			ledger.Refused: 30, ledger.Rejected: 5, ledger.Busy: 20, ledger.LateAnswer: 10, ledger.LateEffect: 5, ledger.WrongAfter: 5,
			ledger.WrongBefore: 5, ledger.Twice: 3, ledger.NeverAfter: 2, ledger.NeverBefore: 2, ledger.KillAfter: 1, ledger.KillBefore: 1,
		},
	}
}

// man lays the cables of a role and makes its slots. Each role has cables of its own, so that a fault of the network can
// part one of them alone from a server.
func (s *storm) man(role Role, n int) error {
	binary := s.cfg.Binary
	if role == creator {
		var err error
		if binary, err = os.Executable(); err != nil {
			return err
		}
	}
	database, err := s.cable(string(role)+" to Postgres", s.stack.DatabaseURL, nil)
	if err != nil {
		return err
	}
	if database, err = session(database, role); err != nil {
		return err
	}
	env := append([]string{envDB + "=" + database, envLedger + "=" + s.client.URL, fmt.Sprintf("%s=%d", envSeed, s.cfg.Seed)}, s.cfg.drillEnv(n)...)
	if role == worker || role == relay {
		var tap func() func([]byte)
		if role == relay {
			tap = s.taps.listen
		}
		broker, err := s.cable(string(role)+" to RabbitMQ", s.stack.AMQPURL, tap)
		if err != nil {
			return err
		}
		env = append(env, envAMQP+"="+broker)
	}
	for range n {
		s.slots = append(s.slots, &slot{
			role: role, fault: s.fault, relieved: role == worker && s.cfg.Drill == Drains,
			begin: func() (*process, error) { return start(role, binary, s.dir, env) },
		})
	}
	return nil
}

func (s *storm) cable(name, server string, tap func() func([]byte)) (string, error) {
	c, through, err := lay(name, server, tap)
	if err != nil {
		return "", err
	}
	s.cables[name] = c
	return through, nil
}

// applications is what the sessions of the storm's processes call themselves, for LIKE.
const applications = "storm-%"

// session names a role's sessions, and gives the product's the defaults that it must not rely on. Creators decide by
// themselves how durable their commits are.
func session(database string, role Role) (string, error) {
	u, err := url.Parse(database)
	if err != nil {
		return "", errors.New("storm: the database's URL cannot be read")
	}
	q := u.Query()
	q.Set("application_name", "storm-"+string(role))
	if role != creator {
		q.Set("synchronous_commit", "off")
		q.Set("default_transaction_isolation", "repeatable read")
	}
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20") // pgx reads a plus as a plus
	return u.String(), nil
}

// takeDown ends all that is left.
func (s *storm) takeDown() error {
	for _, slot := range s.slots {
		for _, p := range slot.history() {
			p.kill()
		}
	}
	if s.ledger != nil {
		s.ledger.kill()
	}
	for _, c := range s.cables {
		c.close()
	}
	if s.db != nil {
		s.db.Close()
	}
	if s.stack == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return s.stack.Down(ctx)
}
