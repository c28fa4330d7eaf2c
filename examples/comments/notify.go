package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/workers"
)

// NotifyArgs is the contract between the application and its workers: an id, not a copy of the comment.
type NotifyArgs struct {
	CommentID int64 `json:"comment_id"`
}

// Notify mails a comment to the author of its post. It is declared once and shared by both sides.
//
// The times are short so that the demo is. In production leave them out: the defaults are a timeout of 60 s, 30 s for an
// effect to settle, and a backoff from 1 s to 1 h.
var Notify = intent.Kind[NotifyArgs]{
	Name:        "blog.comment.notify",
	Timeout:     5 * time.Second,
	Settle:      time.Second,
	MaxAttempts: 50,
	Backoff:     intent.Backoff{Min: 200 * time.Millisecond, Max: 2 * time.Second},
}

// Notifier carries Notify out.
type Notifier struct {
	db    *pgxpool.Pool
	mail  Mailer
	probe workers.Probe[NotifyArgs] // nil: what nobody knows waits for a person
}

// Handler is what the workers run. EffectMarked: what fails before job.Effect is surely not done, and simply retried.
func (n *Notifier) Handler() workers.Handler[NotifyArgs] {
	return workers.Handler[NotifyArgs]{
		Do: n.do, Effect: workers.EffectMarked, Probe: n.probe,
		// Short for the demo; the defaults are 30 s, five times, and 10 s doubling to 10 min.
		Probing: workers.Probing{Timeout: 5 * time.Second, Most: 10, Backoff: intent.Backoff{Min: 500 * time.Millisecond, Max: 2 * time.Second}},
	}
}

func (n *Notifier) do(ctx context.Context, job *workers.Job[NotifyArgs]) error {
	c, err := n.load(ctx, job.Args.CommentID)
	if errors.Is(err, pgx.ErrNoRows) {
		return workers.Stop(fmt.Errorf("comment %d is gone", job.Args.CommentID))
	} else if err != nil {
		return fmt.Errorf("load comment: %w", err)
	}
	msg, err := compose(c, job.Key()) // the idempotency key becomes the Message-ID
	if err != nil {
		return workers.Stop(err)
	}
	conn, err := n.mail.Dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.Send(job.Effect(ctx), msg); err != nil {
		return err // NotDone, Stop or unknown: see Send
	}
	// The receipt is stored in the transaction that records the intent as sent.
	return job.Done(func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE comments SET notified_at = now() WHERE id = $1`, c.ID)
		return err
	})
}

// posted is a comment with what its mail needs besides.
type posted struct {
	Comment
	Title, To string
}

func (n *Notifier) load(ctx context.Context, id int64) (posted, error) {
	p := posted{Comment: Comment{ID: id}}
	err := n.db.QueryRow(ctx, `SELECT c.post_id, c.author, c.body, p.title, p.author_email
		FROM comments c JOIN posts p ON p.id = c.post_id WHERE c.id = $1`, id).
		Scan(&p.Post, &p.Author, &p.Text, &p.Title, &p.To)
	return p, err
}
