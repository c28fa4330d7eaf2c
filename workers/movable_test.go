package workers

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestMovable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		parent, stop := context.WithCancelCause(context.WithValue(context.Background(), key{}, "kept"))
		defer stop(nil)
		began := time.Now()
		m := newMovable(parent, began.Add(time.Second))
		defer m.cancel()
		child, cancel := context.WithTimeout(m, time.Hour)
		defer cancel()
		time.Sleep(900 * time.Millisecond)
		if !m.move(began.Add(3*time.Second)) || !m.move(began.Add(2*time.Second)) {
			t.Fatal("it could not be moved")
		}
		if at, ok := m.Deadline(); !ok || !at.Equal(began.Add(3*time.Second)) {
			t.Errorf("its deadline is at %v; want 3s, never back", at.Sub(began))
		}
		<-child.Done()
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("it ended after %v", took)
		}
		if child.Err() != context.DeadlineExceeded || m.Err() != context.DeadlineExceeded || context.Cause(m) != context.DeadlineExceeded {
			t.Errorf("it ended with %v, its child with %v", m.Err(), child.Err())
		}
		if m.move(began.Add(time.Hour)) {
			t.Error("it was moved when it had ended")
		}

		m = newMovable(parent, time.Now().Add(time.Hour))
		defer m.cancel()
		gone := errors.New("gone")
		stop(gone)
		<-m.Done()
		if m.Err() != context.Canceled || context.Cause(m) != gone || m.Value(key{}) != "kept" {
			t.Errorf("with its parent it ended with %v, %v", m.Err(), context.Cause(m))
		}
	})
}
