package devstack

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestExecPassesEnvironmentAndCodeWhenStackRuns(t *testing.T) {
	t.Parallel()
	k, o := setup(t)
	var out bytes.Buffer
	code, err := Exec(testContext(t), o, Command{
		Args:  []string{"/bin/sh", "-c", `cat; echo " $DATABASE_URL $AMQP_URL"; exit 7`},
		Stdin: strings.NewReader("in"), Stdout: &out,
	})
	if want := "in " + k.DatabaseURL + " " + k.AMQPURL + "\n"; code != 7 || err != nil || out.String() != want {
		t.Errorf("Exec = %d, %v, output %q; want 7, nil, %q", code, err, out.String(), want)
	}
	if code, err := Exec(testContext(t), o, Command{Args: []string{"/bin/sh", "-c", "kill -9 $$"}}); code != 137 || err != nil {
		t.Errorf("Exec of a killed command = %d, %v; want 137, nil", code, err)
	}
	if code, err := Exec(testContext(t), o, Command{Args: []string{"/no/such/program"}}); code != 127 || err == nil {
		t.Errorf("Exec of a missing program = %d, %v; want 127 and an error", code, err)
	}
	if code, err := Exec(testContext(t), o, Command{}); code != 2 || err == nil {
		t.Errorf("Exec of nothing = %d, %v; want 2 and an error", code, err)
	}

	out.Reset()
	code, err = Exec(testContext(t), o, Command{Args: []string{"/bin/sh", "-c", "sleep 1000 & echo $!"}, Stdout: &out})
	if code != 0 || err != nil {
		t.Errorf("Exec = %d, %v; want 0, nil", code, err)
	}
	requireDead(t, out.String())

	ctx, cancel := context.WithCancel(testContext(t))
	cancel()
	if code, err := runCommand(ctx, Command{Args: []string{"sleep", "1000"}}, os.Environ()); code != 143 || err != nil {
		t.Errorf("a command whose context ended = %d, %v; want 143, nil", code, err)
	}
	requireAnswers(t, k) // none of these calls started the stack, so none ended it
}

func TestExecTakesDownWhatItStartedWhenDone(t *testing.T) {
	t.Parallel()
	o := private(t)
	state := filepath.Join(t.TempDir(), "state")
	code, err := Exec(testContext(t), o, Command{Args: []string{"cp", statePath(o.Dir), state}})
	if code != 0 || err != nil {
		t.Fatalf("Exec = %d, %v; want 0, nil", code, err)
	}
	if _, err := os.Stat(state); err != nil {
		t.Errorf("the command did not see the stack: %v", err)
	}
	if _, err := os.Stat(o.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the stack's directory is left (%v)", err)
	}
}

func TestExecLeavesNothingWhenInterrupted(t *testing.T) {
	t.Parallel()
	o := private(t)
	pids := filepath.Join(t.TempDir(), "pids")
	// The command has a child, ignores nothing, and would never end.
	self := startExec(t, o.Dir, "/bin/sh", "-c", "sleep 1000 & echo $$ $! > "+pids+".new; mv "+pids+".new "+pids+"; wait")
	eventually(t, "the command to run", func() bool { _, err := os.Stat(pids); return err == nil })
	st := recorded(t, o.Dir)
	requireExit(t, self, syscall.SIGINT, 130)
	text, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	requireDead(t, string(text))
	requireGone(t, st)
}

func TestExecKillsWhenInterruptedTwice(t *testing.T) {
	t.Parallel()
	k, o := setup(t)
	pids := filepath.Join(t.TempDir(), "pids")
	self := startExec(t, o.Dir, "/bin/sh", "-c", "trap 'echo > "+pids+".int' INT; echo $$ > "+pids+"; while :; do sleep 0.05; done")
	eventually(t, "the command to run", func() bool { _, err := os.Stat(pids); return err == nil })
	if err := self.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the command to get the first signal", func() bool { _, err := os.Stat(pids + ".int"); return err == nil })
	requireExit(t, self, syscall.SIGINT, 130)
	requireAnswers(t, k)
}

func TestExecLeavesNothingWhenInterruptedDuringUp(t *testing.T) {
	t.Parallel()
	o := private(t)
	self := startExec(t, o.Dir, "/bin/echo", "must not run")
	var st *state
	eventually(t, "the broker to be started", func() bool {
		var err error
		st, err = loadState(o.Dir)
		return err == nil && st.Processes.Broker.alive()
	})
	requireExit(t, self, syscall.SIGINT, 130)
	if out := self.Stdout.(*bytes.Buffer).String(); out != "" {
		t.Errorf("the command ran: %q", out)
	}
	requireGone(t, st)
}

// startExec runs Exec in a process of its own.
func startExec(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	self := exec.CommandContext(testContext(t), os.Args[0], args...)
	self.Env = append(os.Environ(), execDirEnv+"="+dir)
	self.Stdout, self.Stderr = &bytes.Buffer{}, &bytes.Buffer{}
	if err := self.Start(); err != nil {
		t.Fatalf("start: %v", err)
	}
	return self
}

// requireExit signals the process and checks its exit code.
func requireExit(t *testing.T, self *exec.Cmd, sig syscall.Signal, want int) {
	t.Helper()
	if err := self.Process.Signal(sig); err != nil {
		t.Fatalf("signal: %v", err)
	}
	_ = self.Wait()
	if got := self.ProcessState.ExitCode(); got != want {
		t.Errorf("exit code %d, want %d; it said:\n%s", got, want, self.Stderr)
	}
}

// requireDead checks that none of the listed pids runs.
func requireDead(t *testing.T, pids string) {
	t.Helper()
	for f := range strings.FieldsSeq(pids) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			t.Fatalf("pid %q: %v", f, err)
		}
		if st, err := readStat(pid); err == nil && st.state != 'Z' {
			t.Errorf("process %d (%s) still runs", pid, st.comm)
		}
	}
}
