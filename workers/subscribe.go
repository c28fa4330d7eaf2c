package workers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/writhq/writ/intent"
)

// Subscription is what this application does about an event of any application: it returns the intents to create in its
// own database, and does nothing else. Once for each event, however often the broker repeats it: the intents and the note
// that the event was taken are written in one transaction.
type Subscription[T any] struct {
	// Name tells the subscriptions of an application to one event apart: a-z, 0-9, _ and -, beginning with a letter, at most
	// 50 bytes. The broker's queue bears it, so that another name is another subscription. Required.
	Name string

	// Do returns the intents to create, or none. It may be called again for the same event (a repeat, a process that died),
	// also concurrently with itself; what it returns counts once. It gets no transaction and must change nothing: a task
	// is there for that. What the intents have for TID, Parent and Trace they inherit from the event. After an error, a panic or
	// an intent that cannot be created the event is kept in the database and tried again. Required.
	Do func(ctx context.Context, event Event[T]) ([]intent.New, error)

	// Timeout of one call. Default 30 s; at least 1 ms.
	Timeout time.Duration

	// MaxAttempts after which an event is dead: kept, counted, and shown until a person decides. Default 10.
	MaxAttempts int

	// Backoff between attempts. Default 1 s doubling to 1 h, full jitter.
	Backoff intent.Backoff

	// Places is how many events of this subscription are worked on at once in this process. Default 8; at most 1,000.
	Places int
}

// Subscribe registers a subscription to an event. Its queue exists, and keeps what comes, from when a worker with it has
// first been connected; then no worker need be there. A fault of the declaration is reported by [New], all at once.
func Subscribe[T any](m *Mux, event intent.Event[T], s Subscription[T]) {
	r := &subscription{
		name: s.Name, event: event.Name, timeout: cmp.Or(s.Timeout, 30*time.Second), attempts: cmp.Or(s.MaxAttempts, intent.DefaultMaxAttempts),
		places: cmp.Or(s.Places, 8), backoff: intent.Backoff{
			Min: cmp.Or(s.Backoff.Min, intent.DefaultBackoffMin), Max: cmp.Or(s.Backoff.Max, intent.DefaultBackoffMax), Factor: cmp.Or(s.Backoff.Factor, 2),
		},
	}
	fault := func(ok bool, format string, args ...any) {
		if !ok {
			m.faults = append(m.faults, fmt.Errorf("workers: subscription %s to %s: %w", s.Name, event.Name, fmt.Errorf(format, args...)))
		}
	}
	if err := intent.CheckEvent(event.Name); err != nil {
		fault(false, "%w", err)
	}
	fault(subscriptionName.MatchString(s.Name) && len(s.Name) <= 50, "Name must begin with a-z and hold only a-z, 0-9, _ and -, at most 50 bytes")
	fault(s.Do != nil, "Do is missing")
	fault(r.timeout >= time.Millisecond, "Timeout is %v; it must be at least 1ms", s.Timeout)
	fault(r.attempts > 0, "MaxAttempts is %d; it must be at least 1", s.MaxAttempts)
	fault(r.places > 0 && r.places <= 1000, "Places is %d; it must be 1 to 1,000", s.Places)
	fault(r.backoff.Min > 0 && r.backoff.Max >= r.backoff.Min && r.backoff.Factor >= 1 && r.backoff.Factor <= 1000,
		"Backoff is %v to %v by %v; it must be 0 < Min <= Max, 1 <= Factor <= 1000", r.backoff.Min, r.backoff.Max, r.backoff.Factor)
	for _, other := range m.subscriptions {
		fault(other.name != r.name || other.event != r.event, "is registered twice")
	}
	r.do = func(ctx context.Context, e Event[json.RawMessage]) ([]intent.New, error) {
		typed := Event[T]{
			ID: e.ID, Source: e.Source, Type: e.Type, Subject: e.Subject, Time: e.Time, TID: e.TID, Parent: e.Parent, Trace: e.Trace,
		}
		if err := json.Unmarshal(e.Data, &typed.Data); err != nil {
			return nil, fmt.Errorf("data does not fit %T: %w", typed.Data, err)
		}
		return s.Do(ctx, typed)
	}
	m.subscriptions = append(m.subscriptions, r)
}

var subscriptionName = regexp.MustCompile(`^[a-z][a-z0-9_-]*$`)

// subscription is one without its type.
type subscription struct {
	name, event string
	timeout     time.Duration
	attempts    int
	backoff     intent.Backoff
	places      int
	do          func(ctx context.Context, e Event[json.RawMessage]) ([]intent.New, error)
}

// full is its name among those of all applications.
func (s *subscription) full(application string) string {
	return application + "/" + s.event + "/" + s.name
}

// queue is its queue, before the broker's name is made of it.
func (s *subscription) queue(application string) string {
	return "event:" + application + ":" + s.event + ":" + s.name
}

// belong settles whose code this is: what the config says, or else what the kinds say. All kinds must be of that one.
func (m *Mux) belong(application string) (string, error) {
	var faults []error
	if application != "" && (!subscriptionName.MatchString(application) || len(application) > 40) {
		faults = append(faults, fmt.Errorf("workers: Config.Application is %q; it must begin with a-z and hold only a-z, 0-9, _ and -, at most 40 bytes", application))
	}
	for _, name := range m.names() {
		owner := m.kinds[name].application()
		if application == "" {
			application = owner
		}
		if owner != application {
			faults = append(faults, fmt.Errorf("workers: kind %s is a task of application %s, and this mux belongs to %s: an application carries out only its own tasks; give %s a mux, and a process, of its own", name, owner, application, owner))
		}
	}
	if application == "" && len(m.subscriptions) > 0 {
		faults = append(faults, errors.New("workers: Config.Application is missing; subscriptions without a kind beside them do not tell whose they are"))
	}
	return application, errors.Join(faults...)
}
