package devstack

import (
	"context"
	"fmt"
)

// The environment variables that name servers that are already there, and that
// Exec sets for the command it runs.
const (
	databaseEnv = "DATABASE_URL"
	amqpEnv     = "AMQP_URL"
)

// fromEnvironment returns the stack that the environment names, nil if it names
// none or must not be asked, and an error if it names half of one or if what it
// names does not answer.
func fromEnvironment(ctx context.Context, s settings) (*Stack, error) {
	if s.mode == ModePrivate {
		return nil, nil
	}
	db, mq := s.getenv(databaseEnv), s.getenv(amqpEnv)
	if db == "" && mq == "" {
		return nil, nil
	}
	if db == "" || mq == "" {
		set, missing := databaseEnv, amqpEnv
		if db == "" {
			set, missing = amqpEnv, databaseEnv
		}
		return nil, fmt.Errorf("devstack: %s is set but %s is not; set both to use your own servers, or none to have them started", set, missing)
	}
	if err := answerBoth(ctx, db, mq); err != nil {
		return nil, fmt.Errorf("devstack: %s and %s are set, so nothing is started, but: %w", databaseEnv, amqpEnv, err)
	}
	return &Stack{DatabaseURL: db, AMQPURL: mq, Source: SourceEnvironment, opts: s}, nil
}
