package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	gomail "github.com/wneessen/go-mail"

	"github.com/writhq/writ/examples/comments/mailserver"
	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/workers"
	"github.com/writhq/writ/workers/mail"
	"github.com/writhq/writ/workers/probe"
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
	db     *pgxpool.Pool
	server string // the mail server, host:port
	log    string // its log, for the probe; empty: what nobody knows waits for a person
}

// Handler is what the workers run: the ready-made one for mails, which knows what each answer of a mail server is worth.
func (n *Notifier) Handler() (workers.Handler[NotifyArgs], error) {
	cfg := mail.Config[NotifyArgs]{
		Server: n.server, Security: mail.Plaintext, Hello: "worker.blog.example",
		Domain:  "comments.example", // the Message-ID is the idempotency key at this domain
		Compose: n.compose, Receipt: n.receipt,
	}
	if n.log != "" {
		cfg.Log = &probe.MailLogConfig[NotifyArgs]{Path: n.log, Line: readLine, Skew: -1} // one machine, one clock
	}
	h, err := mail.New(cfg)
	// Short for the demo; the defaults are 30 s, five times, and 10 s doubling to 10 min.
	h.Probing = workers.Probing{Timeout: 5 * time.Second, Most: 10, Backoff: intent.Backoff{Min: 500 * time.Millisecond, Max: 2 * time.Second}}
	return h, err
}

// compose makes the mail of a job. Nothing has been sent yet, so an error of the database is simply tried again.
func (n *Notifier) compose(ctx context.Context, job *workers.Job[NotifyArgs]) (*gomail.Msg, error) {
	c, err := n.load(ctx, job.Args.CommentID)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, workers.Stop(fmt.Errorf("comment %d is gone", job.Args.CommentID))
	} else if err != nil {
		return nil, fmt.Errorf("load comment: %w", err)
	}
	msg, err := message(c)
	return msg, workers.Stop(err)
}

// receipt is stored in the transaction that records the intent as sent, or soon after a verdict that says so.
func (n *Notifier) receipt(ctx context.Context, tx pgx.Tx, job *workers.Job[NotifyArgs]) error {
	_, err := tx.Exec(ctx, `UPDATE comments SET notified_at = now() WHERE id = $1`, job.Args.CommentID)
	return err
}

// message makes the mail for a comment. Names and texts come from strangers: go-mail encodes what would break a header,
// and line breaks are taken out of the subject besides.
func message(c posted) (*gomail.Msg, error) {
	m := gomail.NewMsg()
	if err := errors.Join(m.FromFormat("The blog", "blog@comments.example"), m.To(c.To)); err != nil {
		return nil, fmt.Errorf("address: %w", err)
	}
	m.Subject(strings.Join(strings.Fields(fmt.Sprintf("%s commented on %s", c.Author, c.Title)), " "))
	m.SetBodyString(gomail.TypeTextPlain, c.Text)
	return m, nil
}

// readLine reads a line of the mail server's log, in which the probe looks for the Message-ID.
func readLine(line string) probe.Line {
	var e mailserver.Entry
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		return probe.Line{}
	}
	return probe.Line{At: e.At, MessageID: e.Key, Taken: e.Key != "", Server: true}
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
