package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
)

// application is the environment in which this program is one of the two applications instead of their test.
const application = "EVENTS_EXAMPLE_APPLICATION"

func TestMain(m *testing.M) {
	if name := os.Getenv(application); name != "" {
		os.Args = []string{os.Args[0], name}
		main()
	}
	os.Exit(m.Run())
}

// TestExample: a program in Python signs users up by SQL and reads the events by AMQP; application api authorizes them, in a
// process and with a database of its own; application pheidi, in another and with another, mails each once.
func TestExample(t *testing.T) {
	t.Parallel()
	python := pythonWithDrivers(t)
	databases := map[string]*pgxpool.Pool{}
	var env []string
	for _, name := range []string{"pheidi", "api"} {
		url := testkit.EmptyDatabase(t)
		pool, err := pgxpool.New(context.Background(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		databases[name] = pool
		env = append(os.Environ(), "DATABASE_URL="+url, "AMQP_URL="+testkit.AMQPURL(t)) // of the last, api
		if name == "pheidi" {
			dropQueues(t, pool)
		}
		start(t, append(env, application+"="+name))
	}
	// An event is for who subscribes by then, so pheidi comes first.
	await(t, "both are ready", func() (bool, error) {
		var ready int
		err := databases["pheidi"].QueryRow(context.Background(), "SELECT count(*) FROM writ.subscriptions s, writ.workers WHERE to_regclass('mails') IS NOT NULL").Scan(&ready)
		if err != nil || ready != 1 {
			return false, err
		}
		return true, databases["api"].QueryRow(context.Background(), "SELECT count(*) FROM writ.workers w, users").Scan(&ready)
	})
	await(t, "pheidi's queue exists", func() (bool, error) { return queueExists(t, databases["pheidi"]) })

	emails := []string{"ann@example.com", "bob@example.com", "eve@example.com"}
	audit := exec.Command(python, append([]string{"audit.py"}, emails...)...)
	audit.Env = env
	var stderr bytes.Buffer
	audit.Stderr = &stderr
	out, err := audit.Output()
	if err != nil {
		t.Fatalf("audit.py: %v\n%s", err, stderr.String())
	}
	type line struct {
		Type, Source, Email string
		TID                 intent.ID
	}
	tids := map[string]intent.ID{}
	for text := range strings.Lines(string(out)) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil || l.Type != Authorized.Name || l.Source != "api" {
			t.Errorf("audit.py printed %s, %v", text, err)
		}
		tids[l.Email] = l.TID
	}
	if len(tids) != len(emails) {
		t.Errorf("audit.py saw %v; want one event for each of %v", tids, emails)
	}
	await(t, "each has a mail", func() (bool, error) {
		var n int
		err := databases["pheidi"].QueryRow(context.Background(), "SELECT count(DISTINCT address) FROM mails").Scan(&n)
		return n == len(emails), err
	})
	var mails int
	if err := databases["pheidi"].QueryRow(context.Background(), "SELECT count(*) FROM mails").Scan(&mails); err != nil || mails != len(emails) {
		t.Errorf("%d mails, %v; want %d", mails, err, len(emails))
	}
	for email, tid := range tids { // one tree, over both databases
		root, err := intent.Tree(context.Background(), databases["api"], tid)
		if err != nil || len(root) != 1 || root[0].ID != tid || root[0].Kind != Authorize.Name {
			t.Errorf("%s: api has %v of tid %s, %v", email, root, tid, err)
		}
		leaf, err := intent.Tree(context.Background(), databases["pheidi"], tid)
		if err != nil || len(leaf) != 1 || leaf[0].Kind != Send.Name || leaf[0].ParentID == nil || *leaf[0].ParentID != tid {
			t.Errorf("%s: pheidi has %v of tid %s, %v", email, leaf, tid, err)
		}
	}
	// And neither creates the other's tasks.
	err = pgx.BeginFunc(context.Background(), databases["api"], func(tx pgx.Tx) error {
		_, err := Send.Create(context.Background(), tx, SendArgs{}, intent.Opts{})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "task of application api") {
		t.Errorf("api created a task of pheidi: %v", err)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"mail"}, {"api", "pheidi"}} {
		var stderr bytes.Buffer
		if code := run(context.Background(), args, nil, nil, &stderr); code != 2 || stderr.String() != usage {
			t.Errorf("%v: exit code %d, %s", args, code, stderr.String())
		}
	}
}

// start runs this program as one of the applications until the test ends.
func start(t *testing.T, env []string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env, cmd.Stderr = env, t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the application ended with %v", err)
		}
	})
}

// pythonWithDrivers is an interpreter that has both drivers.
func pythonWithDrivers(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(name, "-c", "import psycopg2, pika").Run() == nil {
			return name
		}
	}
	t.Fatal("no python3 with psycopg2 and pika: «make python» installs them on Debian and Ubuntu, as root")
	return ""
}

func await(t *testing.T, what string, ok func() (bool, error)) {
	t.Helper()
	testkit.Until(t, 30*time.Second, what, func() (bool, string) {
		done, err := ok()
		return done && err == nil, fmt.Sprint(err)
	})
}

func subscribedQueue(pool *pgxpool.Pool) (queue string, err error) {
	err = pool.QueryRow(context.Background(), "SELECT queue FROM writ.subscriptions").Scan(&queue)
	return queue, err
}

func queueExists(t *testing.T, pool *pgxpool.Pool) (bool, error) {
	queue, err := subscribedQueue(pool)
	if err != nil {
		return false, err
	}
	err = broker(t, func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		return err
	})
	return err == nil, err
}

// dropQueues leaves nothing on the broker when the test ends.
func dropQueues(t *testing.T, pool *pgxpool.Pool) {
	t.Cleanup(func() {
		queue, err := subscribedQueue(pool)
		if err == nil {
			err = broker(t, func(ch *amqp.Channel) error {
				for _, name := range []string{queue, "audit.user.authorized"} {
					if _, err := ch.QueueDelete(name, false, false, false); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err != nil {
			t.Errorf("delete the queues: %v", err)
		}
	})
}

func broker(t *testing.T, do func(*amqp.Channel) error) error {
	conn, err := amqp.Dial(testkit.AMQPURL(t))
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	return do(ch)
}
