// Package inorder does slow things side by side and tells of them one after the other.
package inorder

import "iter"

// Do does all items, so many at a time, and yields each with its result in the order of the items, as soon as those before it
// are yielded. It blocks while it waits for a result. What was begun goes on if the caller stops listening, and nothing more
// is begun.
func Do[T, R any](items []T, atOnce int, do func(T) R) iter.Seq2[T, R] {
	return func(yield func(T, R) bool) {
		results := make([]chan R, len(items))
		for i := range items {
			results[i] = make(chan R, 1)
		}
		slots, enough := make(chan struct{}, atOnce), make(chan struct{})
		defer close(enough)
		go func() {
			for i, item := range items {
				select {
				case slots <- struct{}{}:
				case <-enough:
					return
				}
				go func() {
					defer func() { <-slots }()
					results[i] <- do(item)
				}()
			}
		}()
		for i, result := range results {
			if !yield(items[i], <-result) {
				return
			}
		}
	}
}
