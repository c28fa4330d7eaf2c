package compat

import (
	"bufio"
	"context"
	"fmt"
	"io"
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
	"github.com/writhq/writ/internal/rabbit"
	"github.com/writhq/writ/internal/testkit"
)

// TestReleases: a deployment from the release before to this one, and back, and forth again, while work goes on. In each stage
// intents of all sorts are created by both and carried out by whoever is there: at once, after a retry, by a probe's verdict, after a kill,
// in error with a recovery, and by an event. Each comes to its end, with exactly one effect.
func TestReleases(t *testing.T) {
	t.Parallel()
	old := before(t)
	now := build(t, repository(t))
	d := deploy(t)
	upgradable := old.upgradable(t)
	t.Logf("the release before is %s, tagged: %t, upgradable: %t", old.Commit, old.Tagged, upgradable)

	if upgradable {
		d.once(old.rig, "migrate")
	} else {
		d.once(now, "migrate") // the unreleased schema was edited in place: the old binaries begin on the new one
	}
	d.prepare()
	oldEngine := d.start(old.rig, "engine")
	oldWorker := d.start(old.rig, "worker", "old")
	d.create(old.rig)
	d.settles("the old release alone")

	d.once(now, "migrate")
	d.create(old.rig)
	d.settles("the old release, migrated by the new one")

	engine := d.start(now, "engine")
	oldEngine.stop()
	d.create(old.rig)
	d.create(now)
	d.settles("the new relay and reconciler, and the old worker")

	oldEngine = d.start(old.rig, "engine")
	engine.stop()
	worker := d.start(now, "worker", "new")
	oldWorker.stop()
	d.create(old.rig)
	d.create(now)
	d.settles("the old relay and reconciler, and the new worker")

	engine = d.start(now, "engine")
	oldWorker = d.start(old.rig, "worker", "old")
	for _, victim := range []*process{oldWorker, worker} {
		d.create(old.rig)
		d.create(now)
		d.settles("all of both")
		d.crawl(now)
		victim.kill()
		d.settles("all of both, and a worker killed")
		if victim == oldWorker {
			oldWorker = d.start(old.rig, "worker", "old")
		}
	}

	engine.stop()
	d.once(old.rig, "migrate") // as each process of a deployment may
	d.create(old.rig)
	d.settles("back to the old release")

	oldEngine.stop()
	oldWorker.stop()
	d.once(now, "migrate")
	d.start(now, "engine")
	d.start(now, "worker", "new")
	d.create(now)
	d.settles("and forth again")
	d.bothWorked()
}

// deployment is a database with what runs on it.
type deployment struct {
	t    *testing.T
	url  string
	pool *pgxpool.Pool
	n    int // of each kind created so far
	more int // of those that take long besides
}

func deploy(t *testing.T) *deployment {
	t.Helper()
	d := &deployment{t: t, url: testkit.EmptyDatabase(t)}
	var err error
	if d.pool, err = pgxpool.New(context.Background(), d.url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.pool.Close)
	t.Cleanup(d.dropQueues)
	return d
}

// prepare makes the tables of the outside world.
func (d *deployment) prepare() {
	d.t.Helper()
	const tables = `CREATE SCHEMA compat; CREATE TABLE compat.effects (id uuid, epoch int, worker text);
		CREATE TABLE compat.receipts (id uuid, worker text); CREATE TABLE compat.recoveries (id uuid, worker text)`
	if _, err := d.pool.Exec(context.Background(), tables); err != nil {
		d.t.Fatal(err)
	}
}

func (d *deployment) dropQueues() {
	ctx := context.Background()
	var installation intent.ID
	if err := d.pool.QueryRow(ctx, "SELECT installation FROM writ.settings").Scan(&installation); err != nil {
		return // nothing was migrated
	}
	rows, err := d.pool.Query(ctx, "SELECT name FROM writ.kinds UNION ALL SELECT queue FROM writ.subscriptions")
	if err != nil {
		d.t.Error(err)
		return
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		d.t.Error(err)
		return
	}
	conn, err := amqp.Dial(testkit.AMQPURL(d.t))
	if err != nil {
		d.t.Error(err)
		return
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		d.t.Error(err)
		return
	}
	for _, name := range names {
		if queue, err := rabbit.QueueName(installation, name); err == nil {
			name = queue
		}
		_, _ = ch.QueueDelete(name, false, false, false)
	}
	_ = ch.ExchangeDelete(rabbit.EventExchange("compat.happened"), false, false)
}

func (d *deployment) command(binary string, args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), "DATABASE_URL="+d.url, "AMQP_URL="+testkit.AMQPURL(d.t))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = d.t.Output()
	return cmd
}

// once runs a command to its end.
func (d *deployment) once(binary string, args ...string) {
	d.t.Helper()
	if out, err := d.command(binary, args...).Output(); err != nil {
		d.t.Fatalf("%s %v: %v", binary, args, err)
	} else if len(out) > 0 {
		d.t.Logf("%v: %s", args, out)
	}
}

// each is how many of each kind one call of create makes.
const each = 3

func (d *deployment) create(binary string) {
	d.t.Helper()
	d.once(binary, "create", fmt.Sprint(each), "send", "retry", "lose", "crawl", "fail")
	d.once(binary, "publish", fmt.Sprint(each))
	d.n += each
}

// process is a part that runs.
type process struct {
	*exec.Cmd
	ended chan struct{}
}

func (d *deployment) start(binary string, args ...string) *process {
	d.t.Helper()
	cmd := d.command(binary, args...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	p := &process{cmd, make(chan struct{})}
	out := bufio.NewReader(stdout)
	var first string
	if args[0] == "worker" {
		first, err = out.ReadString('\n')
	}
	go func() { _, _ = io.Copy(io.Discard, out); _ = cmd.Wait(); close(p.ended) }()
	d.t.Cleanup(p.kill)
	if err != nil || args[0] == "worker" && strings.TrimSpace(first) != "ready" {
		d.t.Fatalf("%v did not get ready: %q, %v", args, first, err)
	}
	return p
}

func (p *process) kill() {
	_ = p.Process.Kill()
	<-p.ended
}

// stop ends it as a deployment does.
func (p *process) stop() {
	_ = p.Process.Signal(syscall.SIGTERM)
	<-p.ended
}

// crawl creates what takes long, and waits until both workers have some of it in their hands, and its effects are there.
func (d *deployment) crawl(binary string) {
	d.t.Helper()
	const many = 16
	d.once(binary, "create", fmt.Sprint(many), "crawl")
	d.more += many
	d.until("the effects of all", d.n+d.more, "SELECT count(*) FROM compat.effects e JOIN writ.intents i USING (id) WHERE i.kind = 'compat.job.crawl'")
	d.until("both workers are at work", 1, "SELECT (count(DISTINCT worker_id) = 2)::int FROM writ.intents WHERE state = 'sending' AND kind = 'compat.job.crawl'")
}

func (d *deployment) until(what string, want int, sql string, args ...any) {
	d.t.Helper()
	testkit.Until(d.t, time.Minute, what, func() (bool, string) {
		var got int
		err := d.pool.QueryRow(context.Background(), sql, args...).Scan(&got)
		return err == nil && got == want, fmt.Sprintf("%d of %d, %v", got, want, err)
	})
}

// settles waits until all that was created has come to its end, and holds that each had one effect.
func (d *deployment) settles(stage string) {
	d.t.Helper()
	began := time.Now()
	for _, kind := range []string{"send", "retry", "lose", "crawl", "note"} {
		want := d.n
		if kind == "crawl" {
			want += d.more
		}
		d.until(stage+": sent of "+kind, want, "SELECT count(*) FROM writ.intents WHERE kind = $1 AND state = 'sent'", "compat.job."+kind)
	}
	d.until(stage+": failed", d.n, "SELECT count(*) FROM writ.intents WHERE kind = 'compat.job.fail' AND state = 'error'")
	d.until(stage+": left in the outbox", 0, "SELECT count(*) FROM writ.outbox")
	for what, sql := range map[string]string{
		"intents beyond those":           "SELECT count(*) - $1 FROM writ.intents",
		"effects that are not one each":  "SELECT count(*) FROM writ.intents i WHERE state = 'sent' AND (SELECT count(*) FROM compat.effects e WHERE e.id = i.id) <> 1 AND $1 > 0",
		"receipts that are not one each": "SELECT count(*) FROM writ.intents i WHERE kind = 'compat.job.send' AND (SELECT count(*) FROM compat.receipts e WHERE e.id = i.id) <> 1 AND $1 > 0 AND NOT EXISTS (SELECT FROM writ.log l WHERE l.intent_id = i.id AND l.event = 'happened')",
		"recoveries not one each":        "SELECT count(*) FROM writ.intents i WHERE kind = 'compat.job.fail' AND (SELECT count(*) FROM compat.recoveries e WHERE e.id = i.id) <> 1 AND $1 > 0",
		"late reports":                   "SELECT count(*) FROM writ.log WHERE event = 'late-report' AND $1 > 0",
	} {
		var n int
		if err := d.pool.QueryRow(context.Background(), sql, 6*d.n+d.more).Scan(&n); err != nil || n != 0 {
			d.t.Errorf("%s: %d %s, %v", stage, n, what, err)
		}
	}
	d.t.Logf("%s: %d of each kind, %v", stage, d.n, time.Since(began).Round(10*time.Millisecond))
}

// bothWorked holds that neither release's workers were idle.
func (d *deployment) bothWorked() {
	d.t.Helper()
	d.until("effects by both", 2, "SELECT count(DISTINCT worker) FROM compat.effects")
}
