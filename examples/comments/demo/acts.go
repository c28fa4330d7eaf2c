package demo

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"syscall"
	"time"

	"github.com/writhq/writ/examples/comments/mailserver"
	"github.com/writhq/writ/intent"
)

type order = mailserver.Order

// act is one part of the demo, with the comments that were posted in it.
type act struct{ name string }

// play runs the four acts, a share of the comments in each.
func (d *director) play(ctx context.Context, comments []comment) error {
	i := slices.IndexFunc(comments, func(c comment) bool { return c.Post == postLast })
	if i < 0 || len(comments) < 100 {
		return fmt.Errorf("the input needs 100 comments and more, and one on post %d", postLast)
	}
	last := comments[i]
	rest := slices.Delete(slices.Clone(comments), i, i+1)
	share := len(rest) / 4
	return firstError(
		func() error { return d.plain(ctx, rest[:share]) },
		func() error { return d.emptyBroker(ctx, rest[share:2*share]) },
		func() error { return d.laterPlease(ctx, rest[2*share:3*share]) },
		// The last one goes early, so that plenty of others are under way with it and wait behind it.
		func() error { return d.killWorker(ctx, last, slices.Insert(rest[3*share:], 6, last)) },
	)
}

func firstError(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (d *director) begin(name string) {
	d.acts = append(d.acts, act{name})
	d.say.act(len(d.acts), name)
}

// plain: nothing is broken on purpose, but one comment is spam and one address is gone.
func (d *director) plain(ctx context.Context, comments []comment) error {
	d.begin("plain traffic")
	if err := d.post(ctx, comments); err != nil {
		return err
	}
	d.say.step("%d comments posted by %d clients", len(comments), clients)
	for _, p := range d.postings {
		if p.Status == http.StatusUnprocessableEntity {
			d.say.step("one was rolled back after its INSERTs (HTTP 422, spam): no comment, no intent, no mail")
		}
	}
	if err := d.finish(ctx, "mailing"); err != nil {
		return err
	}
	failed, err := intent.List(ctx, d.db, intent.Filter{Kind: d.Kind, Status: "error"})
	if err != nil {
		return err
	}
	for _, i := range failed {
		d.say.step("one address was refused with 550: workers.Stop, intent %s in error", short(i.ID))
	}
	return nil
}

// emptyBroker: the mail server is slow, hints pile up in RabbitMQ, and RabbitMQ loses them all.
func (d *director) emptyBroker(ctx context.Context, comments []comment) error {
	d.begin("the broker is emptied")
	if err := d.order(ctx, order{Mode: mailserver.Slow, Refuse: d.posts[postGone]}); err != nil {
		return err
	}
	if err := d.post(ctx, comments); err != nil {
		return err
	}
	err := d.await(ctx, "hints pile up in RabbitMQ", func() (bool, string, error) {
		n, err := d.broker.ready()
		var outbox int
		if err == nil {
			err = d.db.QueryRow(ctx, `SELECT count(*) FROM writ.outbox WHERE due_at <= now()`).Scan(&outbox)
		}
		return n > 0 && outbox == 0, fmt.Sprintf("%d messages wait there, %d in the outbox", n, outbox), err
	})
	if err != nil {
		return err
	}
	if d.purged, err = d.broker.purge(); err != nil {
		return err
	}
	d.say.step("%d comments posted while the mail server is slow; purged RabbitMQ: %d messages gone", len(comments), d.purged)
	if err := d.order(ctx, order{Refuse: d.posts[postGone]}); err != nil {
		return err
	}
	if err := d.finish(ctx, "the reconciler looks for lost hints"); err != nil {
		return err
	}
	d.say.step("the reconciler wrote %d hints again from the rows; all mailed", d.requeued)
	return nil
}

// laterPlease: the server answers 451 to everybody for a while.
func (d *director) laterPlease(ctx context.Context, comments []comment) error {
	d.begin("the mail server says 451")
	if err := d.order(ctx, order{Mode: mailserver.Later, Refuse: d.posts[postGone]}); err != nil {
		return err
	}
	began := time.Now()
	if err := d.post(ctx, comments); err != nil {
		return err
	}
	err := d.await(ctx, "451 to everybody", func() (bool, string, error) {
		err := d.db.QueryRow(ctx, `SELECT count(*) FROM writ.intents WHERE finished_at IS NULL AND attempt > 1`).Scan(&d.retried)
		return time.Since(began) > 3*time.Second && d.retried > 0, fmt.Sprintf("%d intents tried more than once", d.retried), err
	})
	if err != nil {
		return err
	}
	d.say.step("%d comments posted while it says 451 for %.0f s: workers.NotDone, tried again with backoff", len(comments), time.Since(began).Seconds())
	if err := d.order(ctx, order{Refuse: d.posts[postGone]}); err != nil {
		return err
	}
	if err := d.finish(ctx, "retrying"); err != nil {
		return err
	}
	d.say.step("it takes mail again; all mailed")
	return nil
}

// killWorker: the mail server kills the worker after it has stored a certain mail and before it answers. Whether that
// mail and the others in flight were taken is something nobody on this side can know.
func (d *director) killWorker(ctx context.Context, last comment, comments []comment) error {
	d.begin("a worker dies between the mail and the answer")
	kill := &mailserver.Kill{PID: d.worker.pid(), To: d.posts[postLast], Others: 5}
	d.worker.mayEnd.Store(true)
	if err := d.order(ctx, order{Refuse: d.posts[postGone], Kill: kill}); err != nil {
		return err
	}
	if err := d.post(ctx, comments); err != nil {
		return err
	}
	for _, p := range d.postings {
		if p.Post == last.Post {
			d.last = p.Intent
		}
	}
	err := d.await(ctx, "the mail server waits for its moment", func() (bool, string, error) {
		select {
		case <-d.worker.exited:
			return true, "", nil
		default:
			return false, "the worker lives", nil
		}
	})
	if err != nil {
		return err
	}
	if ws, ok := d.worker.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
		return fmt.Errorf("the worker was to be killed, but: %v; its last words:\n%s", d.worker.cmd.ProcessState, d.worker.lastWords())
	}
	dead := d.worker.pid()
	if err := d.startWorker(ctx); err != nil {
		return err
	}
	d.say.step("the mail server stored mail %s and killed worker %d before it answered; worker %d takes over", short(d.last), dead, d.worker.pid())
	if err := d.finish(ctx, "waiting for the reconciler to find what the dead worker held"); err != nil || d.NoProbe {
		return err
	}
	return d.tellProbe(ctx)
}

// finish waits until every intent so far is sent or in error. What turns up ambiguous meanwhile is settled, by the probe, or
// without one as a person would.
func (d *director) finish(ctx context.Context, what string) error {
	return d.await(ctx, what, func() (bool, string, error) {
		var all, open, ambiguous, requeued int
		err := d.db.QueryRow(ctx, `SELECT count(*), count(*) FILTER (WHERE finished_at IS NULL),
			count(*) FILTER (WHERE flagged_at IS NOT NULL), count(*) FILTER (WHERE requeues > 0) FROM writ.intents`).
			Scan(&all, &open, &ambiguous, &requeued)
		if err != nil {
			return false, "", err
		}
		d.requeued = max(d.requeued, requeued)
		if ambiguous > 0 && d.NoProbe {
			err = d.settle(ctx)
		}
		return open == 0, fmt.Sprintf("%d of %d done, %d ambiguous", all-open, all, ambiguous), err
	})
}

// short is the end of an id: its beginning is the time, and much the same for all.
func short(id intent.ID) string { s := id.String(); return "…" + s[len(s)-8:] }
