// Events is two applications that share nothing but a broker: api authorizes users and says so by an event, pheidi
// subscribes to it and sends mails. See README.md.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ"
	"github.com/writhq/writ/migrations"
	"github.com/writhq/writ/workers"
)

const usage = `events is two applications on Writ: https://github.com/writhq/writ

  events api       application api: authorizes users, and publishes user.authorized
  events pheidi    application pheidi: subscribes to that, and sends mails

DATABASE_URL names the application's own database, AMQP_URL the broker of both.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run returns the exit code: 0 ok, 1 failure, 2 usage.
func run(ctx context.Context, args []string, _ io.Reader, _, stderr io.Writer) int {
	log := slog.New(slog.NewTextHandler(stderr, nil))
	applications := map[string]struct {
		schema string
		mux    func() *workers.Mux
	}{
		"api":    {schemaAPI, api},
		"pheidi": {schemaPheidi, func() *workers.Mux { return pheidi(log) }},
	}
	if len(args) != 1 || applications[args[0]].mux == nil {
		fmt.Fprint(stderr, usage)
		return 2
	}
	application := applications[args[0]]
	if err := work(ctx, log, args[0], application.schema, application.mux()); err != nil {
		log.Error("ended", "application", args[0], "error", err)
		return 1
	}
	return 0
}

// work is one application's process: its workers, and Writ's relay and reconciler for its database.
func work(ctx context.Context, log *slog.Logger, name, schema string, mux *workers.Mux) error {
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()
	if _, err := migrations.Up(ctx, pool.Config().ConnConfig); err != nil {
		return err
	}
	if _, err := pool.Exec(ctx, schema); err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	return writ.Run(ctx, pool, os.Getenv("AMQP_URL"), mux, writ.Config{
		Log:     log,
		Workers: workers.Config{Application: name}, // from now on its database refuses the tasks of others
	})
}
