//go:build drill

package drills

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

// field is one drill's database, ledger and processes.
type field struct {
	t       *testing.T
	db      *testkit.DB
	ledger  string // URL
	requeue time.Duration
	env     []string // of its processes, besides
}

func newField(t *testing.T) *field {
	t.Helper()
	f := &field{t: t, db: testkit.DatabaseOn(t, stack.DatabaseURL), requeue: time.Minute}
	config, err := pgxpool.ParseConfig(f.db.URL)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 48 // enough for the creators' rate
	f.db.Close()
	if f.db.Pool, err = pgxpool.NewWithConfig(context.Background(), config); err != nil {
		t.Fatal(err)
	}
	f.dropAfter(manual.Queue, slow.Name)
	f.ledger = f.start("ledger").hello
	return f
}

// dropAfter deletes queues when the drill is over: the next one is not to share the broker with this one's leftovers.
func (f *field) dropAfter(names ...string) {
	f.t.Helper()
	queues := f.queues(names...)
	f.t.Cleanup(func() {
		err := f.broker(func(ch *amqp.Channel) error {
			for _, queue := range queues {
				if _, err := ch.QueueDelete(queue, false, false, false); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			f.t.Errorf("delete the drill's queues: %v", err)
		}
	})
}

// process is a child of the drill; it ends with it.
type process struct {
	*exec.Cmd
	hello string // its first line
	ended chan struct{}
}

func (f *field) start(role string) *process {
	f.t.Helper()
	self, err := os.Executable()
	if err != nil {
		f.t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "DRILL_ROLE="+role, "DATABASE_URL="+f.db.URL, "AMQP_URL="+stack.AMQPURL,
		"LEDGER_URL="+f.ledger, "REQUEUE_AFTER="+f.requeue.String())
	cmd.Env = append(cmd.Env, f.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(f.t.TempDir(), role+".log"))
	if err != nil {
		f.t.Fatal(err)
	}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	p := &process{Cmd: cmd, ended: make(chan struct{})}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	p.hello = strings.TrimSpace(line)
	go func() { _, _ = io.Copy(io.Discard, stdout); _ = cmd.Wait(); log.Close(); close(p.ended) }()
	f.t.Cleanup(func() {
		p.kill()
		if f.t.Failed() {
			if text, err := os.ReadFile(log.Name()); err == nil {
				f.t.Logf("%s %d said:\n%s", role, cmd.Process.Pid, tail(text))
			}
		}
	})
	if err != nil {
		f.t.Fatalf("%s did not start: %v", role, err)
	}
	return p
}

func tail(text []byte) string { return string(text[max(0, len(text)-4000):]) }

func (p *process) kill() {
	_ = p.Process.Signal(syscall.SIGCONT)
	_ = p.Process.Kill()
	<-p.ended
}

// stop asks it to end, as an operator would.
func (p *process) stop() {
	_ = p.Process.Signal(syscall.SIGTERM)
	<-p.ended
}

// entries asks the ledger for all effects.
func (f *field) entries() map[string][]entry {
	f.t.Helper()
	res, err := http.Get(f.ledger)
	if err != nil {
		f.t.Fatal(err)
	}
	defer res.Body.Close()
	var all []entry
	if err := json.NewDecoder(res.Body).Decode(&all); err != nil {
		f.t.Fatal(err)
	}
	out := map[string][]entry{}
	for _, e := range all {
		out[e.Key] = append(out[e.Key], e)
	}
	return out
}

// create makes one intent in its own transaction; a commit whose answer is lost is repeated with the same id.
func create(ctx context.Context, db *testkit.DB, kind intent.Kind[effect], args effect) (intent.ID, error) {
	id := intent.NewID()
	for {
		err := pgx.BeginFunc(ctx, db.Pool, func(tx pgx.Tx) error {
			_, err := kind.Create(ctx, tx, args, intent.Opts{ID: id})
			return err
		})
		if err == nil || ctx.Err() != nil {
			return id, err
		}
	}
}

// creators makes intents at a rate until stop is called; stop returns the ids that were acknowledged.
func (f *field) creators(rate int) (stop func() []intent.ID, count *atomic.Int64) {
	ctx, cancel := context.WithCancel(context.Background())
	count = new(atomic.Int64)
	ids := make([][]intent.ID, 40)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			tick := time.NewTicker(time.Second * time.Duration(len(ids)) / time.Duration(rate))
			defer tick.Stop()
			for ctx.Err() == nil {
				id, err := create(context.WithoutCancel(ctx), f.db, manual, effect{N: i})
				if err == nil {
					ids[i] = append(ids[i], id)
					count.Add(1)
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
	return func() []intent.ID {
		cancel()
		wg.Wait()
		var all []intent.ID
		for _, part := range ids {
			all = append(all, part...)
		}
		return all
	}, count
}

// bulk creates n intents at once.
func (f *field) bulk(kind intent.Kind[effect], n int, args effect) {
	f.t.Helper()
	many := make([]intent.One[effect], n)
	for i := range many {
		many[i].Args = args
	}
	err := pgx.BeginFunc(context.Background(), f.db.Pool, func(tx pgx.Tx) error {
		_, err := kind.CreateMany(context.Background(), tx, many)
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

// states counts rows by derived status.
func (f *field) states() map[string]int {
	out := map[string]int{}
	rows, err := f.db.Query(context.Background(), "SELECT status, count(*) FROM writ.status GROUP BY 1")
	if err != nil {
		return map[string]int{"(" + err.Error() + ")": 1}
	}
	var status string
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&status, &n}, func() error { out[status] = n; return nil }); err != nil {
		return map[string]int{"(" + err.Error() + ")": 1}
	}
	return out
}

// awaitRest waits until nothing is open but what is flagged for a person.
func (f *field) awaitRest(most time.Duration) map[string]int {
	f.t.Helper()
	var states map[string]int
	testkit.Until(f.t, most, "all at rest", func() (bool, string) {
		states = f.states()
		open := 0
		for status, n := range states {
			if status != "sent" && status != "ambiguous" && status != "error" {
				open += n
			}
		}
		return open == 0 && len(states) > 0, fmt.Sprint(states)
	})
	return states
}

// noneDoubled holds the ledger against the database: no effect twice, every sent one there, and every acknowledged
// intent exists.
func (f *field) noneDoubled(acknowledged []intent.ID) {
	f.t.Helper()
	effects := f.entries()
	doubled := 0
	for key, entries := range effects {
		if len(entries) > 1 {
			doubled++
			f.t.Errorf("%s was done %d times: %v", key, len(entries), entries)
		}
	}
	rows, err := f.db.Query(context.Background(), "SELECT id, status FROM writ.status")
	if err != nil {
		f.t.Fatal(err)
	}
	status := map[intent.ID]string{}
	var id intent.ID
	var s string
	if _, err := pgx.ForEachRow(rows, []any{&id, &s}, func() error { status[id] = s; return nil }); err != nil {
		f.t.Fatal(err)
	}
	lost := 0
	for _, id := range acknowledged {
		if status[id] == "" {
			lost++
			f.t.Errorf("%s was acknowledged and is not there", id)
		}
	}
	for id, s := range status {
		if n := len(effects[id.String()]); s == "sent" && n != 1 {
			lost++
			f.t.Errorf("%s is sent, and the ledger saw it %d times", id, n)
		}
	}
	f.t.Logf("acknowledged %d, rows %d, effects %d, states %v, lost %d, doubled %d", len(acknowledged), len(status), len(effects), f.states(), lost, doubled)
}
