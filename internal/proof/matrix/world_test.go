package matrix

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/proof/wire"
	"github.com/writhq/writ/internal/rabbit"
	"github.com/writhq/writ/internal/testkit"
)

// soon bounds every wait: far more than it takes, for a busy machine.
const soon = 30 * time.Second

// world is a cell's own: a database with its history kept, a queue, a ledger, and the two proxies. Parts are started on
// straight, or, where the fault is to hit them, on faulty.
type world struct {
	t                *testing.T
	db               *testkit.DB
	ledger           *ledger
	pg, mq           *testkit.Proxy
	straight, faulty servers

	ch        *amqp.Channel
	queue     string       // the broker's name of it
	delivered atomic.Int64 // messages that the broker sent through its proxy
	stops     []func()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, db: testkit.Database(t)}
	w.db.Run(t, history)
	// As if a worker had been there before: a relay that is started first need not find the kinds out later.
	w.db.Run(t, "INSERT INTO writ.kinds (name, queue, class) VALUES ($1, $3, 'manual'), ($2, $3, 'idempotent'), ($4, $3, 'probed'), ($5, $3, 'manual')",
		manual.Name, repeatable.Name, queue, askable.Name, long.Name)
	w.ledger = newLedger(t, w.claimed)
	w.straight = servers{Database: w.db.URL, Broker: testkit.AMQPURL(t), Ledger: w.ledger.url}
	w.faulty = w.straight
	w.pg, w.faulty.Database = testkit.ProxyTo(t, w.straight.Database)
	w.mq, w.faulty.Broker = testkit.ProxyTo(t, w.straight.Broker)
	w.mq.On(wire.Rule{At: func(m *wire.Message) bool { // only looks
		if wire.Deliver(m) {
			w.delivered.Add(1)
		}
		return false
	}})
	w.openQueue()
	return w
}

// openQueue declares the queue as a worker would, so that its depth can be asked at any time.
func (w *world) openQueue() {
	w.t.Helper()
	installation := testkit.Value[intent.ID](w.t, w.db, "SELECT installation FROM writ.settings")
	name, err := rabbit.QueueName(installation, queue)
	if err != nil {
		w.t.Fatal(err)
	}
	conn, err := amqp.Dial(w.straight.Broker)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	if w.ch, err = conn.Channel(); err != nil {
		w.t.Fatal(err)
	}
	w.queue = name
	w.t.Cleanup(func() { _, _ = w.ch.QueueDelete(name, false, false, false) })
	w.messages()
}

// messages is how many wait in the queue.
func (w *world) messages() int {
	w.t.Helper()
	q, err := w.ch.QueueDeclare(w.queue, true, false, false, false, amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum})
	if err != nil {
		w.t.Fatal(err)
	}
	return q.Messages
}

// start runs a part in this process until stop, and returns it, and what stops it alone, when it is ready.
func (w *world) start(role string, s servers) (p part, stop func()) {
	w.t.Helper()
	p, closeAll, err := newPart(role, s, patient, testkit.Log(w.t))
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	stop = w.onStop(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("%s: Run: %v", role, err)
		}
		closeAll()
	})
	testkit.Until(w.t, soon, "the "+role+" is ready", func() (bool, string) {
		err := p.Ready()
		return err == nil, fmt.Sprint(err)
	})
	return p, stop
}

func (w *world) onStop(stop func()) (once func()) {
	once = sync.OnceFunc(stop)
	w.stops = append(w.stops, once)
	w.t.Cleanup(func() { w.ledger.release(); once() })
	return once
}

// stop ends all parts and waits for what they run.
func (w *world) stop() {
	w.ledger.release()
	for _, stop := range w.stops {
		stop()
	}
}

// process is a part in a process of its own.
type process struct {
	*exec.Cmd
	ended chan struct{}
}

// spawn starts a role in a process of its own. A part is ready when it returns.
func (w *world) spawn(role string, s servers, o order) *process {
	w.t.Helper()
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	where, err := json.Marshal(s)
	if err != nil {
		w.t.Fatal(err)
	}
	what, err := json.Marshal(o)
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "MATRIX_ROLE="+role, "MATRIX_SERVERS="+string(where), "MATRIX_ORDER="+string(what))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = w.t.Output()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	p := &process{cmd, make(chan struct{})}
	w.t.Cleanup(p.kill)
	if role == creator || role == decider {
		go func() { _ = cmd.Wait(); close(p.ended) }()
		return p
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	go func() { _, _ = io.Copy(io.Discard, stdout); _ = cmd.Wait(); close(p.ended) }()
	if err != nil || strings.TrimSpace(line) != "ready" {
		w.t.Fatalf("the %s did not get ready: %q, %v", role, line, err)
	}
	return p
}

// kill ends it with SIGKILL and waits for that.
func (p *process) kill() {
	_ = p.Process.Kill()
	<-p.ended
}

// endInOrder has it end by itself when the world stops, unless it was killed before.
func (w *world) endInOrder(p *process) {
	w.onStop(func() {
		_ = p.Process.Signal(syscall.SIGTERM)
		<-p.ended
	})
}

// freeze stops it as a machine does that is suspended; thaw lets it go on where it was.
func (p *process) freeze() { _ = p.Process.Signal(syscall.SIGSTOP) }
func (p *process) thaw()   { _ = p.Process.Signal(syscall.SIGCONT) }

// victim is what a rule kills, once it lives.
type victim struct {
	up chan struct{}
	p  *process
}

func newVictim() *victim { return &victim{up: make(chan struct{})} }

func (v *victim) is(p *process) { v.p = p; close(v.up) }

func (v *victim) kill() { <-v.up; v.p.kill() }

// met waits for a rule's message.
func (w *world) met(fired <-chan struct{}) {
	w.t.Helper()
	late := time.NewTimer(soon)
	defer late.Stop()
	select {
	case <-fired:
	case <-late.C:
		w.t.Fatalf("the fault's message did not come within %v: see moments_test.go for the statements that it is known by", soon)
	}
}

// create makes an intent, out of the fault's way.
func (w *world) create(kind intent.Kind[task], script ...string) intent.ID {
	w.t.Helper()
	return w.createWith(kind, intent.Opts{}, script...)
}

func (w *world) createWith(kind intent.Kind[task], opts intent.Opts, script ...string) intent.ID {
	w.t.Helper()
	var created intent.Created
	err := pgx.BeginFunc(context.Background(), w.db, func(tx pgx.Tx) (err error) {
		created, err = kind.Create(context.Background(), tx, task{script}, opts)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return created.ID
}

func (w *world) get(id intent.ID) intent.Intent {
	w.t.Helper()
	i, err := intent.Get(context.Background(), w.db, id)
	if err != nil {
		w.t.Fatal(err)
	}
	return i
}

// awaitStatus waits until the intent stands so.
func (w *world) awaitStatus(id intent.ID, status string) {
	w.t.Helper()
	testkit.Until(w.t, soon, "the intent is "+status, func() (bool, string) {
		i := w.get(id)
		return i.Status == status, fmt.Sprintf("%s at epoch %d, events %v", i.Status, i.Epoch, w.events(id))
	})
}

// awaitEffect waits until the ledger has seen so many effects.
func (w *world) awaitEffect(id intent.ID, n int) {
	w.t.Helper()
	testkit.Until(w.t, soon, fmt.Sprintf("%d effects", n), func() (bool, string) {
		got := len(w.ledger.of(effected, id))
		return got == n, fmt.Sprint(got)
	})
}

// events are the log's, in order.
func (w *world) events(id intent.ID) []string {
	w.t.Helper()
	rows, err := w.db.Query(context.Background(), "SELECT event FROM writ.log WHERE intent_id = $1 ORDER BY id", id)
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}
