package mutants_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/writhq/writ/dispatch"
	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type args struct {
	N int `json:"n"`
}

var job = intent.Kind[args]{Name: "test.teeth.run", Timeout: 10 * time.Second}

// rig is a database with a relay; tests add workers.
type rig struct {
	t  *testing.T
	db *testkit.DB
}

func setup(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, db: testkit.Database(t)}
	relay, err := dispatch.New(r.db.Pool, testkit.AMQPURL(t), dispatch.Config{Log: testkit.Log(t), Poll: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	r.run(relay.Run)
	return r
}

// run runs a part until the test ends, or until the returned function is called.
func (r *rig) run(part func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- part(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("Run: %v", err)
		}
	})
	r.t.Cleanup(stop)
	return stop
}

// worker is a running worker process.
type worker struct {
	pool    *pgxpool.Pool
	metrics *prometheus.Registry
	stop    func()
}

// work starts a worker whose connections go through the given URL.
func (r *rig) work(url string, kind intent.Kind[args], do func(context.Context, *workers.Job[args]) error, cfg workers.Config) *worker {
	r.t.Helper()
	pool, err := pgxpool.New(context.Background(), url)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(pool.Close)
	mux := workers.NewMux()
	workers.Handle(mux, kind, workers.Handler[args]{Do: do})
	w := &worker{pool: pool, metrics: prometheus.NewRegistry()}
	cfg.Slots, cfg.Heartbeat, cfg.TTL, cfg.Drain, cfg.Metrics = 10, 50*time.Millisecond, 10*time.Second, 5*time.Second, w.metrics
	if cfg.Log == nil {
		cfg.Log = testkit.Log(r.t)
	}
	p, err := workers.New(pool, testkit.AMQPURL(r.t), mux, cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	w.stop = r.run(p.Run)
	return w
}

// faulty starts a worker whose database connection breaks where the proxy is told to.
func (r *rig) faulty(kind intent.Kind[args], do func(context.Context, *workers.Job[args]) error) (*testkit.Proxy, *worker) {
	r.t.Helper()
	proxy, url := testkit.ProxyTo(r.t, r.db.URL)
	return proxy, r.work(url+"&default_query_exec_mode=cache_describe", kind, do, workers.Config{})
}

// hints returns how many hints the worker has counted with a result.
func (w *worker) hints(t *testing.T, result string) float64 {
	t.Helper()
	return w.count(t, func(counted string) bool { return counted == result })
}

// idle returns how many hints the worker has counted that started nothing.
func (w *worker) idle(t *testing.T) float64 {
	t.Helper()
	return w.count(t, func(counted string) bool { return counted != "claimed" })
}

func (w *worker) count(t *testing.T, of func(result string) bool) (n float64) {
	t.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "writ_hints_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if of(l.GetValue()) {
					n += m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}

func (r *rig) create(kind intent.Kind[args], n int) intent.ID {
	r.t.Helper()
	var created intent.Created
	err := pgx.BeginFunc(context.Background(), r.db, func(tx pgx.Tx) (err error) {
		created, err = kind.Create(context.Background(), tx, args{n}, intent.Opts{})
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return created.ID
}

// hint writes one more hint of an intent and epoch.
func (r *rig) hint(id intent.ID, epoch int) {
	r.t.Helper()
	r.db.Run(r.t, "INSERT INTO writ.outbox (due_at, kind, intent_id, epoch, op) SELECT now(), kind, id, $2, 'run' FROM writ.intents WHERE id = $1", id, epoch)
}

func (r *rig) get(id intent.ID) intent.Intent {
	r.t.Helper()
	got, err := intent.Get(context.Background(), r.db, id)
	if err != nil {
		r.t.Fatal(err)
	}
	return got
}

func (r *rig) await(id intent.ID, status string) intent.Intent {
	r.t.Helper()
	var got intent.Intent
	testkit.Until(r.t, patience, fmt.Sprintf("%s is %s", id, status), func() (bool, string) {
		got = r.get(id)
		return got.Status == status, got.Status
	})
	return got
}

// logged returns how often an event stands in an intent's log.
func (r *rig) logged(id intent.ID, event string) int {
	r.t.Helper()
	return testkit.Value[int](r.t, r.db, "SELECT count(*) FROM writ.log WHERE intent_id = $1 AND event = $2", id, event)
}

// patience bounds each wait.
const patience = 10 * time.Second

// calls collects the epochs that a handler was called with. Safe for concurrent use.
type calls struct {
	mu     sync.Mutex
	epochs map[int][]int // by argument
}

func (c *calls) add(j *workers.Job[args]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epochs == nil {
		c.epochs = map[int][]int{}
	}
	c.epochs[j.Args.N] = append(c.epochs[j.Args.N], j.Epoch())
}

func (c *calls) of(n int) []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]int(nil), c.epochs[n]...)
}
