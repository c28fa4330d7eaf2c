package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/writhq/writ/internal/devstack"
)

// servers are the private Postgres and RabbitMQ of this run, and what is known about them.
type servers struct {
	*devstack.Stack
	postgres, broker int // pids
	versions         map[string]string
	settings         map[string]string
}

// tuning of Postgres: as a server of this size would have it. All about durability stays as shipped.
var tuning = []string{
	"ALTER SYSTEM SET shared_buffers = '1GB'",
	"ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'",
	"ALTER SYSTEM SET max_wal_size = '4GB'",
}

// shown are the settings that a reader needs to judge the figures.
var shown = []string{
	"shared_buffers", "fsync", "synchronous_commit", "full_page_writes", "max_connections", "max_wal_size", "wal_level",
	"autovacuum", "jit", "shared_preload_libraries",
}

// start brings up private servers in dir and tunes them. The caller takes them down.
func start(ctx context.Context, dir string, log io.Writer) (_ *servers, err error) {
	stack, err := devstack.Up(ctx, devstack.Options{Dir: filepath.Join(dir, "stack"), Log: log, Mode: devstack.ModePrivate})
	if err != nil {
		return nil, err
	}
	s := &servers{Stack: stack, versions: map[string]string{}, settings: map[string]string{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.down(ctx))
		}
	}()
	if err := s.tune(ctx); err != nil {
		return nil, fmt.Errorf("tune Postgres: %w", err)
	}
	report, err := devstack.Inspect(ctx, devstack.Options{Dir: filepath.Join(dir, "stack"), Mode: devstack.ModePrivate})
	if err != nil {
		return nil, err
	}
	for _, service := range report.Services {
		switch service.Name {
		case "postgres":
			s.postgres = service.PID
		case "rabbitmq":
			s.broker = service.PID
		}
	}
	if s.postgres == 0 || s.broker == 0 {
		return nil, errors.New("the private servers' process ids are not known, so their CPU time cannot be measured")
	}
	return s, s.describe(ctx)
}

func (s *servers) down(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	return s.Down(ctx)
}

func (s *servers) tune(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.DatabaseURL)
	if err != nil {
		return err
	}
	for _, sql := range tuning {
		_, execErr := conn.Exec(ctx, sql)
		err = errors.Join(err, execErr)
	}
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return err
	}
	if err := errors.Join(s.StopPostgres(ctx, devstack.StopFast), s.StartPostgres(ctx)); err != nil {
		return err
	}
	if conn, err = pgx.Connect(ctx, s.DatabaseURL); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
	return errors.Join(err, conn.Close(ctx))
}

// describe notes versions and settings.
func (s *servers) describe(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.DatabaseURL)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, name := range shown {
		var value string
		if err := conn.QueryRow(ctx, "SELECT current_setting($1)", name).Scan(&value); err != nil {
			return fmt.Errorf("read setting %s: %w", name, err)
		}
		s.settings[name] = value
	}
	var version string
	if err := conn.QueryRow(ctx, "SHOW server_version").Scan(&version); err != nil {
		return err
	}
	s.versions["PostgreSQL"] = version
	broker, err := amqp.Dial(s.AMQPURL)
	if err != nil {
		return err
	}
	defer broker.Close()
	s.versions["RabbitMQ"] = fmt.Sprint(broker.Properties["version"])
	return nil
}
