// Package demo directs the demo: it starts the blog's processes, posts comments to them, breaks things, and checks the
// outcome against the mail server's own log. What it starts ends with it; the application itself is in the directory
// above and knows nothing of it.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/examples/comments/mailserver"
	"github.com/writhq/writ/intent"
)

// Config of [Run]. All but Keep and NoProbe is required.
type Config struct {
	DatabaseURL, AMQPURL string // servers; the demo makes a database of its own
	Comments             []byte // JSON lines
	Keep                 string // directory for mails and logs. Default: a temporary one, removed unless the demo fails
	Out                  io.Writer

	Kind, Queue string        // of the mails' intents
	Settle      time.Duration // of that kind
	NoProbe     bool          // the demo decides as a person what nobody knows; else the kind's probe does
}

// patience bounds every wait. It is generous: a busy machine may be slow, and is no failure.
const patience = 2 * time.Minute

// director runs the demo.
type director struct {
	Config
	dir  string // mails and logs
	writ string // the CLI
	say  *printer

	url    string // of the demo's database
	db     *pgxpool.Pool
	broker *broker

	fail              context.CancelCauseFunc // ends the demo because a process ended that should not have
	mail, web, worker *child
	workers           int

	posts    map[int64]string // author's address by post
	acts     []act
	postings []posting
	settled  []verdict
	last     intent.ID // the mail that the server kills the worker over, once posted
	purged   int       // messages that were thrown away
	requeued int       // hints that were written again
	retried  int       // mails that met the 451
}

// Run plays the demo and cleans up after it, also when ctx ends. Nil: everything was checked and true.
func Run(ctx context.Context, cfg Config) (err error) {
	d := &director{Config: cfg, say: newPrinter(cfg.Out)}
	comments, err := parse(cfg.Comments)
	if err != nil {
		return err
	}
	if d.writ, err = findWrit(); err != nil {
		return err
	}
	if err := d.makeDir(); err != nil {
		return err
	}
	defer func() { err = d.leave(err) }()

	parent := ctx
	ctx, d.fail = context.WithCancelCause(ctx)
	defer d.fail(nil)
	defer func() {
		cleanup := d.cleanUp(context.WithoutCancel(ctx))
		if parent.Err() != nil {
			d.say.step("interrupted: processes ended, database dropped")
			err = nil
		} else if cause := context.Cause(ctx); cause != nil && err != nil {
			err = cause // a dead process says more than what broke because of it
		}
		err = errors.Join(err, cleanup)
	}()
	if err := d.setUp(ctx, len(comments)); err != nil {
		return err
	}
	if err := d.play(ctx, comments); err != nil {
		return err
	}
	return d.report(ctx)
}

// findWrit finds the CLI: WRIT_BIN, or beside this program.
func findWrit() (string, error) {
	path := os.Getenv("WRIT_BIN")
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return "", err
		}
		path = filepath.Join(filepath.Dir(self), "writ")
	}
	if _, err := exec.LookPath(path); err != nil {
		return "", fmt.Errorf("the writ program is not at %s: build it with «go build -o %s ./cmd/writ», or set WRIT_BIN", path, path)
	}
	return path, nil
}

func (d *director) makeDir() (err error) {
	if d.Keep == "" {
		d.dir, err = os.MkdirTemp("", "writ-demo-")
		return err
	}
	if d.dir, err = filepath.Abs(d.Keep); err != nil {
		return err
	}
	if entries, err := os.ReadDir(d.dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty; --keep needs a new directory", d.dir)
	}
	return os.MkdirAll(d.dir, 0o755)
}

// leave removes the directory, or says where it is.
func (d *director) leave(err error) error {
	switch {
	case d.Keep != "":
		d.say.note("mails and logs are in %s", d.dir)
	case err != nil:
		return fmt.Errorf("%w\n(mails and logs are in %s)", err, d.dir)
	default:
		return os.RemoveAll(d.dir)
	}
	return err
}

// setUp makes the database and starts the processes.
func (d *director) setUp(ctx context.Context, comments int) (err error) {
	d.say.title("Writ demo: %d comments, each committed together with the intent to mail it.", comments)
	if d.url, err = createDatabase(ctx, d.DatabaseURL); err != nil {
		return err
	}
	if d.web, err = d.start(ctx, "web", "serve", "--listen", "127.0.0.1:0"); err != nil {
		return err
	}
	if d.mail, err = d.start(ctx, "mailserver", "mailserver", "--listen", "127.0.0.1:0", "--dir", d.mails()); err != nil {
		return err
	}
	if d.db, err = pgxpool.New(ctx, d.url); err != nil {
		return err
	}
	if d.posts, err = readPosts(ctx, d.db); err != nil {
		return err
	}
	if err := d.order(ctx, order{Refuse: d.posts[postGone]}); err != nil {
		return err
	}
	if d.broker, err = openBroker(ctx, d.AMQPURL, d.db, d.Queue); err != nil {
		return err
	}
	if err := d.startWorker(ctx); err != nil {
		return err
	}
	d.say.step("its own database; web (pid %d), worker (pid %d), SMTP server (pid %d)", d.web.pid(), d.worker.pid(), d.mail.pid())
	return nil
}

func (d *director) startWorker(ctx context.Context) (err error) {
	d.workers++
	args := []string{"worker", "--smtp", d.mail.ready}
	if !d.NoProbe {
		args = append(args, "--mail-log", filepath.Join(d.mails(), mailserver.LogName))
	}
	d.worker, err = d.start(ctx, fmt.Sprintf("worker-%d", d.workers), args...)
	return err
}

func (d *director) mails() string { return filepath.Join(d.dir, "mails") }

// cleanUp ends the processes, the worker first, and drops the database and the queue. It does all it can whatever fails.
func (d *director) cleanUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var errs []error
	for _, c := range []*child{d.worker, d.web, d.mail} {
		if c != nil {
			errs = append(errs, c.stop())
		}
	}
	if d.broker != nil {
		errs = append(errs, d.broker.close())
	}
	if d.db != nil {
		d.db.Close()
	}
	if d.url != "" {
		errs = append(errs, dropDatabase(ctx, d.DatabaseURL, d.url))
	}
	return errors.Join(errs...)
}

// await waits for the thing itself: it asks until ok, and fails with what was seen last.
func (d *director) await(ctx context.Context, what string, ok func() (done bool, seen string, err error)) error {
	defer d.say.live("")
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); ; {
		done, seen, err := ok()
		if done || err != nil {
			return err
		}
		d.say.live("%s: %s", what, seen)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-end:
			return fmt.Errorf("%s: not within %v; last seen: %s", what, patience, seen)
		case <-tick.C:
		}
	}
}
