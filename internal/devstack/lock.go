package devstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// lockPolicy says what lockDir does about a directory that does not exist.
type lockPolicy string

const (
	lockCreate   lockPolicy = "create"   // make it
	lockExisting lockPolicy = "existing" // fail with os.ErrNotExist
)

// lockPoll is how often a held lock is tried again; flock(2) itself cannot be
// given up when a context ends.
const lockPoll = 50 * time.Millisecond

// dirLock is an exclusive flock(2). It ends with the process that holds it, so a
// crash leaves nothing to clean up, and two goroutines of one process exclude
// each other like two processes, as each opens the file anew.
type dirLock struct{ file *os.File }

// lockDir takes the lock of a stack's directory and waits for it until ctx ends.
func lockDir(ctx context.Context, dir string, policy lockPolicy, log *notes) (*dirLock, error) {
	if policy == lockCreate {
		// 0711: the postgres user must be able to walk through to its data.
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, fmt.Errorf("devstack: make the stack's directory: %w", err)
		}
	}
	told := false
	for {
		l, err := tryLock(filepath.Join(dir, lockFile))
		if err != nil && policy == lockCreate && errors.Is(err, os.ErrNotExist) {
			// A Down removed the directory between our MkdirAll and the open.
			err = os.MkdirAll(dir, 0o711)
		}
		if l != nil || err != nil {
			return l, err
		}
		if !told {
			told = true
			log.printf("another run works in %s: waiting for it", dir)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("devstack: wait for the lock of %s: %w", dir, ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}

// lockFileAt takes the lock of a file whose directory exists, and waits for it
// until ctx ends.
func lockFileAt(ctx context.Context, path string) (*dirLock, error) {
	for {
		l, err := tryLock(path)
		if l != nil || err != nil {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("devstack: wait for the lock %s: %w", path, ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}

// tryLock returns nil, nil if someone else holds the lock, or if the file was
// removed while we took it (Down removes it last): a lock on a name that no
// longer leads to the file would exclude nobody.
func tryLock(path string) (*dirLock, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("devstack: open the lock: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
		_ = f.Close()
		return nil, nil
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("devstack: lock %s: %w", path, err)
	}
	held, err := f.Stat()
	if err == nil {
		named, nameErr := os.Stat(path)
		if nameErr == nil && os.SameFile(held, named) {
			return &dirLock{file: f}, nil
		}
	}
	_ = f.Close()
	return nil, nil
}

// release lets go of the lock. The file stays: removing it is Down's business.
func (l *dirLock) release() { _ = l.file.Close() }
