package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/writhq/writ/internal/rabbit"
)

// createDatabase makes a database with a name of its own and returns its URL.
func createDatabase(ctx context.Context, server string) (string, error) {
	u, err := url.Parse(server)
	if err != nil || !strings.HasPrefix(u.Scheme, "postgres") {
		return "", errors.New("DATABASE_URL must be a URL like postgres://user:password@host:5432/database")
	}
	name := "writ_demo_" + strings.ToLower(rand.Text()[:10])
	u.Path = "/" + name
	// Not to be interrupted: a creation that is cut off might be completed after it was cleaned up.
	return u.String(), onServer(context.WithoutCancel(ctx), server, "CREATE DATABASE "+name)
}

func dropDatabase(ctx context.Context, server, demo string) error {
	u, err := url.Parse(demo)
	if err != nil {
		return err
	}
	return onServer(ctx, server, "DROP DATABASE IF EXISTS "+strings.TrimPrefix(u.Path, "/")+" WITH (FORCE)")
}

func onServer(ctx context.Context, server, statement string) error {
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

func readPosts(ctx context.Context, db *pgxpool.Pool) (map[int64]string, error) {
	rows, err := db.Query(ctx, `SELECT id, author_email FROM posts`)
	if err != nil {
		return nil, err
	}
	posts := map[int64]string{}
	var id int64
	var address string
	_, err = pgx.ForEachRow(rows, []any{&id, &address}, func() error { posts[id] = address; return nil })
	return posts, err
}

// broker is the one queue of this demo's installation, seen from outside.
type broker struct {
	conn  *amqp.Connection
	queue string
}

func openBroker(ctx context.Context, amqpURL string, db *pgxpool.Pool, queue string) (*broker, error) {
	var installation uuid.UUID
	if err := db.QueryRow(ctx, `SELECT installation FROM writ.settings`).Scan(&installation); err != nil {
		return nil, err
	}
	name, err := rabbit.QueueName(installation, queue)
	if err != nil {
		return nil, err
	}
	conn, err := amqp.Dial(amqpURL)
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	return &broker{conn, name}, nil
}

// ready is how many messages wait in the queue.
func (b *broker) ready() (n int, err error) {
	err = b.do(func(ch *amqp.Channel) error {
		// The arguments of a passive declaration are not looked at.
		q, err := ch.QueueDeclarePassive(b.queue, true, false, false, false, nil)
		n = q.Messages
		return err
	})
	return n, err
}

// purge throws away all messages that wait, and returns how many they were.
func (b *broker) purge() (n int, err error) {
	err = b.do(func(ch *amqp.Channel) error { n, err = ch.QueuePurge(b.queue, false); return err })
	return n, err
}

// close deletes the queue, so that the demo leaves nothing behind, and ends the connection.
func (b *broker) close() error {
	return errors.Join(b.do(func(ch *amqp.Channel) error { _, err := ch.QueueDelete(b.queue, false, false, false); return err }), b.conn.Close())
}

func (b *broker) do(do func(*amqp.Channel) error) error {
	ch, err := b.conn.Channel()
	if err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	defer ch.Close()
	if err := do(ch); err != nil {
		return fmt.Errorf("broker: queue %s: %w", b.queue, err)
	}
	return nil
}
