package inorder_test

import (
	"slices"
	"testing"

	"github.com/writhq/writ/internal/proof/inorder"
)

// The second is through before the first, and is told of after it; two are under way at once, never three.
func TestDo(t *testing.T) {
	t.Parallel()
	second := make(chan struct{})
	under := make(chan struct{}, 2)
	var items, results []int
	for item, result := range inorder.Do([]int{0, 1, 2, 3}, 2, func(n int) int {
		select {
		case under <- struct{}{}:
		default:
			t.Errorf("a third is under way with %d", n)
		}
		switch n {
		case 0:
			<-second
		case 1:
			close(second)
		}
		<-under
		return n * n
	}) {
		items, results = append(items, item), append(results, result)
	}
	if !slices.Equal(items, []int{0, 1, 2, 3}) || !slices.Equal(results, []int{0, 1, 4, 9}) {
		t.Errorf("items %v, results %v", items, results)
	}
}

// Who listens no longer has nothing more begun.
func TestDo_stop(t *testing.T) {
	t.Parallel()
	begun := make(chan int, 100)
	hold := make(chan struct{})
	all := make([]int, 100)
	all[0] = 1
	for range inorder.Do(all, 2, func(first int) int {
		begun <- first
		if first != 1 {
			<-hold
		}
		return 0
	}) {
		break
	}
	close(hold)
	if n := len(begun); n > 4 {
		t.Errorf("%d were begun; want those under way only", n)
	}
}
