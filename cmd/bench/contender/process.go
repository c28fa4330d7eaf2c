package contender

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Process is a running worker process.
type Process struct {
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	log     *os.File
	ready   chan struct{}
	last    chan struct{}
	ended   chan struct{}
	handled atomic.Int64

	once      sync.Once
	latencies []int64 // after last
}

// patience is how long a worker process may take to set up, and to end.
const patience = 60 * time.Second

// Start starts a worker process and waits until it is set up. What it logs goes to a file.
func Start(cmd *exec.Cmd, logPath string) (*Process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the worker's log: %w", err)
	}
	p := &Process{cmd: cmd, log: log, ready: make(chan struct{}), last: make(chan struct{}), ended: make(chan struct{})}
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		p.stdin, err = cmd.StdinPipe()
	}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		log.Close()
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	go p.listen(stdout)
	select {
	case <-p.ready:
		return p, nil
	case <-p.ended:
		return nil, fmt.Errorf("a worker ended before it was ready; see %s", logPath)
	case <-time.After(patience):
		p.Kill()
		return nil, fmt.Errorf("a worker was not ready within %v; see %s", patience, logPath)
	}
}

func (p *Process) listen(stdout io.Reader) {
	defer close(p.ended)
	in := json.NewDecoder(stdout)
	for {
		var m Message
		if err := in.Decode(&m); err != nil {
			break
		}
		switch {
		case m.Ready:
			close(p.ready)
		case m.Last:
			p.handled.Store(m.Handled)
			p.latencies = m.Latencies
			close(p.last)
		default:
			p.handled.Store(m.Handled)
		}
	}
	_, _ = io.Copy(io.Discard, stdout) // so that Wait need not cut it off
	_ = p.cmd.Wait()
	p.log.Close()
}

// Go tells it to begin.
func (p *Process) Go() error {
	if _, err := io.WriteString(p.stdin, "go\n"); err != nil {
		return fmt.Errorf("tell a worker to begin: %w; see %s", err, p.log.Name())
	}
	return nil
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Handled is how many jobs it has begun.
func (p *Process) Handled() int64 { return p.handled.Load() }

// Alive fails if it has ended.
func (p *Process) Alive() error {
	select {
	case <-p.ended:
		return fmt.Errorf("a worker ended by itself; see %s", p.log.Name())
	default:
		return nil
	}
}

// Stop tells it to drain and end, waits for that, and returns the latencies that it recorded, in microseconds.
func (p *Process) Stop() ([]int64, error) {
	p.once.Do(func() { _ = p.stdin.Close() })
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.Kill()
		return nil, fmt.Errorf("a worker did not end within %v; see %s", patience, p.log.Name())
	}
	select {
	case <-p.last:
		return p.latencies, nil
	default:
		return nil, fmt.Errorf("a worker ended without its last word; see %s", p.log.Name())
	}
}

// Kill ends it at once, for cleaning up.
func (p *Process) Kill() {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return
	}
	<-p.ended
}
