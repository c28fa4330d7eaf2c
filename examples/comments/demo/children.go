package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// child is one of the blog's processes: this same program with another verb. It is on a leash, its standard input: when
// the director dies, however that may be, the pipe closes and the child ends.
type child struct {
	name    string
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	lines   chan string // what it says on standard output
	ready   string      // what it said when it was ready: its address, or its id
	logFile string
	exited  chan struct{} // closed when it has ended, after err is set
	err     error
	mayEnd  atomic.Bool
}

// grace is how long a child may take to end by itself; the worker's drain is shorter.
const grace = 10 * time.Second

// start starts a process and waits until it says that it is ready. If it ends before it was told to, the demo fails with
// its last words.
func (d *director) start(ctx context.Context, name string, args ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{name: name, logFile: filepath.Join(d.dir, name+".log"), lines: make(chan string, 16), exited: make(chan struct{})}
	log, err := os.Create(c.logFile)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own
	c.cmd = exec.Command(self, append(args, "--leash")...)
	c.cmd.Env = append(os.Environ(), "DATABASE_URL="+d.url)
	c.cmd.Stderr = log
	// A group of its own: a Ctrl-C is for the director, who ends the others in order.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go c.watch(stdout, d.fail)
	line, err := c.line(ctx)
	if err != nil {
		return c, errors.Join(err, c.stop())
	}
	_, c.ready, _ = strings.Cut(line, " ")
	return c, nil
}

// watch reads what the child says, reaps it, and fails the demo if it was not to end yet.
func (c *child) watch(stdout io.Reader, fail context.CancelCauseFunc) {
	for s := bufio.NewScanner(stdout); s.Scan(); {
		c.lines <- s.Text()
	}
	c.err = c.cmd.Wait()
	if !c.mayEnd.Load() {
		c.err = fmt.Errorf("%s (pid %d) ended by itself: %v; its last words:\n%s", c.name, c.pid(), c.cmd.ProcessState, c.lastWords())
		fail(c.err)
	}
	close(c.exited)
}

// line is the next line that the child says.
func (c *child) line(ctx context.Context) (string, error) {
	select {
	case line := <-c.lines:
		return line, nil
	case <-c.exited:
		return "", c.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case <-time.After(patience):
		return "", fmt.Errorf("%s said nothing for %v; its last words:\n%s", c.name, patience, c.lastWords())
	}
}

// stop ends the child: politely first, by force after a while. Safe to call again.
func (c *child) stop() error {
	c.mayEnd.Store(true)
	select {
	case <-c.exited:
		return nil
	default:
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.exited:
		return nil
	case <-time.After(grace):
	}
	_ = syscall.Kill(-c.pid(), syscall.SIGKILL)
	<-c.exited
	return fmt.Errorf("%s did not end within %v and was killed; its last words:\n%s", c.name, grace, c.lastWords())
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// lastWords are the last lines of the child's log.
func (c *child) lastWords() string {
	raw, err := os.ReadFile(c.logFile)
	if err != nil {
		return "    (" + err.Error() + ")"
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return "    " + strings.Join(lines[max(0, len(lines)-8):], "\n    ")
}

// order tells the mail server how to behave, and waits until it does.
func (d *director) order(ctx context.Context, o order) error {
	raw, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if _, err := d.mail.stdin.Write(append(raw, '\n')); err != nil {
		return fmt.Errorf("order to the mail server: %w", err)
	}
	answer, err := d.mail.line(ctx)
	if err == nil && answer != "ok" {
		err = fmt.Errorf("order %s to the mail server: %s", raw, answer)
	}
	return err
}
