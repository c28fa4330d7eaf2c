//go:build drill

// Package drills breaks things on purpose, on private servers of its own and with real processes: it is run by «make
// drills». What an outside ledger saw is compared with what the database says.
package drills

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/writhq/writ/internal/devstack"
)

// stack is shared by all drills, which run one after the other: they stop its servers.
var stack *devstack.Stack

func TestMain(m *testing.M) {
	if role := os.Getenv("DRILL_ROLE"); role != "" {
		os.Exit(play(role))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "writ-drills-")
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
