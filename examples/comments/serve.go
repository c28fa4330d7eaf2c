package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ"
	"github.com/writhq/writ/migrations"
	"github.com/writhq/writ/reconciler"

	_ "embed"
)

//go:embed schema.sql
var schema string

// serve is the web process: the application, and beside it Writ's relay and reconciler, which could as well be
// processes of their own («writ run»).
func serve(ctx context.Context, env environment, listen string, stdout io.Writer) error {
	pool, err := pgxpool.New(ctx, env.DatabaseURL)
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
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	app := &App{db: pool, log: env.Log}
	server := &http.Server{Handler: app.Handler(), ReadHeaderTimeout: 10 * time.Second}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var engine, web error
	var wg sync.WaitGroup
	wg.Go(func() {
		defer stop()
		engine = writ.Run(ctx, pool, env.AMQPURL, nil, writ.Config{
			Log: env.Log,
			// Short for the demo; the defaults are a look every 5 s, and a hint is taken for lost after 60 s.
			Reconciler: reconciler.Config{
				Schedule: "@every 1s", RequeueAfter: 3 * time.Second, WorkerTTL: workerTTL,
				Schedules: map[reconciler.Duty]string{reconciler.Sweep: "@every 5s", reconciler.Unasked: "@every 5s"},
			},
		})
	})
	wg.Go(func() {
		defer stop()
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			web = err
		}
	})
	fmt.Fprintf(stdout, "listening http://%s\n", l.Addr())
	<-ctx.Done()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err = server.Shutdown(closing)
	wg.Wait()
	return errors.Join(engine, web, err)
}
