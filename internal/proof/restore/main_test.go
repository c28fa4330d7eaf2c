// Package restore is the drill of docs/operations.md, After a restore, as a test: a server is lost, and its backup of an
// earlier moment is put in its place, though the outside world goes on from where it was. And the other drill: a dump that
// is restored as a staging copy.
package restore

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/writhq/writ/internal/devstack"
)

// serve brings up servers for one test alone, which may lose them.
func serve(t *testing.T) *devstack.Stack {
	t.Helper()
	dir, err := os.MkdirTemp("", "writ-restore-") // not t.TempDir: the path of a socket must be short
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
