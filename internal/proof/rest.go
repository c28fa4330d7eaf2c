package proof

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/writhq/writ/internal/rabbit"
)

// ReadRest looks at what is left when all is at rest: the outbox, the queues of all declared kinds, and connections to
// this database whose application name is like a pattern of LIKE.
func ReadRest(ctx context.Context, db DB, amqpURL, applications string) (*Rest, error) {
	rest := &Rest{Queues: map[string]int{}}
	if err := one(ctx, db, &rest.Outbox, "SELECT count(*)::int FROM writ.outbox"); err != nil {
		return nil, err
	}
	var installation uuid.UUID
	if err := one(ctx, db, &installation, "SELECT installation FROM writ.settings"); err != nil {
		return nil, err
	}
	kinds, err := column(ctx, db, "SELECT DISTINCT queue FROM writ.kinds")
	if err != nil {
		return nil, err
	}
	rest.Connections, err = column(ctx, db, `SELECT coalesce(application_name, '') || ' pid ' || pid FROM pg_stat_activity
		WHERE datname = current_database() AND application_name LIKE $1`, applications)
	if err != nil {
		return nil, err
	}
	conn, err := amqp.Dial(amqpURL)
	if err != nil {
		return nil, errors.New("proof: the broker cannot be reached to look at its queues") // the error may hold the password
	}
	defer conn.Close()
	for _, kind := range kinds {
		name, err := rabbit.QueueName(installation, kind)
		if err != nil {
			return nil, err
		}
		n, err := depth(conn, name)
		if err != nil {
			return nil, fmt.Errorf("proof: queue %s: %w", name, err)
		}
		rest.Queues[name] = n
	}
	return rest, nil
}

// depth is how many messages a queue holds; none if it is not there.
func depth(conn *amqp.Connection, name string) (int, error) {
	ch, err := conn.Channel()
	if err != nil {
		return 0, err
	}
	queue, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
	var refused *amqp.Error
	if errors.As(err, &refused) && refused.Code == amqp.NotFound {
		return 0, nil // the broker has closed the channel
	}
	if err != nil {
		return 0, err
	}
	return queue.Messages, ch.Close()
}

func one(ctx context.Context, db DB, into any, sql string, args ...any) error {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return fmt.Errorf("proof: %w", err)
	}
	if !rows.Next() {
		rows.Close()
		return fmt.Errorf("proof: %w", errors.Join(rows.Err(), pgx.ErrNoRows))
	}
	err = rows.Scan(into)
	rows.Close()
	return errors.Join(err, rows.Err())
}

func column(ctx context.Context, db DB, sql string, args ...any) ([]string, error) {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("proof: %w", err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("proof: %w", err)
	}
	return out, nil
}
