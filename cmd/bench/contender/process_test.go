package contender

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A worker process as the runner sees it, played by a shell.
func TestProcess(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sh", "-c", `echo '{"ready":true}'; read go; echo '{"handled":3}'; cat >/dev/null; echo '{"last":true,"handled":4,"latencies_us":[5,6]}'`)
	p, err := Start(cmd, filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Handled() != 0 {
		t.Errorf("%d handled before the word; want none", p.Handled())
	}
	if err := p.Go(); err != nil {
		t.Fatal(err)
	}
	err = await(context.Background(), 10*time.Second, "three are handled", func() (bool, error) { return p.Handled() == 3, p.Alive() })
	if err != nil {
		t.Fatal(err)
	}
	latencies, err := p.Stop()
	if err != nil || !slices.Equal(latencies, []int64{5, 6}) || p.Handled() != 4 {
		t.Errorf("Stop = %v, %v with %d handled; want [5 6] and 4", latencies, err, p.Handled())
	}
	if p.Alive() == nil {
		t.Error("it is alive after Stop")
	}
}

func TestProcess_thatFails(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "log")
	if p, err := Start(exec.Command("sh", "-c", "exit 1"), log); err == nil {
		t.Errorf("Start = %v of a process that ends at once; want an error", p)
	}
	p, err := Start(exec.Command("sh", "-c", `echo '{"ready":true}'; exit 1`), log)
	if err != nil {
		t.Fatal(err)
	}
	if latencies, err := p.Stop(); err == nil {
		t.Errorf("Stop = %v of a process without a last word; want an error", latencies)
	}
}

// The other side of the same protocol.
func TestWork(t *testing.T) {
	t.Parallel()
	stdin, tell := io.Pipe()
	hear, stdout := io.Pipe()
	ended := make(chan error, 1)
	started := make(chan struct{})
	go func() {
		ended <- Work(context.Background(), stdin, stdout, func(_ context.Context, r *Recorder) (Runner, func(), error) {
			return func(ctx context.Context) error {
				close(started)
				err := errors.Join(r.Handle(ctx, Args{N: 1}), r.Handle(ctx, Args{N: 2, At: time.Now().Add(-time.Second).UnixMicro()}))
				<-ctx.Done()
				return err
			}, func() {}, nil
		})
		stdout.Close()
	}()
	lines := json.NewDecoder(bufio.NewReader(hear))
	next := func() (m Message) {
		if err := lines.Decode(&m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	if m := next(); !m.Ready {
		t.Fatalf("first message %+v; want ready", m)
	}
	select {
	case <-started:
		t.Error("it ran before it was told to")
	default:
	}
	if _, err := io.WriteString(tell, "go\n"); err != nil {
		t.Fatal(err)
	}
	if m := next(); m.Handled != 2 {
		t.Errorf("message %+v; want 2 handled", m)
	}
	tell.Close()
	if m := next(); !m.Last || m.Handled != 2 || len(m.Latencies) != 1 || m.Latencies[0] < 1e6 || m.Latencies[0] > 60e6 {
		t.Errorf("last message %+v; want one latency of a second", m)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestRecorder_Handle(t *testing.T) {
	t.Parallel()
	r := &Recorder{}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Handle(ctx, Args{Wait: 60_000}); !errors.Is(err, context.Canceled) {
		t.Errorf("a job of a minute, cancelled: %v; want context.Canceled", err)
	}
	if r.handled.Load() != 1 {
		t.Errorf("%d handled; want 1", r.handled.Load())
	}
}
