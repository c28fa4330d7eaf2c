package devstack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// Ports are taken below the range the kernel gives to outgoing connections
// (32768 and up on Linux), in blocks, and stay reserved as long as the stack's
// state file exists. "Bind to port 0 and close again" would not do: the port is
// free while a server starts, and again whenever a drill has stopped it, and
// another stack or any outgoing connection could take it then.
const (
	portBlock  = 8
	portLow    = 20000
	portBlocks = 1500
)

// reservePorts finds a block of free ports for the stack in dir, whose state
// file must exist already: that file is what keeps the reservation.
func reservePorts(ctx context.Context, dir string) (ports, error) {
	shared, err := sharedDir()
	if err != nil {
		return ports{}, err
	}
	lock, err := lockFileAt(ctx, filepath.Join(shared, "ports.lock"))
	if err != nil {
		return ports{}, err
	}
	defer lock.release()

	registry := filepath.Join(shared, "ports.json")
	taken := map[string]int{} // stack directory → first port
	if data, err := os.ReadFile(registry); err == nil {
		// A damaged registry only costs the reservations of stacks that are stopped
		// right now; the ports of running ones are refused by the bind below.
		_ = json.Unmarshal(data, &taken)
	}
	inUse := map[int]bool{}
	for other, base := range taken {
		if _, err := os.Stat(statePath(other)); err != nil || other == dir {
			delete(taken, other)
			continue
		}
		inUse[base] = true
	}
	for range 200 {
		base := portLow + portBlock*rand.IntN(portBlocks)
		if inUse[base] || !blockFree(base) {
			continue
		}
		taken[dir] = base
		data, err := json.Marshal(taken)
		if err == nil {
			err = os.WriteFile(registry, data, 0o600)
		}
		if err != nil {
			return ports{}, fmt.Errorf("devstack: record the ports: %w", err)
		}
		return ports{Postgres: base, AMQP: base + 1, Dist: base + 2, Epmd: base + 3, CtlMin: base + 4, CtlMax: base + 7}, nil
	}
	return ports{}, fmt.Errorf("devstack: found no %d free ports in a row between %d and %d on 127.0.0.1", portBlock, portLow, portLow+portBlock*portBlocks)
}

// blockFree reports whether every port of the block can be bound now.
func blockFree(base int) bool {
	for p := base; p < base+portBlock; p++ {
		l, err := net.Listen("tcp4", loopback(p))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// sharedDir is where stacks of one user agree about ports and package
// installation. It is refused if another user made it: in /tmp anyone could.
func sharedDir() (string, error) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("writ-dev-%d", os.Getuid()))
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("devstack: make the shared directory: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", fmt.Errorf("devstack: look at the shared directory: %w", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(owner.Uid) != os.Getuid() {
		return "", fmt.Errorf("devstack: %s is not a directory of this user; remove it or set TMPDIR", dir)
	}
	return dir, nil
}
