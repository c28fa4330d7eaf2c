// Package devstack gives a developer, a test or a drill a Postgres and a
// RabbitMQ to work against, with nothing to set up first.
//
// Up takes the first of these that applies:
//
//  1. DATABASE_URL and AMQP_URL are set: use those, start nothing.
//  2. A Docker engine answers: run the project's docker-compose.yml.
//  3. Otherwise: private server processes from installed programs, in a
//     directory of their own, on free ports, on loopback only, with random
//     passwords. Missing programs are installed when that is possible (root on
//     Debian or Ubuntu); if not, the error prints the command to run.
//
// What was started is recorded in <dir>/stack.json, so that another process can
// find it (Open), and so that Down ends exactly what Up started, even when the
// process that called Up was killed.
package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Source says where a stack's servers come from.
type Source string

// The sources of a stack.
const (
	SourceEnvironment Source = "environment" // given by DATABASE_URL and AMQP_URL
	SourceDocker      Source = "docker"      // containers of docker-compose.yml
	SourceProcesses   Source = "processes"   // private server processes
)

// Mode says which sources Up may take.
type Mode string

// The modes of Options.
const (
	// ModeAuto tries the environment, then Docker, then processes.
	ModeAuto Mode = ""
	// ModePrivate always runs private processes, whatever the environment says.
	// It is what tests and drills that break their servers want.
	ModePrivate Mode = "private"
)

var (
	// ErrNotRunning means that no stack is recorded in the directory, or that the
	// recorded one no longer answers.
	ErrNotRunning = errors.New("devstack: not running")
	// ErrNotPrivate is returned by the fault controls of a stack whose servers are
	// not private processes: there is nothing of ours to stop or freeze.
	ErrNotPrivate = errors.New("devstack: the servers are not private processes of this stack")

	// errLeftBehind marks an Up that failed and could not clean up after itself.
	errLeftBehind = errors.New("devstack: something was left behind")
)

// Options configure Up, Open, Inspect and Exec. The zero value is useful.
type Options struct {
	// Dir is where state, data and logs live. It must be absent, empty, or already
	// hold a stack. Default: .writ/dev under the project root, which is the
	// nearest directory upwards with this module's go.mod, or else the working
	// directory. A relative path is taken from the working directory.
	Dir string
	// Log receives a line for each step that takes time or changes the machine.
	// It never receives a password. Default: discarded. It must be safe to write
	// to from several goroutines if several calls share it.
	Log io.Writer
	// Getenv reads the environment. Default: os.Getenv.
	Getenv func(string) string
	// Mode limits the sources. Default: ModeAuto.
	Mode Mode
}

// Stack is a Postgres and a RabbitMQ that answered when it was returned. Its
// fields do not change. All methods are safe for concurrent use, also from
// several processes: each holds the directory's lock while it works.
type Stack struct {
	// DatabaseURL is a pgx URL. For private processes its user is a superuser.
	DatabaseURL string
	// AMQPURL is an AMQP 0-9-1 URL.
	AMQPURL string
	// Source says where the servers come from.
	Source Source
	// Dir is the stack's directory; empty for SourceEnvironment.
	Dir string
	// Started is true if this call of Up started the servers, false if it found
	// them running. Whoever started a stack takes it down.
	Started bool

	opts settings
}

// Up returns a stack that answers, starting servers if need be. It blocks until
// they are ready: about 10 s for private processes, longer when packages must be
// installed first. A stack that already runs in the directory is reused;
// leftovers of one that crashed are removed, data included, and a new one is
// started.
//
// When ctx ends or a step fails, everything this call started is ended and
// removed before it returns. If another Up or Down works in the same directory,
// Up waits for it.
func Up(ctx context.Context, o Options) (*Stack, error) {
	s, err := o.resolve()
	if err != nil {
		return nil, err
	}
	if env, err := fromEnvironment(ctx, s); env != nil || err != nil {
		return env, err
	}
	lock, err := lockDir(ctx, s.dir, lockCreate, s.log)
	if err != nil {
		return nil, err
	}
	defer lock.release()

	st, err := loadState(s.dir)
	switch {
	case err == nil:
		if answers(ctx, st) == nil {
			return st.stack(s), nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		s.log.printf("the stack in %s no longer answers: removing what is left of it", s.dir)
		if err := destroy(ctx, s, st); err != nil {
			return nil, err
		}
	case !errors.Is(err, os.ErrNotExist):
		return nil, err
	}
	return create(ctx, s)
}

// create starts a new stack in the locked directory.
func create(ctx context.Context, s settings) (*Stack, error) {
	if err := requireEmpty(s.dir); err != nil {
		return nil, err
	}
	st := newState(s.dir)
	var err error
	if file, ok := dockerUsable(ctx, s); ok {
		err = startDocker(ctx, s, st, file)
	} else if err = ctx.Err(); err == nil {
		err = startProcesses(ctx, s, st)
	}
	if err != nil {
		// The caller's context may be what ended us; cleaning up must still happen.
		clean := destroy(context.WithoutCancel(ctx), s, st)
		if ctx.Err() != nil {
			err = ctx.Err() // what the steps report is only its consequence
		}
		if clean != nil {
			return nil, errors.Join(err, fmt.Errorf("%w: %w; `writ dev down` tries again", errLeftBehind, clean))
		}
		removeDir(s.dir)
		return nil, err
	}
	stack := st.stack(s)
	stack.Started = true
	return stack, nil
}

// Open returns the stack that already runs: the one named by the environment, or
// the one recorded in the directory. It starts nothing. The error is
// ErrNotRunning if there is none or if it does not answer within a few seconds.
func Open(ctx context.Context, o Options) (*Stack, error) {
	s, err := o.resolve()
	if err != nil {
		return nil, err
	}
	if env, err := fromEnvironment(ctx, s); env != nil || err != nil {
		return env, err
	}
	st, err := loadState(s.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: no stack in %s; run `writ dev up`", ErrNotRunning, s.dir)
	}
	if err != nil {
		return nil, err
	}
	if err := answers(ctx, st); err != nil {
		return nil, fmt.Errorf("%w: the stack in %s does not answer (%w); run `writ dev up`", ErrNotRunning, s.dir, err)
	}
	return st.stack(s), nil
}

// Down ends every server of the stack, epmd included, and removes its data and
// its directory. It blocks until they are gone, about a second. It does nothing
// for SourceEnvironment, and nothing if the stack is already down. Once ctx has
// ended it still ends processes, but no longer waits for Docker or a lock.
func (k *Stack) Down(ctx context.Context) error {
	if k.Source == SourceEnvironment {
		return nil
	}
	_, err := down(ctx, k.opts)
	return err
}

// Down takes down the stack recorded in the directory, running or crashed, and
// reports whether there was one. Unlike Open it does not need the servers to
// answer. With DATABASE_URL and AMQP_URL set it still ends a recorded stack, but
// never touches the servers these name.
func Down(ctx context.Context, o Options) (found bool, err error) {
	s, err := o.resolve()
	if err != nil {
		return false, err
	}
	return down(ctx, s)
}

func down(ctx context.Context, s settings) (found bool, err error) {
	lock, err := lockDir(ctx, s.dir, lockExisting, s.log)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer lock.release()
	st, err := loadState(s.dir)
	if errors.Is(err, os.ErrNotExist) {
		removeDir(s.dir)
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := destroy(ctx, s, st); err != nil {
		return true, err
	}
	removeDir(s.dir)
	return true, nil
}

// destroy ends what the state records and removes its files, the state file
// last: if anything fails before, the next call tries again.
func destroy(ctx context.Context, s settings, st *state) error {
	if st.Source == SourceDocker {
		if err := stopDocker(ctx, s, st); err != nil {
			return err
		}
	} else if err := killProcesses(ctx, st); err != nil {
		return err
	}
	for _, dir := range []string{st.PostgresDir, filepath.Join(st.Dir, rabbitDir), filepath.Join(st.Dir, logDir)} {
		if dir == "" {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("devstack: remove the data: %w", err)
		}
	}
	if err := os.Remove(statePath(st.Dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("devstack: remove the state file: %w", err)
	}
	return nil
}
