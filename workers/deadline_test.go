package workers

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestDeadline holds a deadline to what the standard library's context does, whether or not it was waited for before.
func TestDeadline(t *testing.T) {
	t.Parallel()
	type key struct{}
	why := errors.New("the parent's reason")
	for name, end := range map[string]func(cancelParent context.CancelCauseFunc, cancel func()){
		"nothing":                      func(context.CancelCauseFunc, func()) {},
		"time":                         func(context.CancelCauseFunc, func()) { time.Sleep(time.Minute) },
		"its parent":                   func(parent context.CancelCauseFunc, _ func()) { parent(why) },
		"its end":                      func(_ context.CancelCauseFunc, cancel func()) { cancel() },
		"its end, after time":          func(_ context.CancelCauseFunc, cancel func()) { time.Sleep(time.Minute); cancel() },
		"its parent, after its end":    func(parent context.CancelCauseFunc, cancel func()) { cancel(); parent(why) },
		"its parent, and then its end": func(parent context.CancelCauseFunc, cancel func()) { parent(why); cancel() },
	} {
		for _, asked := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					parent, cancelParent := context.WithCancelCause(context.WithValue(context.Background(), key{}, "value"))
					defer cancelParent(nil)
					at := time.Now().Add(30 * time.Second)
					std, cancelStd := context.WithDeadline(parent, at)
					defer cancelStd()
					d := &deadline{parent: parent, at: at}
					defer d.end()
					var derived [2]context.Context
					if asked {
						for i, c := range []context.Context{std, d} {
							child, cancel := context.WithCancel(c)
							defer cancel()
							derived[i] = child
						}
					}
					end(cancelParent, func() { cancelStd(); d.end() })
					synctest.Wait()
					same := func(std, d context.Context) {
						t.Helper()
						if std.Err() != d.Err() || context.Cause(std) != context.Cause(d) || d.Value(key{}) != "value" {
							t.Errorf("waited for: %t: %v, cause %v; the standard library's: %v, cause %v", asked, d.Err(), context.Cause(d), std.Err(), context.Cause(std))
						}
						select {
						case <-d.Done():
							if std.Err() == nil {
								t.Error("it is done")
							}
						default:
							if std.Err() != nil {
								t.Error("it is not done")
							}
						}
					}
					same(std, d)
					if asked {
						same(derived[0], derived[1])
					}
					late, cancel := context.WithCancel(d)
					defer cancel()
					if late.Err() != std.Err() {
						t.Errorf("derived now: %v; want %v", late.Err(), std.Err())
					}
					if got, ok := d.Deadline(); !ok || !got.Equal(at) {
						t.Errorf("deadline %v, %t", got, ok)
					}
				})
			})
		}
	}
}
