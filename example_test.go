package writ_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/writhq/writ"
	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/migrations"
	"github.com/writhq/writ/workers"
	"github.com/writhq/writ/workers/probe"
)

// NotifyArgs is the contract between creators and workers: an id, not a copy of the comment.
type NotifyArgs struct {
	CommentID int64 `json:"comment_id"`
}

// Notify is declared once, where both sides see it. Zero fields mean the defaults.
var Notify = intent.Kind[NotifyArgs]{Name: "blog.comment.notify", Timeout: 30 * time.Second}

// AddComment stores a comment and the intent to mail it, in one transaction of pgx.
func AddComment(ctx context.Context, pool *pgxpool.Pool, body string) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		var args NotifyArgs
		if err := tx.QueryRow(ctx, `INSERT INTO comments (body) VALUES ($1) RETURNING id`, body).Scan(&args.CommentID); err != nil {
			return err
		}
		_, err := Notify.Create(ctx, tx, args, intent.Opts{Subjects: []string{fmt.Sprintf("comment:%d", args.CommentID)}})
		return err
	})
}

// AddCommentSQL does the same with database/sql.
func AddCommentSQL(ctx context.Context, db *sql.DB, body string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after the commit
	var args NotifyArgs
	if err := tx.QueryRowContext(ctx, `INSERT INTO comments (body) VALUES ($1) RETURNING id`, body).Scan(&args.CommentID); err != nil {
		return err
	}
	if _, err := Notify.Create(ctx, intent.SQL(tx), args, intent.Opts{}); err != nil {
		return err
	}
	return tx.Commit()
}

// Notifier carries Notify out.
type Notifier struct {
	Pool *pgxpool.Pool
	Send func(ctx context.Context, key, body string) error // to the mail server
}

// Do loads, sends, and leaves a receipt in the transaction that records the intent as sent.
func (n *Notifier) Do(ctx context.Context, job *workers.Job[NotifyArgs]) error {
	var body string
	err := n.Pool.QueryRow(ctx, `SELECT body FROM comments WHERE id = $1`, job.Args.CommentID).Scan(&body)
	if errors.Is(err, pgx.ErrNoRows) {
		return workers.Stop(fmt.Errorf("comment %d is gone", job.Args.CommentID)) // error: trying again is of no use
	} else if err != nil {
		return err // before job.Effect, so surely not done: tried again
	}
	if err := n.Send(job.Effect(ctx), job.Key(), body); err != nil {
		return workers.NotReached(err) // connection refused: not done. Anything else: nobody knows
	}
	return job.Done(func(ctx context.Context, tx pgx.Tx) error { return n.Told(ctx, tx, job) })
}

// Told is the receipt.
func (n *Notifier) Told(ctx context.Context, tx pgx.Tx, job *workers.Job[NotifyArgs]) error {
	_, err := tx.Exec(ctx, `UPDATE comments SET notified_at = now() WHERE id = $1`, job.Args.CommentID)
	return err
}

// Work runs workers, relay and reconciler in this process, until ctx ends.
func Work(ctx context.Context, pool *pgxpool.Pool, amqpURL string, n *Notifier) error {
	mux := workers.NewMux()
	workers.Handle(mux, Notify, workers.Handler[NotifyArgs]{Do: n.Do, OnHappened: n.Told, Effect: workers.EffectMarked})
	return writ.Run(ctx, pool, amqpURL, mux, writ.Config{})
}

// HandleProbed registers the handler with a probe: what nobody knows is looked up in the mail server's log.
func HandleProbed(mux *workers.Mux, n *Notifier) error {
	ask, err := probe.MailLog(probe.MailLogConfig[NotifyArgs]{Path: "/var/log/mail.log", Wake: probe.Greet("mx.example.com:25")})
	if err != nil {
		return err
	}
	workers.Handle(mux, Notify, workers.Handler[NotifyArgs]{Do: n.Do, OnHappened: n.Told, Effect: workers.EffectMarked, Probe: ask})
	return nil
}

// A comment and its mail, from the application's transaction to the receipt.
func Example() {
	withDatabase(func(ctx context.Context, pool *pgxpool.Pool, db *sql.DB) error {
		if err := AddComment(ctx, pool, "by pgx"); err != nil {
			return err
		}
		if err := AddCommentSQL(ctx, db, "by database/sql"); err != nil {
			return err
		}

		mailed := make(chan string)
		notifier := &Notifier{Pool: pool, Send: func(_ context.Context, _, body string) error {
			mailed <- body
			return nil
		}}
		working, stop := context.WithCancel(ctx)
		defer stop()
		ended := make(chan error, 1)
		go func() { ended <- Work(working, pool, os.Getenv("AMQP_URL"), notifier) }()
		bodies := map[string]bool{}
		for len(bodies) < 2 {
			bodies[<-mailed] = true
		}
		stop() // Run writes the outcomes down before it returns
		err := <-ended

		done, listErr := intent.List(ctx, pool, intent.Filter{Kind: Notify.Name, Status: "sent"})
		fmt.Println(len(done), "sent, mailed:", bodies["by pgx"], bodies["by database/sql"])
		return errors.Join(err, listErr)
	})
	// Output: 2 sent, mailed: true true
}

// withDatabase gives the example a database of its own.
func withDatabase(do func(context.Context, *pgxpool.Pool, *sql.DB) error) {
	ctx := context.Background()
	if err := runOn(ctx, "writ_example_"+strings.ReplaceAll(uuid.NewString(), "-", ""), do); err != nil {
		fmt.Println(err)
	}
}

func runOn(ctx context.Context, name string, do func(context.Context, *pgxpool.Pool, *sql.DB) error) (err error) {
	admin, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer admin.Close(ctx)
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return err
	}
	defer func() {
		_, dropErr := admin.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
		err = errors.Join(err, dropErr)
	}()
	config, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	config.ConnConfig.Database = name
	if _, err := migrations.Up(ctx, config.ConnConfig); err != nil {
		return err
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, `CREATE TABLE comments (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text, notified_at timestamptz)`); err != nil {
		return err
	}
	db := stdlib.OpenDB(*config.ConnConfig)
	defer db.Close()
	return do(ctx, pool, db)
}
