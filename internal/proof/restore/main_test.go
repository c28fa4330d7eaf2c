// Package restore is the drill of docs/operations.md, After a restore, as a test: a server is lost, and its backup of an
// earlier moment is put in its place, though the outside world goes on from where it was. And the other drill: a dump that
// is restored as a staging copy.
//
// The tests share a private server, which one of them replaces: they do not run side by side.
package restore

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/writhq/writ/internal/devstack"
)

var stack *devstack.Stack

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "writ-restore-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	stack, err = devstack.Up(ctx, devstack.Options{Dir: filepath.Join(dir, "stack"), Log: os.Stderr, Mode: devstack.ModePrivate})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		down, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		if err := stack.Down(down); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	return m.Run()
}
