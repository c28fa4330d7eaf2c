package storm

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"github.com/writhq/writ/internal/proof"
	"github.com/writhq/writ/internal/rabbit"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

// envDummy makes the test binary a child that says hello and then does as it is told.
const envDummy = "STORM_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(envDummy) {
	case "":
		goleak.VerifyTestMain(m)
	case "patient":
		_, _ = os.Stdout.WriteString("hello\n")
		select {}
	case "hasty":
		_, _ = os.Stdout.WriteString("hello\n")
		os.Exit(3)
	}
}

// echo is a server that sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn); conn.Close() }()
		}
	}()
	return "tcp://" + listener.Addr().String()
}

// wire is a client's connection through a cable.
type wire struct {
	*testing.T
	net.Conn
}

func (w wire) sends(text string, within time.Duration) bool {
	w.Helper()
	if _, err := w.Write([]byte(text)); err != nil {
		return false
	}
	got := make([]byte, len(text))
	_ = w.SetReadDeadline(time.Now().Add(within))
	_, err := io.ReadFull(w.Conn, got)
	return err == nil && string(got) == text
}

func TestCable(t *testing.T) {
	t.Parallel()
	dice := rand.New(rand.NewPCG(1, 1))
	c, through, err := lay("test", echo(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	dial := func() wire {
		conn, err := net.Dial("tcp", strings.TrimPrefix(through, "tcp://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return wire{t, conn}
	}
	w := dial()
	if !w.sends("whole", time.Second) {
		t.Fatal("a whole cable does not carry")
	}
	for _, s := range c.some(dice, 1) {
		s.hang(toClient)
	}
	if w.sends("hung", 100*time.Millisecond) {
		t.Error("an answer came through a hung cable")
	}
	for _, s := range c.some(dice, 1) {
		s.heal()
	}
	_ = w.SetReadDeadline(time.Now().Add(time.Second))
	if _, err := io.ReadFull(w, make([]byte, 4)); err != nil {
		t.Errorf("the answer was lost in the healed cable: %v", err)
	}
	for _, s := range c.some(dice, 1) {
		s.slow(50 * time.Millisecond)
	}
	if began := time.Now(); !w.sends("slow", time.Second) || time.Since(began) < 100*time.Millisecond {
		t.Errorf("both ways took %v; want at least 100ms", time.Since(began))
	}
	lift := c.bar(dice)
	if w.sends("cut", time.Second) || dial().sends("barred", time.Second) {
		t.Error("a barred cable carries")
	}
	lift()
	if !dial().sends("again", time.Second) {
		t.Error("a cable carries no more after the bar was lifted")
	}
}

// TestTaps: hints are heard whatever pieces they come in.
func TestTaps(t *testing.T) {
	t.Parallel()
	var sent []rabbit.Hint
	for n := range 40 {
		sent = append(sent, rabbit.Hint{Op: "run", Epoch: int32(n), Kind: "storm.mail.send", ID: uuid.New()})
	}
	sent[7].Op = "recover"
	frame, err := rabbit.EncodeFrame(sent)
	if err != nil {
		t.Fatal(err)
	}
	stream := append(append([]byte("\x01\x00\x00header\xce"), frame...), "\xceand what comes behind it"...)
	for _, size := range []int{1, 7, 100, len(stream)} {
		var heard taps
		ear := heard.listen()
		for rest := stream; len(rest) > 0; {
			n := min(size, len(rest))
			ear(rest[:n])
			rest = rest[n:]
		}
		var got []rabbit.Hint
		for _, h := range heard.all() {
			got = append(got, rabbit.Hint{Op: h.Op, Epoch: int32(h.Epoch), Kind: "storm.mail.send", ID: h.ID})
		}
		if diff := cmp.Diff(sent, got); diff != "" {
			t.Errorf("in pieces of %d (-sent +heard):\n%s", size, diff)
		}
	}
}

func dummy(t *testing.T, sort string) (*process, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return start(worker, self, t.TempDir(), []string{envDummy + "=" + sort})
}

// TestSlot: a killed child is started again; one that ends by itself is a fault.
func TestSlot(t *testing.T) {
	t.Parallel()
	faults := make(chan error, 10)
	s := &slot{role: worker, begin: func() (*process, error) { return dummy(t, "patient") }, fault: func(err error) { faults <- err }}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.run(ctx) }()
	running := func(not *process) (p *process) {
		testkit.Until(t, 10*time.Second, "a child runs", func() (bool, string) {
			p = s.get()
			return p != nil && p != not, "none, or the old one"
		})
		return p
	}
	first := running(nil)
	if err := first.signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := running(first)
	cancel()
	<-done
	if len(faults) > 0 {
		t.Errorf("a killed child is no fault: %v", <-faults)
	}
	if err := second.stop(10 * time.Second); err == nil {
		t.Error("one that does not end in good order passed for one that does")
	}

	s = &slot{role: worker, begin: func() (*process, error) { return dummy(t, "hasty") }, fault: func(err error) { faults <- err }}
	s.run(context.Background())
	if err := <-faults; !strings.Contains(err.Error(), "by itself") {
		t.Errorf("of a child that ended by itself it says %v", err)
	}
}

// TestKinds: every class that there is takes part, and all queues are known.
func TestKinds(t *testing.T) {
	t.Parallel()
	mux := workers.NewMux()
	(&hand{}).register(mux, kinds)
	pool, err := pgxpool.New(context.Background(), "postgres://nobody@127.0.0.1:1/none") // it connects to nothing yet
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := workers.New(pool, "amqp://127.0.0.1:1", mux, workers.Config{}); err != nil {
		t.Error(err)
	}
	classes := map[string]int{}
	for _, k := range kinds {
		switch {
		case k.Idempotent:
			classes[workers.Idempotent]++
		case k.probed:
			classes[workers.Probed]++
		default:
			classes[workers.Manual]++
		}
	}
	if len(classes) != 3 || len(queues()) != 4 {
		t.Errorf("classes %v, queues %v", classes, queues())
	}
}

// TestOutcome: whatever went wrong makes an error of it.
func TestOutcome(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		out  Outcome
		want bool
	}{
		{"all well", Outcome{}, false},
		{"a violation", Outcome{Report: proof.Report{Violations: []proof.Violation{{Invariant: "I6"}}}}, true},
		{"a process that would not end", Outcome{Faulty: []error{errors.New("worker 7 did not end")}}, true},
	} {
		if got := tt.out.Err() != nil; got != tt.want {
			t.Errorf("%s: error %v", tt.name, tt.out.Err())
		}
	}
}
