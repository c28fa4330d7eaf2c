package devstack

import (
	"errors"
	"syscall"
	"unsafe"
)

// awaitExit blocks until our child has exited and leaves it a zombie, so that its
// pid, which is also its group's number, cannot be given to another process yet.
func awaitExit(pid int) {
	const (
		byPID    = 1         // P_PID
		siginfoT = 128       // bytes
		exited   = 0x4       // WEXITED
		keep     = 0x1000000 // WNOWAIT
	)
	var info [siginfoT / 8]uint64
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, byPID, uintptr(pid), uintptr(unsafe.Pointer(&info)), exited|keep, 0, 0)
		if !errors.Is(errno, syscall.EINTR) {
			return
		}
	}
}
