// Package blackout takes the current from everything at once: all processes of the product, Postgres and RabbitMQ, without a word of
// warning. What goes on afterwards must be what was going on before.
package blackout

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ"
	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/devstack"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

const (
	envRole   = "BLACKOUT_ROLE"
	envLedger = "BLACKOUT_LEDGER"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(envRole); role != "" {
		if err := play(writ.Role(role)); err != nil {
			fmt.Fprintln(os.Stderr, role+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type task struct{}

// rest is the least between the first attempt and the second: long enough to put out all lights in it.
const rest = 12 * time.Second

var tried = intent.Kind[task]{
	Name: "dark.job.try", Timeout: 10 * time.Second, MaxAttempts: 5,
	Backoff: intent.Backoff{Min: 200 * time.Millisecond, Max: time.Second},
}

// entry is an attempt, as the outside world sees it.
type entry struct {
	ID      intent.ID
	Attempt int
	Worker  intent.ID
	At      time.Time
}

// play is one part, until somebody kills it.
func play(role writ.Role) error {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()
	mux := workers.NewMux()
	workers.Handle(mux, tried, workers.Handler[task]{Do: func(_ context.Context, job *workers.Job[task]) error {
		if err := note(entry{job.ID(), job.Attempt(), job.WorkerID(), time.Now()}); err != nil {
			return workers.Unknown(err)
		}
		switch job.Attempt() {
		case 1:
			return workers.NotDone(workers.RetryAfter(rest, errors.New("not for a while")))
		case 2:
			return workers.NotDone(errors.New("not yet"))
		}
		return nil
	}})
	fmt.Println("ready")
	return writ.Run(ctx, pool, os.Getenv("AMQP_URL"), mux, writ.Config{Roles: []writ.Role{role}, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
}

// note writes to the outside world, which keeps what it is told: a line is short enough to be appended in one piece.
func note(e entry) error {
	f, err := os.OpenFile(os.Getenv(envLedger), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	line, err := json.Marshal(e)
	if err == nil {
		_, err = f.Write(append(line, '\n'))
	}
	return errors.Join(err, f.Close())
}

// town is what the current is taken from.
type town struct {
	t      *testing.T
	stack  *devstack.Stack
	ledger string
	parts  []*part
}

type part struct {
	*exec.Cmd
	ended chan struct{}
}

func build(t *testing.T) *town {
	t.Helper()
	w := &town{t: t, stack: testkit.Servers(t), ledger: filepath.Join(t.TempDir(), "ledger")}
	t.Cleanup(w.kill)
	return w
}

// start starts all parts, the workers twice.
func (w *town) start() {
	w.t.Helper()
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, role := range []writ.Role{writ.RoleRelay, writ.RoleReconciler, writ.RoleWorkers, writ.RoleWorkers} {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), envRole+"="+string(role), envLedger+"="+w.ledger, "DATABASE_URL="+w.stack.DatabaseURL, "AMQP_URL="+w.stack.AMQPURL)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		cmd.Stderr = w.t.Output()
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			w.t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			w.t.Fatal(err)
		}
		p := &part{cmd, make(chan struct{})}
		w.parts = append(w.parts, p)
		line, err := bufio.NewReader(stdout).ReadString('\n')
		go func() { _, _ = io.Copy(io.Discard, stdout); _ = cmd.Wait(); close(p.ended) }()
		if err != nil || strings.TrimSpace(line) != "ready" {
			w.t.Fatalf("%s did not start: %q, %v", role, line, err)
		}
	}
}

// settleQueue has the broker end and come back in order once the queue is there. RabbitMQ 3.10 needs some seconds to write down that there is a new
// quorum queue: one that is killed before has it in its catalogue, and nothing behind it, for ever.
func (w *town) settleQueue(pool *pgxpool.Pool) {
	w.t.Helper()
	ctx := context.Background()
	testkit.Until(w.t, 30*time.Second, "the queue exists", func() (bool, string) {
		var there bool
		err := pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM writ.relay WHERE ready IS NOT NULL)").Scan(&there) // the relay notes its depth
		return there, fmt.Sprint(err)
	})
	if err := w.stack.StopBroker(ctx); err != nil {
		w.t.Fatal(err)
	}
	if err := w.stack.StartBroker(ctx); err != nil {
		w.t.Fatal(err)
	}
}

// kill ends all parts with SIGKILL.
func (w *town) kill() {
	for _, p := range w.parts {
		_ = p.Process.Kill()
	}
	for _, p := range w.parts {
		<-p.ended
	}
	w.parts = nil
}

// entries are what the outside world was told, by intent, in order.
func (w *town) entries() map[intent.ID][]entry {
	w.t.Helper()
	out := map[intent.ID][]entry{}
	text, err := os.ReadFile(w.ledger)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var e entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			w.t.Fatalf("%q: %v", line, err)
		}
		out[e.ID] = append(out[e.ID], e)
	}
	return out
}
