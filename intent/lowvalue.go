package intent

import "time"

// FireAndForget returns a kind for work of low value, beside the critical one: a cache to warm, a counter to bring up to
// date, a notice that is worth nothing tomorrow. It is idempotent, so nothing of it is ever ambiguous or waits for a
// person; it is tried three times within a minute or so; and its rows are gone an hour after they are done, a day after
// they failed. Its queue is its own, so it delays no other kind. Change fields of it where need be.
//
// A second run must do no harm. Create it with [Kind.CreateAlone] where it belongs to no row of the application.
func FireAndForget[T any](name string) Kind[T] {
	return Kind[T]{
		Name: name, Idempotent: true, Timeout: 30 * time.Second, MaxAttempts: 3,
		Backoff:   Backoff{Min: 5 * time.Second, Max: time.Minute},
		Retention: Retention{Sent: time.Hour, Error: day, Cancelled: time.Hour},
	}
}
