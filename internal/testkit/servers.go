package testkit

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/writhq/writ/internal/devstack"
)

// Servers brings up a Postgres and a RabbitMQ for one test alone, which may lose them.
func Servers(t testing.TB) *devstack.Stack {
	t.Helper()
	dir, err := os.MkdirTemp("", "writ-test-") // not t.TempDir: the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	stack, err := devstack.Up(context.Background(), devstack.Options{Dir: filepath.Join(dir, "stack"), Log: os.Stderr, Mode: devstack.ModePrivate})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := stack.Down(ctx); err != nil {
			t.Error(err)
		}
	})
	return stack
}
