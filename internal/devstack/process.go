package devstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// markerEnv is set in the environment of every server to its stack's id, so that
// a process that was started but never recorded (its starter was killed in
// between) is still found.
const markerEnv = "WRIT_DEVSTACK_ID"

// processPoll is how often a process is looked at while waiting for its end.
const processPoll = 10 * time.Millisecond

// process is one recorded process. A pid alone may since have been given to
// another process; together with its start time it names this one only.
type process struct {
	PID   int    `json:"pid,omitempty"`
	Start uint64 `json:"start,omitempty"` // field 22 of /proc/PID/stat: clock ticks since boot
}

// procStat is what we use of /proc/PID/stat.
type procStat struct {
	comm  string
	state byte
	ppid  int
	pgrp  int
	start uint64
}

// readStat fails if the process does not exist.
func readStat(pid int) (procStat, error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return procStat{}, err
	}
	return parseStat(data)
}

// parseStat reads a line of /proc/PID/stat. The second field, the program's name
// in parentheses, may itself hold spaces and parentheses.
func parseStat(data []byte) (procStat, error) {
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || end < open {
		return procStat{}, errors.New("devstack: malformed /proc/PID/stat")
	}
	f := strings.Fields(string(data[end+1:]))
	const ppid, pgrp, start = 1, 2, 19 // counted from the third field
	if len(f) <= start || f[0] == "" {
		return procStat{}, errors.New("devstack: short /proc/PID/stat")
	}
	st := procStat{comm: string(data[open+1 : end]), state: f[0][0]}
	var errs [3]error
	st.ppid, errs[0] = strconv.Atoi(f[ppid])
	st.pgrp, errs[1] = strconv.Atoi(f[pgrp])
	st.start, errs[2] = strconv.ParseUint(f[start], 10, 64)
	return st, errors.Join(errs[:]...)
}

// bootID changes with every boot; empty where the kernel does not tell.
func bootID() string {
	data, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data))
}

// alive reports whether this very process runs. A zombie does not; if it is our
// own child it is reaped here, which spares a goroutine per server that would
// outlive the call that started it.
func (p process) alive() bool {
	if p.PID <= 0 {
		return false
	}
	st, err := readStat(p.PID)
	if err != nil || st.start != p.Start {
		return false
	}
	if st.state == 'Z' && st.ppid == os.Getpid() {
		_, _ = syscall.Wait4(p.PID, nil, syscall.WNOHANG, nil)
	}
	return st.state != 'Z' && st.state != 'X'
}

// signal does nothing if the process has ended.
func (p process) signal(sig syscall.Signal) error {
	if !p.alive() {
		return nil
	}
	if err := syscall.Kill(p.PID, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("devstack: send %v to process %d: %w", sig, p.PID, err)
	}
	return nil
}

// waitEnd blocks until the process has ended or ctx has.
func (p process) waitEnd(ctx context.Context) error {
	for p.alive() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("devstack: process %d still runs: %w", p.PID, ctx.Err())
		case <-time.After(processPoll):
		}
	}
	return nil
}

// spawn starts a server in a session of its own, so that a terminal's Ctrl-C
// does not reach it, with its output in the named log file. The server outlives
// this program.
func spawn(cmd *exec.Cmd, logPath string) (process, error) {
	out, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return process{}, fmt.Errorf("devstack: open the log: %w", err)
	}
	defer func() { _ = out.Close() }()
	cmd.Stdout, cmd.Stderr = out, out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	if err := cmd.Start(); err != nil {
		return process{}, fmt.Errorf("devstack: start %s: %w", cmd.Path, err)
	}
	pid := cmd.Process.Pid
	st, err := readStat(pid) // not yet reaped, so it is there even if it ended
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return process{}, fmt.Errorf("devstack: look at the new %s: %w", cmd.Path, err)
	}
	return process{PID: pid, Start: st.start}, cmd.Process.Release()
}

// killProcesses ends every process of the stack at once and waits for it. The
// data is about to be removed, so nothing is gained by a graceful end; Postgres
// gets its "immediate" signal first, because then it frees its shared memory.
func killProcesses(ctx context.Context, st *state) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	if st.BootID != bootID() {
		return nil // the machine was restarted: the recorded pids are not ours
	}
	pg := st.Processes.Postgres
	err := errors.Join(
		thawTree(pg),
		pg.signal(syscall.SIGQUIT),
		st.Processes.Broker.signal(syscall.SIGKILL),
		st.Processes.Epmd.signal(syscall.SIGKILL),
	)
	if err != nil {
		return err
	}
	grace, stop := context.WithTimeout(ctx, 3*time.Second)
	defer stop()
	_ = pg.waitEnd(grace)
	for {
		left := strays(st)
		if len(left) == 0 {
			return errors.Join(pg.waitEnd(ctx), st.Processes.Broker.waitEnd(ctx), st.Processes.Epmd.waitEnd(ctx))
		}
		for _, p := range left {
			if err := p.signal(syscall.SIGKILL); err != nil {
				return err
			}
		}
		for _, p := range left {
			if err := p.waitEnd(ctx); err != nil {
				return err
			}
		}
	}
}

// strays lists the live processes that belong to the stack: the recorded ones,
// those with its mark in their environment (servers inherit it to what they
// start), and Postgres processes working in its data directory, which overwrite
// their environment with their title.
func strays(st *state) []process {
	var found []process
	recorded := []process{st.Processes.Postgres, st.Processes.Broker, st.Processes.Epmd}
	mark := []byte(markerEnv + "=" + st.ID)
	data := filepath.Join(st.PostgresDir, "data")
	for pid, stat := range allProcesses() {
		p := process{PID: pid, Start: stat.start}
		if stat.state == 'Z' || pid == os.Getpid() {
			continue
		}
		proc := filepath.Join("/proc", strconv.Itoa(pid))
		env, _ := os.ReadFile(filepath.Join(proc, "environ"))
		marked := st.ID != "" && slices.ContainsFunc(bytes.Split(env, []byte{0}), func(v []byte) bool { return bytes.Equal(v, mark) })
		cwd, _ := os.Readlink(filepath.Join(proc, "cwd"))
		backend := st.PostgresDir != "" && stat.comm == "postgres" && strings.TrimSuffix(cwd, " (deleted)") == data
		if marked || backend || slices.Contains(recorded, p) {
			found = append(found, p)
		}
	}
	return found
}

// allProcesses reads /proc once.
func allProcesses() map[int]procStat {
	entries, _ := os.ReadDir("/proc")
	all := make(map[int]procStat, len(entries))
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if st, err := readStat(pid); err == nil {
			all[pid] = st
		}
	}
	return all
}

// tail returns the end of a log, for error messages.
func tail(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "(no log: " + err.Error() + ")"
	}
	const keep = 2000 // bytes
	if len(data) > keep {
		data = data[len(data)-keep:]
	}
	return strings.TrimSpace(string(data))
}
