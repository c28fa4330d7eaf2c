package backoff_test

import (
	"context"
	"testing"
	"time"

	"github.com/writhq/writ/internal/backoff"
)

func TestNext(t *testing.T) {
	t.Parallel()
	b := backoff.New(100*time.Millisecond, 5*time.Second)
	for _, step := range []time.Duration{100, 200, 400, 800, 1600, 3200, 5000, 5000} {
		step *= time.Millisecond
		if got := b.Next(); got < step/2 || got > step {
			t.Errorf("got %v, want %v to %v", got, step/2, step)
		}
	}
	b.Settle(time.Second)
	if got := b.Next(); got < b.Max/2 {
		t.Errorf("after a short success: got %v", got)
	}
	b.Settle(time.Minute)
	if got := b.Next(); got > b.Min {
		t.Errorf("after a long success: got %v", got)
	}
}

func TestWait_endsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if backoff.New(time.Hour, time.Hour).Wait(ctx) {
		t.Error("Wait said that it waited an hour")
	}
	if !backoff.New(1, 1).Wait(context.Background()) {
		t.Error("Wait said that its context had ended")
	}
}
