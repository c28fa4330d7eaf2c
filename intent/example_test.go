package intent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/migrations"
)

// NotifyArgs is all that the job needs to know.
type NotifyArgs struct {
	CommentID int `json:"comment_id"`
}

// Notify is declared once, where creators and workers both see it.
var Notify = intent.Kind[NotifyArgs]{Name: "blog.comment.notify"}

// example runs an example on a database of its own.
func example(do func(ctx context.Context, pool *pgxpool.Pool) error) {
	ctx := context.Background()
	server := os.Getenv("DATABASE_URL")
	name := "writ_example_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	err := withAdmin(ctx, server, func(admin *pgx.Conn) error {
		if _, err := admin.Exec(ctx, "CREATE DATABASE "+name); err != nil {
			return err
		}
		config, err := pgxpool.ParseConfig(server)
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
		err = do(ctx, pool)
		pool.Close()
		_, dropErr := admin.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
		return errors.Join(err, dropErr)
	})
	if err != nil {
		fmt.Println(err)
	}
}

func withAdmin(ctx context.Context, server string, do func(*pgx.Conn) error) error {
	admin, err := pgx.Connect(ctx, server)
	if err != nil {
		return err
	}
	defer admin.Close(ctx)
	return do(admin)
}

// The intent belongs to the comment: both are there after the commit, or neither is.
func ExampleKind_Create() {
	example(func(ctx context.Context, pool *pgxpool.Pool) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			// … INSERT INTO comments … in the same transaction
			created, err := Notify.Create(ctx, tx, NotifyArgs{CommentID: 7}, intent.Opts{Key: "comment 7"})
			if err != nil {
				return err
			}
			again, err := Notify.Create(ctx, tx, NotifyArgs{CommentID: 7}, intent.Opts{Key: "comment 7"})
			if err != nil {
				return err
			}
			fmt.Println("created twice:", again.ID != created.ID, "existed:", again.Existed)
			return nil
		})
	})
	// Output: created twice: false existed: true
}

func ExampleKind_CreateMany() {
	example(func(ctx context.Context, pool *pgxpool.Pool) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			many := []intent.One[NotifyArgs]{{Args: NotifyArgs{CommentID: 7}}, {Args: NotifyArgs{CommentID: 8}}}
			created, err := Notify.CreateMany(ctx, tx, many)
			fmt.Println(len(created), "created")
			return err
		})
	})
	// Output: 2 created
}

func ExampleWhy() {
	example(func(ctx context.Context, pool *pgxpool.Pool) error {
		var id intent.ID
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			created, err := Notify.Create(ctx, tx, NotifyArgs{CommentID: 7}, intent.Opts{})
			id = created.ID
			return err
		})
		if err != nil {
			return err
		}
		why, err := intent.Why(ctx, pool, id)
		for part := range strings.SplitSeq(why, "; ") {
			if strings.Contains(part, "kind") {
				fmt.Println(part)
			}
		}
		return err
	})
	// Output: no worker ever declared kind blog.comment.notify
}

// A verdict names the position that was looked at; who comes second is told what changed.
func ExampleCancel() {
	example(func(ctx context.Context, pool *pgxpool.Pool) error {
		var id intent.ID
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			created, err := Notify.Create(ctx, tx, NotifyArgs{CommentID: 7}, intent.Opts{})
			id = created.ID
			return err
		})
		if err != nil {
			return err
		}
		i, err := intent.Get(ctx, pool, id)
		if err != nil {
			return err
		}
		v := intent.Verdict{ID: id, Seen: i.Position(), Actor: "ann", Why: "the comment was deleted"}
		now, err := intent.Cancel(ctx, pool, v)
		fmt.Println(now.State, err)

		_, err = intent.Cancel(ctx, pool, v)
		if conflict, ok := errors.AsType[*intent.ConflictError](err); ok {
			fmt.Printf("seen %s, is %s\n", conflict.Want.State, conflict.Got.State)
		}
		return nil
	})
	// Output:
	// cancelled <nil>
	// seen pending, is cancelled
}

// What has happened others are told by an event, in the same transaction: they get it if that commits.
func ExampleEvent_Publish() {
	type added struct {
		CommentID int `json:"comment_id"`
	}
	commentAdded := intent.Event[added]{Name: "comment.added"}
	example(func(ctx context.Context, pool *pgxpool.Pool) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			// INSERT INTO comments … RETURNING id
			if _, err := commentAdded.Publish(ctx, tx, added{7}, intent.EventOpts{Subject: "comment:7"}); err != nil {
				return err
			}
			_, err := intent.Event[added]{Name: "added"}.Publish(ctx, tx, added{7}, intent.EventOpts{})
			fmt.Println(err)
			return nil
		})
	})
	// Output: writ: event: "added" names no model (use model.verb in the past tense and in lower case, like user.authorized, at most 100 bytes)
}

// A web server begins a tree with the trace that its caller sent; what is created with that context, and what comes of it,
// belongs to the tree.
func ExampleWithCause() {
	example(func(ctx context.Context, pool *pgxpool.Pool) error {
		request := intent.NewID()
		ctx = intent.WithCause(ctx, intent.Cause{TID: request, Trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			_, err := intent.CreateAll(ctx, tx, []intent.New{Notify.New(NotifyArgs{7}, intent.Opts{}), Notify.New(NotifyArgs{8}, intent.Opts{})})
			return err
		})
		tree, treeErr := intent.Tree(ctx, pool, request)
		fmt.Println(len(tree), "intents in the tree")
		return errors.Join(err, treeErr)
	})
	// Output: 2 intents in the tree
}

// A limit over all worker processes: what the code declares is the default, what a person sets counts before it.
func ExampleSetLimit() {
	example(func(ctx context.Context, pool *pgxpool.Pool) error {
		limit := intent.Limit{Starts: 100, Per: time.Minute, Running: 5}
		if err := intent.SetLimit(ctx, pool, Notify.Name, limit, intent.Word{Actor: "ann", Why: "the mail server is slow today"}); err != nil {
			return err
		}
		all, err := intent.Limits(ctx, pool)
		if err != nil {
			return err
		}
		for _, l := range all {
			fmt.Printf("%s: %d starts per %v, %d at once; %s says: %s\n", l.Kind, l.Starts, l.Limit.Per, l.Running, l.SetBy, l.SetWhy)
		}
		return intent.ClearLimit(ctx, pool, Notify.Name, intent.PerKind, intent.Word{Actor: "ann", Why: "it is well again"})
	})
	// Output:
	// blog.comment.notify: 100 starts per 1m0s, 5 at once; ann says: the mail server is slow today
}
