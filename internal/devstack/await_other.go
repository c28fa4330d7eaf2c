//go:build !linux

package devstack

import (
	"syscall"
	"time"
)

// awaitExit blocks until our child's group has no process left that can be
// signalled. Without Linux's /proc and waitid this is the portable approximation.
func awaitExit(pid int) {
	for syscall.Kill(pid, 0) == nil {
		time.Sleep(processPoll)
	}
}
