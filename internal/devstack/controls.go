package devstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// StopMode is how Postgres is told to stop.
type StopMode string

// The modes of StopPostgres, as pg_ctl names them.
const (
	// StopSmart waits for every client to leave; it takes no new ones.
	StopSmart StopMode = "smart"
	// StopFast ends the sessions, rolling their transactions back, and writes a
	// checkpoint.
	StopFast StopMode = "fast"
	// StopImmediate ends at once; the next start replays the log, as after a
	// power cut.
	StopImmediate StopMode = "immediate"
)

// StopBroker ends RabbitMQ gracefully: it closes its connections and writes its
// state. It blocks until the process has ended or ctx has. It does nothing if
// the broker does not run. The error is ErrNotPrivate for other sources and
// ErrNotRunning after Down; that holds for every control below.
func (k *Stack) StopBroker(ctx context.Context) error {
	return k.stopBroker(ctx, syscall.SIGTERM)
}

// KillBroker ends RabbitMQ with SIGKILL and waits until it is gone. Beware:
// RabbitMQ 3.10 writes down that a quorum queue exists up to two seconds after
// declaring it, confirms messages in it before, and when killed in between comes
// back with the queue empty. That is the broker's own doing, and worth a drill;
// a drill about something else lets a StopBroker and StartBroker follow the
// declaration.
func (k *Stack) KillBroker(ctx context.Context) error {
	return k.stopBroker(ctx, syscall.SIGKILL)
}

func (k *Stack) stopBroker(ctx context.Context, sig syscall.Signal) error {
	return k.control(ctx, func(st *state) error {
		if err := st.Processes.Broker.signal(sig); err != nil {
			return err
		}
		return st.Processes.Broker.waitEnd(ctx)
	})
}

// StartBroker starts a stopped or killed RabbitMQ on the same port with the same
// data, and blocks until it answers, about 8 s. It does nothing if it runs.
func (k *Stack) StartBroker(ctx context.Context) error {
	return k.control(ctx, func(st *state) error {
		if st.Processes.Broker.alive() {
			return nil
		}
		return bootBroker(ctx, st, st.update)
	})
}

// SetBrokerMemoryWatermark sets the share of the machine's memory above which
// RabbitMQ raises its memory alarm and stops reading from publishers. 0 raises
// it at once; a negative fraction restores the default and clears it. It blocks
// about two seconds; when it returns the alarm has been raised or cleared. The
// setting ends with the broker's process.
func (k *Stack) SetBrokerMemoryWatermark(ctx context.Context, fraction float64) error {
	if fraction < 0 {
		fraction = defaultWatermark
	}
	return k.control(ctx, func(st *state) error {
		return rabbitctl(ctx, st, "set_vm_memory_high_watermark", strconv.FormatFloat(fraction, 'f', -1, 64))
	})
}

// StopPostgres stops Postgres and blocks until its postmaster has ended or ctx
// has. It does nothing if it does not run. A frozen Postgres is thawed first, as
// it could not obey.
func (k *Stack) StopPostgres(ctx context.Context, mode StopMode) error {
	signals := map[StopMode]syscall.Signal{StopSmart: syscall.SIGTERM, StopFast: syscall.SIGINT, StopImmediate: syscall.SIGQUIT}
	sig, ok := signals[mode]
	if !ok {
		return fmt.Errorf("devstack: unknown StopMode %q; it is smart, fast or immediate", mode)
	}
	return k.control(ctx, func(st *state) error {
		p := st.Processes.Postgres
		if err := errors.Join(thawTree(p), p.signal(sig)); err != nil {
			return err
		}
		return p.waitEnd(ctx)
	})
}

// StartPostgres starts a stopped Postgres on the same port with the same data,
// and blocks until it answers. It does nothing if it runs.
func (k *Stack) StartPostgres(ctx context.Context) error {
	return k.control(ctx, func(st *state) error {
		if st.Processes.Postgres.alive() {
			return nil
		}
		p, err := runPostgres(st)
		if err != nil {
			return err
		}
		if err := st.update(func(st *state) { st.Processes.Postgres = p }); err != nil {
			return err
		}
		return waitFor(ctx, "Postgres", p, st.log(postgresLog), func(ctx context.Context) error { return pingPostgres(ctx, st.DatabaseURL) })
	})
}

// FreezePostgres stops the postmaster and all its children with SIGSTOP: open
// connections stay open and silent, new ones are accepted by the kernel and
// never answered. It does not block.
func (k *Stack) FreezePostgres() error {
	return k.control(context.Background(), func(st *state) error {
		p := st.Processes.Postgres
		if !p.alive() {
			return fmt.Errorf("%w: Postgres is stopped, so it cannot be frozen", ErrNotRunning)
		}
		if err := p.signal(syscall.SIGSTOP); err != nil {
			return err
		}
		// The postmaster is stopped and forks no more, so one look at its children
		// finds them all, but for one it was about to fork: look until none is left.
		for {
			frozen := 0
			for pid, c := range childrenOf(p) {
				if c.state != 'T' && c.state != 'Z' {
					frozen++
					if err := (process{PID: pid, Start: c.start}).signal(syscall.SIGSTOP); err != nil {
						return err
					}
				}
			}
			if frozen == 0 {
				return nil
			}
		}
	})
}

// ThawPostgres continues a frozen Postgres; it does nothing to a running one.
func (k *Stack) ThawPostgres() error {
	return k.control(context.Background(), func(st *state) error { return thawTree(st.Processes.Postgres) })
}

// thawTree continues the process and its children.
func thawTree(p process) error {
	if !p.alive() {
		return nil
	}
	errs := []error{p.signal(syscall.SIGCONT)}
	for pid, c := range childrenOf(p) {
		errs = append(errs, process{PID: pid, Start: c.start}.signal(syscall.SIGCONT))
	}
	return errors.Join(errs...)
}

func childrenOf(p process) map[int]procStat {
	children := map[int]procStat{}
	for pid, st := range allProcesses() {
		if st.ppid == p.PID {
			children[pid] = st
		}
	}
	return children
}

// control runs f on the recorded state under the directory's lock.
func (k *Stack) control(ctx context.Context, f func(*state) error) error {
	if k.Source != SourceProcesses {
		return ErrNotPrivate
	}
	lock, err := lockDir(ctx, k.Dir, lockExisting, k.opts.log)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: the stack in %s was taken down", ErrNotRunning, k.Dir)
	}
	if err != nil {
		return err
	}
	defer lock.release()
	st, err := loadState(k.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: the stack in %s was taken down", ErrNotRunning, k.Dir)
	}
	if err != nil {
		return err
	}
	return f(st)
}

// update changes the state and saves it. It is not safe for concurrent use.
func (st *state) update(change func(*state)) error {
	change(st)
	return st.save()
}
