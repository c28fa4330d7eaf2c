package rabbit

import (
	"context"
	"errors"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPublisher_StateFollowsTheConnection(t *testing.T) {
	t.Parallel()
	queue := newAdmin(t).declare("here")
	x := newProxy(t)
	p := publisher(t, Config{URL: brokerURL(t, x.addr())})
	if s := p.State(); !s.Connected || s.Blocked || s.Reason != "" {
		t.Errorf("got %+v", s)
	}
	x.refuse() // nobody publishes: it must notice by itself
	eventually(t, "not connected", func() bool { s := p.State(); return !s.Connected && s.Reason != "" })
	if _, err := p.Publish(deadline(t), []Message{to(queue)}); !errors.Is(err, ErrDisconnected) {
		t.Errorf("got %v", err)
	}
	x.admit()
	worksAgain(t, p, queue)
}

func TestPublisher_AfterClose(t *testing.T) {
	t.Parallel()
	p := publisher(t, Config{})
	for range 2 {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := p.Publish(deadline(t), []Message{to("x")}); !errors.Is(err, ErrClosed) {
		t.Errorf("Publish: got %v", err)
	}
	if _, err := p.Depths(deadline(t), []string{"x"}); !errors.Is(err, ErrClosed) {
		t.Errorf("Depths: got %v", err)
	}
	if err := p.Wait(deadline(t)); !errors.Is(err, ErrClosed) {
		t.Errorf("Wait: got %v", err)
	}
}

func TestPublisher_DepthsLeavesOutWhatIsMissing(t *testing.T) {
	t.Parallel()
	a := newAdmin(t)
	one, empty := a.declare("one"), a.declare("empty")
	a.put(one, "x")
	p := publisher(t, Config{})
	var depths map[string]int
	eventually(t, "depth 1", func() bool {
		var err error
		depths, err = p.Depths(deadline(t), []string{a.name("nowhere"), one, a.name("nowhere2"), empty})
		if err != nil {
			t.Fatal(err)
		}
		return depths[one] == 1
	})
	if d := cmp.Diff(map[string]int{one: 1, empty: 0}, depths); d != "" {
		t.Error(d)
	}
	if !p.State().Connected {
		t.Error("it lost its connection")
	}
}

func BenchmarkPublish(b *testing.B) {
	a := newAdmin(b)
	queue := a.declare("here")
	p := publisher(b, Config{})
	for _, frames := range []int{1, 32, 512} {
		messages := make([]Message, frames)
		for i := range messages {
			m, err := HintMessage(a.Installation, queue, someHints(32))
			if err != nil {
				b.Fatal(err)
			}
			messages[i] = m
		}
		b.Run("frames="+strconv.Itoa(frames), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.Publish(context.Background(), messages); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*frames*32)/b.Elapsed().Seconds(), "hints/s")
		})
	}
}
