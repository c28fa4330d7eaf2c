package workers

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// TestExecutors_noneWaitsBehindABlockedHandler: each of many handlers waits for all the others to have begun.
func TestExecutors_noneWaitsBehindABlockedHandler(t *testing.T) {
	t.Parallel()
	const n = 500
	var met, done sync.WaitGroup
	met.Add(n)
	done.Add(n)
	e := newExecutors(func(*attempt) {
		defer done.Done()
		met.Done()
		met.Wait()
	})
	defer e.close()
	for range n {
		e.run(&attempt{})
	}
	done.Wait()
}

// TestExecutors_surviveGoexit: a handler that ends its goroutine takes no executor from the others.
func TestExecutors_surviveGoexit(t *testing.T) {
	t.Parallel()
	const n = 200
	var begun atomic.Int64
	var done sync.WaitGroup
	done.Add(n)
	e := newExecutors(func(*attempt) {
		defer done.Done()
		if begun.Add(1)%2 == 0 {
			runtime.Goexit()
		}
	})
	defer e.close()
	for range n {
		e.run(&attempt{})
	}
	done.Wait()
}

// BenchmarkExecutors: handing a short handler over, a batch of claims at a time.
func BenchmarkExecutors(b *testing.B) {
	const batch = 1000
	var done sync.WaitGroup
	e := newExecutors(func(*attempt) { done.Done() })
	defer e.close()
	a := &attempt{}
	for b.Loop() {
		done.Add(batch)
		for range batch {
			e.run(a)
		}
		done.Wait()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/handler")
}
