package wire_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rabbitmq/amqp091-go"

	"github.com/writhq/writ/internal/proof/wire"
	"github.com/writhq/writ/internal/testkit"
)

// through connects a pool of one connection through a proxy.
func through(t *testing.T, db *testkit.DB) (*testkit.Proxy, *pgxpool.Pool) {
	t.Helper()
	proxy, url := testkit.ProxyTo(t, db.URL)
	pool, err := pgxpool.New(context.Background(), url+"&pool_max_conns=1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return proxy, pool
}

// met fails the test if a rule has not fired soon.
func met(t *testing.T, fired <-chan struct{}) {
	t.Helper()
	select {
	case <-fired:
	case <-time.After(10 * time.Second):
		t.Fatal("the rule was not met within 10 s")
	}
}

// TestPostgres_commits: on a real server, however the client sends its transaction, a cut before the commit leaves nothing
// and a cut behind it leaves all, and the client sees an error both times.
func TestPostgres_commits(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	ways := map[string]func(ctx context.Context, pool *pgxpool.Pool, insert string) error{
		"transaction": func(ctx context.Context, pool *pgxpool.Pool, insert string) error {
			return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, insert, 1)
				return err
			})
		},
		"pipelined": func(ctx context.Context, pool *pgxpool.Pool, insert string) error {
			b := &pgx.Batch{}
			b.Queue("BEGIN")
			b.Queue(insert, 1)
			b.Queue("COMMIT")
			return pool.SendBatch(ctx, b).Close()
		},
		"by itself": func(ctx context.Context, pool *pgxpool.Pool, insert string) error {
			_, err := pool.Exec(ctx, insert, 1)
			return err
		},
		"simple": func(ctx context.Context, pool *pgxpool.Pool, insert string) error {
			_, err := pool.Exec(ctx, insert, pgx.QueryExecModeSimpleProtocol, 1)
			return err
		},
		"described": func(ctx context.Context, pool *pgxpool.Pool, insert string) error {
			_, err := pool.Exec(ctx, insert, pgx.QueryExecModeCacheDescribe, 1)
			return err
		},
	}
	moments := map[string]struct {
		at   func(text string) wire.Matcher
		left int
	}{
		"before":  {wire.Commits, 0},
		"applied": {wire.Committed, 1},
	}
	for way, send := range ways {
		for moment, tt := range moments {
			t.Run(way+"/"+moment, func(t *testing.T) {
				t.Parallel()
				table := strings.ReplaceAll(way+"_"+moment, " ", "_")
				db.Run(t, "CREATE TABLE "+table+" (n int)")
				insert := "INSERT INTO " + table + " VALUES ($1)"
				proxy, pool := through(t, db)
				ctx := context.Background()
				if err := send(ctx, pool, insert); err != nil { // prepared from here on
					t.Fatal(err)
				}
				fired := proxy.On(wire.Rule{At: tt.at("INTO " + table), Do: wire.Cut})
				if err := send(ctx, pool, insert); err == nil {
					t.Error("the client did not notice")
				}
				met(t, fired)
				if n := testkit.Value[int](t, db, "SELECT count(*) FROM "+table); n != 1+tt.left {
					t.Errorf("%d rows; want %d", n, 1+tt.left)
				}
				if err := send(ctx, pool, insert); err != nil {
					t.Errorf("after the fault: %v", err)
				}
			})
		}
	}
}

// TestPostgres_rules: the n-th occurrence, a statement by its text, a delay, a call, and refusal.
func TestPostgres_rules(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	proxy, pool := through(t, db)
	ctx := context.Background()
	ask := func() error { _, err := pool.Exec(ctx, "SELECT $1::int", 1); return err }

	third := proxy.On(wire.Rule{At: wire.Executes("$1::int"), Nth: 3, Do: wire.Cut})
	for n := 1; n <= 4; n++ {
		if err := ask(); (err != nil) != (n == 3) {
			t.Errorf("statement %d: %v", n, err)
		}
	}
	met(t, third)

	const pause = 100 * time.Millisecond
	began := time.Now()
	met(t, during(proxy.On(wire.Rule{At: wire.Executes("$1::int"), Do: wire.Delay(pause)}), ask))
	if took := time.Since(began); took < pause {
		t.Errorf("a statement delayed by %v took %v", pause, took)
	}

	called := false
	met(t, during(proxy.On(wire.Rule{At: wire.Executes("$1::int"), Do: wire.Call(func() { called = true }, wire.Pass)}), ask))
	if !called {
		t.Error("not called")
	}

	proxy.Refuse()
	if err := ask(); err == nil {
		t.Error("an answer through a proxy that refuses")
	}
	proxy.Accept()
	if err := ask(); err != nil {
		t.Error(err)
	}
}

// during asks, whatever the answer, and returns the channel.
func during(fired <-chan struct{}, ask func() error) <-chan struct{} {
	_ = ask()
	return fired
}

// TestPostgres_encryption: a client that prefers TLS is told that there is none, and one that needs it fails.
func TestPostgres_encryption(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	for mode, want := range map[string]bool{"prefer": true, "require": false} {
		proxy, url, err := wire.Postgres(strings.Replace(db.URL, "sslmode=disable", "sslmode="+mode, 1))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := pgx.Connect(context.Background(), url)
		if (err == nil) != want {
			t.Errorf("sslmode=%s: %v", mode, err)
		}
		if conn != nil {
			conn.Close(context.Background())
		}
		proxy.Close()
	}
}

// TestAMQP: on a real broker, each moment of a message's life.
func TestAMQP(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		rule wire.Rule
		want string // what the publisher hears
		kept int    // messages in the queue
	}{
		"publish cut":      {wire.Rule{At: wire.Publish, Do: wire.Cut}, "closed", 0},
		"confirm cut":      {wire.Rule{At: wire.Confirm, Do: wire.Cut}, "closed", 1},
		"confirm refused":  {wire.Rule{At: wire.Confirm, Do: wire.Nack}, "nack", 1},
		"publish lost":     {wire.Rule{At: wire.Carrying("hello", wire.Publish), Do: wire.Swallow}, "silence", 0},
		"confirm lost":     {wire.Rule{At: wire.Confirm, Do: wire.Swallow}, "silence", 1},
		"publish returned": {wire.Rule{At: wire.Publish, Do: wire.Misroute}, "return", 0},
		"blocked":          {wire.Rule{At: wire.Confirm, Do: wire.Block}, "blocked", 1},
		"untouched":        {wire.Rule{At: wire.Return, Do: wire.Cut}, "ack", 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			queue := queueFor(t)
			proxy, url := testkit.ProxyTo(t, testkit.AMQPURL(t))
			proxy.On(tt.rule)
			if got := publish(t, url, queue.name); got != tt.want {
				t.Errorf("the publisher hears %q; want %q", got, tt.want)
			}
			testkit.Until(t, 10*time.Second, fmt.Sprintf("%d in the queue", tt.kept), func() (bool, string) {
				n := queue.messages(t)
				return n == tt.kept, fmt.Sprint(n)
			})
		})
	}
}

// publish publishes one message and says what became of it.
func publish(t *testing.T, url, queue string) string {
	t.Helper()
	conn, err := amqp091.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	blocked := conn.NotifyBlocked(make(chan amqp091.Blocking, 1))
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	closed := ch.NotifyClose(make(chan *amqp091.Error, 1))
	returned := ch.NotifyReturn(make(chan amqp091.Return, 1))
	confirm, err := ch.PublishWithDeferredConfirm("", queue, true, false, amqp091.Publishing{Body: []byte("hello")})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-closed:
		return "closed"
	case <-blocked:
		return "blocked"
	case <-time.After(500 * time.Millisecond):
		return "silence"
	case <-confirm.Done():
	}
	select {
	case <-closed: // which ends all confirms
		return "closed"
	case <-blocked:
		return "blocked"
	case <-returned:
		return "return"
	default:
	}
	if confirm.Acked() {
		return "ack"
	}
	return "nack"
}

// queue is a test's own, gone with it.
type queue struct {
	name string
	ch   *amqp091.Channel
}

func queueFor(t *testing.T) *queue {
	t.Helper()
	conn, err := amqp091.Dial(testkit.AMQPURL(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	q, err := ch.QueueDeclare("writ.wire."+uuid.NewString(), false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = ch.QueueDelete(q.Name, false, false, false) })
	return &queue{q.Name, ch}
}

func (q *queue) messages(t *testing.T) int {
	t.Helper()
	got, err := q.ch.QueueDeclarePassive(q.name, false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return got.Messages
}

// TestAMQP_deliveries: a delivery that is cut, and an ack that is lost, come again.
func TestAMQP_deliveries(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]wire.Matcher{"delivery": wire.Deliver, "ack": wire.Ack} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			queue := queueFor(t)
			if err := queue.ch.PublishWithContext(context.Background(), "", queue.name, false, false, amqp091.Publishing{Body: []byte("x")}); err != nil {
				t.Fatal(err)
			}
			proxy, url := testkit.ProxyTo(t, testkit.AMQPURL(t))
			fired := proxy.On(wire.Rule{At: at, Do: wire.Cut})
			if err := take(url, queue.name); err == nil && name == "delivery" {
				t.Error("a delivery came that was cut")
			}
			met(t, fired)
			if err := take(url, queue.name); err != nil {
				t.Errorf("it did not come again: %v", err)
			}
		})
	}
}

// take consumes one message and acks it.
func take(url, queue string) error {
	conn, err := amqp091.Dial(url)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	deliveries, err := ch.Consume(queue, "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	d, open := <-deliveries
	if !open {
		return errors.New("closed before a delivery came")
	}
	return d.Ack(false)
}

// TestProxy_noServer: a proxy to nobody ends its clients' connections.
func TestProxy_noServer(t *testing.T) {
	t.Parallel()
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	_, url := testkit.ProxyTo(t, "postgres://"+nobody.Addr().String()+"/x")
	conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(url, "postgres://"), "/x"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := bufio.NewReader(conn).ReadByte(); err == nil {
		t.Error("somebody answered")
	}
}
