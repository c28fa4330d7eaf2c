package intenttest

import (
	"encoding/json"
	"time"

	"github.com/writhq/writ/intent"
)

// EventOpts are the attributes of an event that a test hands over. Zero fields mean the defaults.
type EventOpts struct {
	ID      string // default: a new one; the same once more, of the same Source, is the same event
	Source  string // who published it; default "elsewhere"
	Subject string // default: none
	Time    time.Time
	TID     intent.ID // default: that of the event's ID
	Parent  intent.ID
	Trace   string
}

// Delivered is what became of an event at one subscription.
type Delivered struct {
	Subscription string      // application/event/name
	Created      []intent.ID // the intents that it returned; none if they were there already, or none followed
	Repeated     bool        // it was taken before, so that nothing came of it
	Err          error       // it failed, and is kept as unsettled, as intent.ListUnsettled shows
}

// Deliver hands an event to all subscriptions of the kit's mux to it, as if the broker had delivered it, and returns what became
// of it at each, in the order of their registration. The code is that of a worker: data goes through JSON, intents and inbox are
// written in one transaction, once per event. What is created is carried out by [Kit.Drain]. An event that failed is not
// tried again by the kit. A test whose mux does not subscribe to the event ends.
func Deliver[T any](k *Kit, event intent.Event[T], data T, opts EventOpts) []Delivered {
	k.t.Helper()
	body, err := json.Marshal(data)
	k.must(err)
	if opts.ID == "" {
		opts.ID = intent.NewID().String()
	}
	if opts.Source == "" {
		opts.Source = "elsewhere"
	}
	if opts.Time.IsZero() {
		opts.Time = time.Now()
	}
	headers := map[string]any{
		"cloudEvents_specversion": "1.0", "cloudEvents_id": opts.ID, "cloudEvents_source": opts.Source, "cloudEvents_type": event.Name,
		"cloudEvents_subject": opts.Subject, "cloudEvents_time": opts.Time.UTC().Format(time.RFC3339Nano), "cloudEvents_traceparent": opts.Trace,
	}
	for name, id := range map[string]intent.ID{"cloudEvents_tid": opts.TID, "cloudEvents_parentid": opts.Parent} {
		if id != (intent.ID{}) {
			headers[name] = id.String()
		}
	}
	delivered, err := k.handlers.Deliver(k.t.Context(), k.store, event.Name, headers, body)
	k.must(err)
	if len(delivered) == 0 {
		k.t.Fatalf("intenttest: the mux has no subscription to %s", event.Name)
	}
	out := make([]Delivered, len(delivered))
	for i, d := range delivered {
		out[i] = Delivered(d)
	}
	return out
}
