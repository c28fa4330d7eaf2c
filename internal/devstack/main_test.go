package devstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// execDirEnv makes the test binary act as `writ dev exec` in that directory, so
// that signals can be tested on a process of its own.
const execDirEnv = "DEVSTACK_TEST_EXEC_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(execDirEnv); dir != "" {
		os.Exit(actAsExec(dir, os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
}

func actAsExec(dir string, args []string) int {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	code, err := Exec(context.Background(), Options{Dir: dir, Log: os.Stderr, Mode: ModePrivate}, Command{
		Args: args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Signals: signals,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
	}
	return code
}

// testContext ends shortly before the package's tests would be killed.
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// private returns options for a stack in a directory of its own, and checks at
// the end of the test that nothing is left of it.
func private(t *testing.T) Options {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "stack")
	t.Cleanup(func() {
		if st, err := loadState(dir); err == nil { // the test failed half-way
			_ = killProcesses(context.Background(), st)
			_ = os.RemoveAll(st.PostgresDir)
		}
	})
	return Options{Dir: dir, Log: testLog{t}, Mode: ModePrivate}
}

// setup starts a private stack that ends with the test.
func setup(t *testing.T) (*Stack, Options) {
	t.Helper()
	o := private(t)
	k, err := Up(testContext(t), o)
	if err != nil {
		t.Fatalf("Up: %v", err)
	}
	t.Cleanup(func() {
		if err := k.Down(context.Background()); err != nil {
			t.Errorf("Down: %v", err)
		}
	})
	return k, o
}

func recorded(t *testing.T, dir string) *state {
	t.Helper()
	st, err := loadState(dir)
	if err != nil {
		t.Fatalf("read the stack's state: %v", err)
	}
	return st
}

// requireGone checks that neither process nor file of a stack is left.
func requireGone(t *testing.T, st *state) {
	t.Helper()
	for _, p := range strays(st) {
		stat, _ := readStat(p.PID)
		t.Errorf("process %d (%s) is left", p.PID, stat.comm)
	}
	for _, path := range []string{st.Dir, st.PostgresDir} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left (%v)", path, err)
		}
	}
}

func requireAnswers(t *testing.T, k *Stack) {
	t.Helper()
	if err := answerBoth(context.Background(), k.DatabaseURL, k.AMQPURL); err != nil {
		t.Fatalf("the stack does not answer: %v", err)
	}
}

// eventually polls until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited a minute for: %s", what)
		case <-tick.C:
		}
	}
}

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s", p)
	return len(p), nil
}
