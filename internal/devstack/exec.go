package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	// childGrace is how long the command may take to end after the first signal.
	childGrace = 30 * time.Second
	// strayGrace is how long what the command left running may take after it.
	strayGrace = 2 * time.Second
	// suspendPoll is how often a command that owns the terminal is checked for a
	// Ctrl-Z.
	suspendPoll = 100 * time.Millisecond
)

// Command is what Exec runs.
type Command struct {
	// Args are the program, looked up on the PATH, and its arguments.
	Args []string
	// Stdin, Stdout and Stderr are handed to the program; files directly.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Signals delivers the signals this program gets (SIGINT, SIGTERM). The caller
	// registers it with signal.Notify before it calls Exec.
	Signals <-chan os.Signal
}

// Exec runs a command with DATABASE_URL and AMQP_URL in its environment, on a
// stack that it brings up unless one runs, and afterwards takes down if it was
// this call that brought it up. It blocks until all that is done.
//
// The command runs in a process group of its own. The first signal (or the end
// of ctx, which counts as SIGTERM) is passed on to that group, which then has 30
// seconds; the second one kills the group. Whatever of the group outlives the
// command is ended too. If standard input is our terminal, the group becomes its
// foreground group, so that the command can read from it and a Ctrl-C reaches
// the group once, from the terminal, and not us.
//
// The code is the command's exit code, 128 plus the number if a signal ended it,
// 130 if Exec was interrupted (143 by SIGTERM), also while the stack came up; in
// that case the error is nil. With an error the code is at least 1.
func Exec(ctx context.Context, o Options, c Command) (code int, err error) {
	if len(c.Args) == 0 {
		return 2, errors.New("devstack: no command given to run")
	}
	upCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	first := make(chan os.Signal, 1) // the signal that came during Up
	upDone, watcherDone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watcherDone)
		select {
		case sig := <-c.Signals:
			first <- sig
			cancel()
		case <-upDone:
		}
	}()
	stack, err := Up(upCtx, o)
	close(upDone)
	<-watcherDone

	select {
	case sig := <-first: // perhaps too late to stop Up, but not to not run the command
		code = signalCode(sig)
		if errors.Is(err, context.Canceled) && !errors.Is(err, errLeftBehind) {
			err = nil
		}
	default:
		if err == nil {
			code, err = runCommand(ctx, c, stackEnv(os.Environ(), stack))
		}
	}
	if stack != nil && stack.Started {
		err = errors.Join(err, stack.Down(context.WithoutCancel(ctx)))
	}
	if err != nil {
		code = max(code, 1)
	}
	return code, err
}

// stackEnv is env with the stack's URLs in place of any others.
func stackEnv(env []string, k *Stack) []string {
	out := make([]string, 0, len(env)+2)
	for _, v := range env {
		if !strings.HasPrefix(v, databaseEnv+"=") && !strings.HasPrefix(v, amqpEnv+"=") {
			out = append(out, v)
		}
	}
	return append(out, databaseEnv+"="+k.DatabaseURL, amqpEnv+"="+k.AMQPURL)
}

// runCommand runs the command to its end and ends what it leaves behind.
func runCommand(ctx context.Context, c Command, env []string) (int, error) {
	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, c.Stdin, c.Stdout, c.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// Bounds the copying of output that something outside the group still holds.
	cmd.WaitDelay = strayGrace
	term := ownTerminal(c.Stdin)
	if term != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Foreground: true, Ctty: term.fd}
	}
	if err := cmd.Start(); err != nil {
		return 127, fmt.Errorf("devstack: run %s: %w", c.Args[0], err)
	}
	group := cmd.Process.Pid
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		awaitExit(group)
	}()
	got := superviseGroup(ctx, group, c.Signals, ended, term)
	// The leader is not reaped yet, so its number still means this group and
	// cannot hit another.
	endGroup(group)
	err := cmd.Wait()
	if term != nil {
		term.takeBack()
	}
	if got != nil {
		return signalCode(got), nil
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		return 1, fmt.Errorf("devstack: wait for %s: %w", c.Args[0], err)
	}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return signalCode(ws.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// superviseGroup passes signals on until the command has ended, and returns the
// first of them, or nil.
func superviseGroup(ctx context.Context, group int, signals <-chan os.Signal, ended <-chan struct{}, term *terminal) (got os.Signal) {
	var expired <-chan time.Time
	var suspended <-chan time.Time
	if term != nil {
		tick := time.NewTicker(suspendPoll)
		defer tick.Stop()
		suspended = tick.C
	}
	done := ctx.Done()
	forward := func(sig os.Signal) {
		if got != nil {
			_ = syscall.Kill(-group, syscall.SIGKILL)
			return
		}
		got = sig
		if s, ok := sig.(syscall.Signal); ok {
			_ = syscall.Kill(-group, s)
		}
		// A stopped process takes its signals only once continued.
		_ = syscall.Kill(-group, syscall.SIGCONT)
		expired = time.After(childGrace)
	}
	for {
		select {
		case <-ended:
			return got
		case sig := <-signals:
			forward(sig)
		case <-done:
			done = nil
			if got == nil {
				forward(syscall.SIGTERM)
			}
		case <-expired:
			_ = syscall.Kill(-group, syscall.SIGKILL)
		case <-suspended:
			if st, err := readStat(group); err == nil && st.state == 'T' {
				term.suspend(group)
			}
		}
	}
}

// endGroup ends what is left of a group whose leader has exited but was not
// reaped: SIGTERM, and after a while SIGKILL.
func endGroup(group int) {
	if len(groupMembers(group)) == 0 {
		return
	}
	_ = syscall.Kill(-group, syscall.SIGTERM)
	_ = syscall.Kill(-group, syscall.SIGCONT)
	deadline := time.Now().Add(strayGrace)
	for len(groupMembers(group)) > 0 {
		if time.Now().After(deadline) {
			_ = syscall.Kill(-group, syscall.SIGKILL)
			return
		}
		time.Sleep(processPoll)
	}
}

// groupMembers lists the group's processes that are not zombies.
func groupMembers(group int) []int {
	var pids []int
	for pid, st := range allProcesses() {
		if st.pgrp == group && st.state != 'Z' {
			pids = append(pids, pid)
		}
	}
	return pids
}

// signalCode is the shell's exit code for a signal.
func signalCode(sig os.Signal) int {
	if s, ok := sig.(syscall.Signal); ok {
		return 128 + int(s)
	}
	return 1
}
