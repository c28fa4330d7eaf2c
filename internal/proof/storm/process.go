package storm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a running child, from the storm's side.
type process struct {
	role  Role
	cmd   *exec.Cmd
	log   string // path
	hello string
	ended chan struct{} // closed when it has
	err   error         // how, after that
	asked chan struct{} // closed when it was asked to end
	once  sync.Once
}

// start runs a child and waits for its first line.
func start(role Role, binary, dir string, env []string) (*process, error) {
	cmd := exec.Command(binary)
	cmd.Env = append(append(os.Environ(), env...), envRole+"="+string(role), envDir+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // none outlives the storm
	log, err := os.CreateTemp(dir, string(role)+"-*.log")
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own
	cmd.Stderr = log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("storm: start a %s: %w", role, err)
	}
	p := &process{role: role, cmd: cmd, log: log.Name(), ended: make(chan struct{}), asked: make(chan struct{})}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	p.hello = strings.TrimSpace(line)
	go func() {
		_, _ = io.Copy(io.Discard, stdout)
		p.err = cmd.Wait()
		close(p.ended)
	}()
	if err != nil {
		_ = p.signal(syscall.SIGKILL)
		<-p.ended
		return p, fmt.Errorf("storm: a %s ended before it began (%w): %s", role, p.err, p.said())
	}
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// kill ends it at once, frozen or not.
func (p *process) kill() {
	_ = p.signal(syscall.SIGKILL) // gone already: as good
	<-p.ended
}

// stop asks it to end, and kills it if it has not within most.
func (p *process) stop(most time.Duration) error {
	p.once.Do(func() { close(p.asked) })
	_ = p.signal(syscall.SIGCONT)
	_ = p.signal(syscall.SIGTERM)
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-p.ended:
		if p.err != nil {
			return fmt.Errorf("%s %d ended with %w when it was asked to end: %s", p.role, p.pid(), p.err, p.said())
		}
		return nil
	case <-timer.C:
		p.kill()
		return fmt.Errorf("%s %d did not end within %v", p.role, p.pid(), most)
	}
}

// killed reports whether it was ended by SIGKILL, which is always ours or the ledger's.
func (p *process) killed() bool {
	var exit *exec.ExitError
	if !errors.As(p.err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// said is the end of its log.
func (p *process) said() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return "it said nothing that can be read"
	}
	return "it said, in " + filepath.Base(p.log) + ": …" + string(text[max(0, len(text)-2000):])
}

// slot keeps a child of one role alive.
type slot struct {
	role  Role
	begin func() (*process, error)
	fault func(error) // told of a child that ended by itself

	relieved bool // a child that was asked to end is followed by another one

	mu      sync.Mutex
	current *process
	all     []*process
}

// get returns the child that runs, or nil.
func (s *slot) get() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

func (s *slot) set(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = p
	if p != nil {
		s.all = append(s.all, p)
	}
}

// history lists all children that this slot ever had.
func (s *slot) history() []*process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*process(nil), s.all...)
}

// run starts a child again whenever it was killed, until ctx ends; then the last one runs on, until stop.
func (s *slot) run(ctx context.Context) {
	for ctx.Err() == nil {
		p, err := s.begin()
		if err != nil {
			if p == nil || !p.killed() { // it may have been killed before its first line
				s.fault(err)
				return
			}
			continue
		}
		s.set(p)
		select {
		case <-ctx.Done():
			return
		case <-p.ended:
		}
		select {
		case <-p.asked:
			if !s.relieved || ctx.Err() != nil {
				return
			}
			s.set(nil)
			continue
		default:
		}
		s.set(nil)
		if !p.killed() {
			s.fault(fmt.Errorf("%s %d ended by itself (%w): %s", s.role, p.pid(), p.err, p.said()))
			return
		}
		if pause(ctx, 100*time.Millisecond) != nil {
			return
		}
	}
}
