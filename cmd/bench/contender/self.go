package contender

import (
	"context"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgxpool"
)

// self is the command that runs this program as a worker process.
func self(name string, t Target, o Options) (*exec.Cmd, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "work", name, "-slots", strconv.Itoa(o.Slots), "-kinds", strconv.Itoa(max(1, o.Kinds)),
		"-roles", strings.Join(o.Roles, ","))
	cmd.Env = append(os.Environ(), "DATABASE_URL="+t.DatabaseURL, "AMQP_URL="+t.AMQPURL)
	return cmd, nil
}

func openPool(ctx context.Context, databaseURL string, size int32) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		return nil, err
	}
	config.MaxConns = size
	return pgxpool.NewWithConfig(ctx, config)
}

// moduleVersion is the version of a module that this program was built with.
func moduleVersion(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(unknown version)"
	}
	for _, m := range info.Deps {
		if m.Path == path {
			return m.Version
		}
	}
	return "(unknown version)"
}

// clients of a pool, made at its first use: making one is no part of creating a job.
var clients sync.Map // *pgxpool.Pool → client

func cached[C any](pool *pgxpool.Pool, open func(Target) (C, error), t Target) (C, error) {
	if c, ok := clients.Load(pool); ok {
		return c.(C), nil
	}
	c, err := open(t)
	if err != nil {
		return c, err
	}
	clients.Store(pool, c)
	return c, nil
}
