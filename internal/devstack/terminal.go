package devstack

import (
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
	"unsafe"
)

// terminal is the terminal of which this program is the foreground job, lent to
// the command that Exec runs.
type terminal struct{ fd int }

// ownTerminal returns nil if in is no terminal, or not ours to lend, as when this
// program itself runs in the background.
func ownTerminal(in io.Reader) *terminal {
	f, ok := in.(*os.File)
	if !ok || f == nil {
		return nil
	}
	t := &terminal{fd: int(f.Fd())}
	if group, ok := t.foreground(); !ok || group != syscall.Getpgrp() {
		return nil
	}
	return t
}

// foreground returns the terminal's foreground process group; ok is false if fd
// is not our controlling terminal.
func (t *terminal) foreground() (group int, ok bool) {
	var g int32
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(t.fd), syscall.TIOCGPGRP, uintptr(unsafe.Pointer(&g)))
	return int(g), errno == 0
}

// give makes the group the terminal's foreground group. Done from the background
// this would stop us with SIGTTOU, which is therefore ignored meanwhile.
func (t *terminal) give(group int) {
	signal.Ignore(syscall.SIGTTOU)
	defer signal.Reset(syscall.SIGTTOU)
	g := int32(group)
	_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, uintptr(t.fd), syscall.TIOCSPGRP, uintptr(unsafe.Pointer(&g)))
}

func (t *terminal) takeBack() { t.give(syscall.Getpgrp()) }

// suspend follows the command into a Ctrl-Z: we take the terminal back and stop
// too, as the shell expects of a job, and when the shell continues us we hand
// the terminal over again and continue the command.
func (t *terminal) suspend(group int) {
	t.takeBack()
	_ = syscall.Kill(0, syscall.SIGSTOP) // our own group, us included
	// The kernel may stop us by way of another thread; what follows must not run
	// before that has happened.
	time.Sleep(suspendPoll)
	if fg, ok := t.foreground(); ok && fg == syscall.Getpgrp() {
		t.give(group)
	}
	_ = syscall.Kill(-group, syscall.SIGCONT)
}
