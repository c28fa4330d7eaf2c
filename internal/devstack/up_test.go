package devstack

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestUpRunsSideBySideOnLoopback(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	options := []Options{private(t), private(t)}
	stacks := make([]*Stack, len(options))
	errs := make([]error, len(options))
	for i := range options {
		wg.Go(func() { stacks[i], errs[i] = Up(testContext(t), options[i]) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatalf("Up: %v", err)
	}
	for i, k := range stacks {
		if !k.Started || k.Source != SourceProcesses {
			t.Errorf("stack %d: Started %v, Source %q; want true, processes", i, k.Started, k.Source)
		}
		requireAnswers(t, k)
		requireLoopback(t, recorded(t, k.Dir))
		info, err := os.Stat(statePath(k.Dir))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("state file: %v, mode %v; want 0600", err, info.Mode())
		}
	}
	if stacks[0].DatabaseURL == stacks[1].DatabaseURL || stacks[0].AMQPURL == stacks[1].AMQPURL {
		t.Error("two stacks share a URL")
	}
	for _, k := range stacks {
		st := recorded(t, k.Dir)
		if err := k.Down(context.Background()); err != nil {
			t.Errorf("Down: %v", err)
		}
		requireGone(t, st)
		if err := k.Down(context.Background()); err != nil {
			t.Errorf("second Down: %v", err)
		}
	}
}

func TestUpReusesAndOpenFindsWhenRunning(t *testing.T) {
	t.Parallel()
	k, o := setup(t)
	again, err := Up(testContext(t), o)
	if err != nil || again.Started || again.DatabaseURL != k.DatabaseURL || again.AMQPURL != k.AMQPURL {
		t.Fatalf("second Up = %+v, %v; want the same stack, not started", again, err)
	}
	found, err := Open(testContext(t), o)
	if err != nil || found.DatabaseURL != k.DatabaseURL {
		t.Fatalf("Open = %+v, %v; want the same stack", found, err)
	}
	env := Options{Dir: o.Dir, Getenv: func(name string) string {
		return map[string]string{databaseEnv: k.DatabaseURL, amqpEnv: k.AMQPURL}[name]
	}}
	given, err := Up(testContext(t), env)
	if err != nil || given.Source != SourceEnvironment || given.Started {
		t.Fatalf("Up with both variables = %+v, %v; want the environment's stack", given, err)
	}
	if err := given.Down(testContext(t)); err != nil {
		t.Fatalf("Down: %v", err)
	}
	requireAnswers(t, k) // taking down the environment's stack does nothing
	if err := given.StopBroker(testContext(t)); !errors.Is(err, ErrNotPrivate) {
		t.Errorf("StopBroker on the environment's stack: %v, want ErrNotPrivate", err)
	}
	r, err := Inspect(testContext(t), o)
	if err != nil || !r.Running || r.Services[0].PID == 0 {
		t.Errorf("Inspect = %+v, %v; want it running with pids", r, err)
	}
	r, err = Inspect(testContext(t), env)
	if err != nil || !r.Running || strings.Contains(r.DatabaseURL+r.AMQPURL, recorded(t, o.Dir).Password) {
		t.Errorf("Inspect of the environment = %+v, %v; want it running, passwords hidden", r, err)
	}
}

func TestUpReplacesWhenServersWereKilled(t *testing.T) {
	t.Parallel()
	k, o := setup(t)
	old := recorded(t, k.Dir)
	// A crash: a server is gone, another one was started but never recorded, and a
	// recorded pid now belongs to somebody else (us).
	if err := old.Processes.Broker.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	unrecorded := old.Processes.Postgres
	if err := old.update(func(st *state) { st.Processes.Postgres = process{PID: os.Getpid(), Start: 1} }); err != nil {
		t.Fatal(err)
	}
	fresh, err := Up(testContext(t), o)
	if err != nil {
		t.Fatalf("Up: %v", err)
	}
	if !fresh.Started || fresh.DatabaseURL == k.DatabaseURL {
		t.Error("the crashed stack was not replaced")
	}
	if unrecorded.alive() {
		t.Error("the unrecorded Postgres still runs")
	}
	requireAnswers(t, fresh)
}

func TestUpStartsOnceWhenCalledTwiceAtOnce(t *testing.T) {
	t.Parallel()
	o := private(t)
	stacks := make([]*Stack, 2)
	var wg sync.WaitGroup
	for i := range stacks {
		wg.Go(func() {
			var err error
			if stacks[i], err = Up(testContext(t), o); err != nil {
				t.Errorf("Up: %v", err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	if stacks[0].Started == stacks[1].Started || stacks[0].DatabaseURL != stacks[1].DatabaseURL {
		t.Errorf("got %+v and %+v; want one stack, started by one of the two", stacks[0], stacks[1])
	}
	if found, err := Down(testContext(t), o); err != nil || !found {
		t.Errorf("Down = %v, %v; want true, nil", found, err)
	}
}

func TestUpLeavesNothingWhenCancelled(t *testing.T) {
	t.Parallel()
	o := private(t)
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := Up(ctx, o)
		done <- err
	}()
	var st *state
	eventually(t, "both servers to be started", func() bool {
		var err error
		st, err = loadState(o.Dir)
		return err == nil && st.Processes.Broker.alive() && st.Processes.Postgres.alive()
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Up: %v, want context.Canceled", err)
	}
	requireGone(t, st)
}

func TestUpRefusesWhenOneVariableIsMissing(t *testing.T) {
	t.Parallel()
	for _, set := range []string{databaseEnv, amqpEnv} {
		o := Options{Dir: t.TempDir(), Getenv: func(name string) string {
			if name == set {
				return "postgres://u:secret@127.0.0.1:1/x"
			}
			return ""
		}}
		for name, call := range map[string]func() error{
			"Up":      func() error { _, err := Up(testContext(t), o); return err },
			"Open":    func() error { _, err := Open(testContext(t), o); return err },
			"Inspect": func() error { _, err := Inspect(testContext(t), o); return err },
		} {
			err := call()
			if err == nil || !strings.Contains(err.Error(), databaseEnv) || !strings.Contains(err.Error(), amqpEnv) {
				t.Errorf("%s with only %s: %v; want an error naming both variables", name, set, err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("%s shows the password: %v", name, err)
			}
		}
	}
}

func TestUpRefusesWhenGivenServersDoNotAnswer(t *testing.T) {
	t.Parallel()
	for _, mq := range []string{"amqp://u:secret@127.0.0.1:1/", "amqp://u:secret@%%/", "http://u:secret@x"} {
		_, err := Up(testContext(t), Options{Dir: t.TempDir(), Getenv: func(name string) string {
			return map[string]string{databaseEnv: "postgres://u:secret@127.0.0.1:1/x", amqpEnv: mq}[name]
		}})
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("Up: %v; want an error without the password", err)
		}
	}
}

func TestUpRefusesWhenDirectoryHoldsOtherFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "thesis.txt")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := Options{Dir: dir, Mode: ModePrivate}
	if _, err := Up(testContext(t), o); err == nil {
		t.Error("Up took a directory with foreign files")
	}
	if found, err := Down(testContext(t), o); found || err != nil {
		t.Errorf("Down = %v, %v; want false, nil", found, err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("the foreign file is gone: %v", err)
	}
}

func TestOpenFailsWhenNothingRuns(t *testing.T) {
	t.Parallel()
	if _, err := Open(testContext(t), private(t)); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Open: %v, want ErrNotRunning", err)
	}
}

// requireLoopback checks every listening TCP socket of every process of the
// stack, by way of the kernel's tables.
func requireLoopback(t *testing.T, st *state) {
	t.Helper()
	inodes := map[string]int{} // socket → pid
	for _, p := range strays(st) {
		fds, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(p.PID), "fd", "*"))
		for _, fd := range fds {
			if link, err := os.Readlink(fd); err == nil && strings.HasPrefix(link, "socket:[") {
				inodes[strings.Trim(link, "socket:[]")] = p.PID
			}
		}
	}
	owners := map[int]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(table)
		if err != nil {
			continue // a kernel without IPv6
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			const local, state, inode = 1, 3, 9
			col := strings.Fields(lines.Text())
			if len(col) <= inode || col[state] != "0A" || inodes[col[inode]] == 0 {
				continue
			}
			owners[inodes[col[inode]]] = true
			if ip := kernelIP(t, col[local]); !ip.IsLoopback() {
				t.Errorf("process %d listens on %v", inodes[col[inode]], ip)
			}
		}
		_ = f.Close()
	}
	for _, p := range []process{st.Processes.Postgres, st.Processes.Broker, st.Processes.Epmd} {
		if !owners[p.PID] {
			t.Errorf("found no listening socket of process %d; the check saw nothing", p.PID)
		}
	}
}

// kernelIP reads an address like 0100007F:1538: words in the machine's byte
// order (here little-endian).
func kernelIP(t *testing.T, s string) net.IP {
	t.Helper()
	host, _, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	if err != nil {
		t.Fatalf("address %q: %v", s, err)
	}
	for word := range slices.Chunk(raw, 4) {
		slices.Reverse(word)
	}
	return net.IP(raw)
}
