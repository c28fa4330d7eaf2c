package devstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
)

// startProcesses starts private servers. On an error, or when the program is
// killed, the state file tells what exists; cleaning up is the caller's task.
func startProcesses(ctx context.Context, s settings, st *state) error {
	if runtime.GOOS != "linux" {
		return fmt.Errorf("devstack: private servers need Linux, this is %s; start Docker, or set %s and %s", runtime.GOOS, databaseEnv, amqpEnv)
	}
	var err error
	if st.Programs, err = findOrInstall(ctx, s); err != nil {
		return err
	}
	st.Source, st.Password = SourceProcesses, randomHex(16)
	if st.PostgresDir, err = choosePostgresDir(st.Dir, st.ID); err != nil {
		return err
	}
	if err := st.save(); err != nil {
		return err
	}
	if st.Ports, err = reservePorts(ctx, st.Dir); err != nil {
		return err
	}
	if err := st.save(); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(st.Dir, logDir), 0o700); err != nil {
		return fmt.Errorf("devstack: make the log directory: %w", err)
	}
	s.log.printf("starting Postgres on %s and RabbitMQ on %s; logs are in %s",
		loopback(st.Ports.Postgres), loopback(st.Ports.AMQP), filepath.Join(st.Dir, logDir))

	// The two write to the state as they come along; each starts from its own copy
	// so that neither reads while the other writes.
	var mu sync.Mutex
	update := func(change func(*state)) error {
		mu.Lock()
		defer mu.Unlock()
		change(st)
		return st.save()
	}
	forPostgres, forBroker := *st, *st
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return createPostgres(gctx, &forPostgres, update) })
	g.Go(func() error { return createBroker(gctx, &forBroker, update) })
	if err := g.Wait(); err != nil {
		return err
	}
	return update(func(st *state) {
		// The URLs say that the start was finished, see answers.
		st.DatabaseURL, st.AMQPURL = databaseURL(st, postgresDB), brokerURL(st)
	})
}

// findOrInstall returns the programs, installing packages if some are missing.
func findOrInstall(ctx context.Context, s settings) (programs, error) {
	p, err := findPrograms()
	var missing *missingError
	if !errors.As(err, &missing) {
		return p, err
	}
	return install(ctx, s.log, missing.packages)
}

// serverEnv is the environment every server starts from.
func serverEnv(st *state, home string) []string {
	path := os.Getenv("PATH")
	if path == "" {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	return []string{"PATH=" + path, "HOME=" + home, "LANG=C.UTF-8", markerEnv + "=" + st.ID}
}
