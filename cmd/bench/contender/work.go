package contender

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// Message is a line that a worker process writes to its standard output: ready once it is set up, handled whenever more
// jobs were begun, and at last, when its standard input has ended and it has drained, the latencies of timed jobs.
type Message struct {
	Ready     bool    `json:"ready,omitempty"`
	Handled   int64   `json:"handled,omitempty"`
	Last      bool    `json:"last,omitempty"`
	Latencies []int64 `json:"latencies_us,omitempty"`
}

// report is how often a worker process says how far it is.
const reportEvery = 5 * time.Millisecond

// Recorder is what every handler calls first.
type Recorder struct {
	handled   atomic.Int64
	mu        sync.Mutex
	latencies []int64
}

// Handle is the job: it notes that it was begun, and sleeps if it is told to.
func (r *Recorder) Handle(ctx context.Context, a Args) error {
	if a.At > 0 {
		latency := time.Now().UnixMicro() - a.At
		r.mu.Lock()
		r.latencies = append(r.latencies, latency)
		r.mu.Unlock()
	}
	r.handled.Add(1)
	if a.Wait <= 0 {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Duration(a.Wait) * time.Millisecond):
		return nil
	}
}

// Runner is set up and runs until its context ends.
type Runner func(ctx context.Context) error

// Work plays a worker process: it sets up, says that it is ready, waits for a line, runs, and ends when stdin does.
func Work(ctx context.Context, stdin io.Reader, stdout io.Writer, setup func(ctx context.Context, r *Recorder) (Runner, func(), error)) error {
	recorder := &Recorder{}
	run, closing, err := setup(ctx, recorder)
	if err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	defer closing()
	out := json.NewEncoder(stdout)
	if err := out.Encode(Message{Ready: true}); err != nil {
		return fmt.Errorf("say ready: %w", err)
	}
	in := bufio.NewReader(stdin)
	if _, err := in.ReadString('\n'); err != nil {
		return nil // told to end before it began
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, in) // ends when our starter closes it, or dies
		stop()
	}()
	reported := make(chan struct{})
	go func() {
		defer close(reported)
		recorder.report(ctx, out)
	}()
	err = run(ctx)
	stop()
	<-reported
	recorder.mu.Lock()
	defer recorder.mu.Unlock()
	if last := out.Encode(Message{Last: true, Handled: recorder.handled.Load(), Latencies: recorder.latencies}); err == nil {
		err = last
	}
	return err
}

// report says how many jobs were begun, whenever there are more.
func (r *Recorder) report(ctx context.Context, out *json.Encoder) {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for said := int64(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if n := r.handled.Load(); n != said {
			said = n
			if out.Encode(Message{Handled: n}) != nil {
				return
			}
		}
	}
}
