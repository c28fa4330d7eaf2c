package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/workers"
)

// workerTTL is how long a silent worker is believed to live. Short for the demo; the default is 10 s.
const workerTTL = 3 * time.Second

// work is the worker process. Any number of them may run; each says «ready» once it takes jobs. mailLog is the mail server's
// log, for the probe; empty: there is none.
func work(ctx context.Context, env environment, mailServer, mailLog string, stdout io.Writer) error {
	pool, err := pgxpool.New(ctx, env.DatabaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	mux := workers.NewMux()
	handler, err := (&Notifier{db: pool, server: mailServer, log: mailLog}).Handler()
	if err != nil {
		return err
	}
	workers.Handle(mux, Notify, handler)
	worker, err := workers.New(pool, env.AMQPURL, mux, workers.Config{
		Slots: 8, Heartbeat: 500 * time.Millisecond, TTL: workerTTL, Drain: 6 * time.Second, Log: env.Log,
	})
	if err != nil {
		return err
	}
	go func() {
		for tick := time.NewTicker(20 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			if worker.Ready() == nil {
				fmt.Fprintf(stdout, "ready %s\n", worker.ID())
				tick.Stop()
				return
			}
		}
	}()
	return worker.Run(ctx)
}
