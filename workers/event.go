package workers

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/store"
)

// Event is an event as a subscription gets it. Its attributes are those of CloudEvents; ID and Source together name it.
type Event[T any] struct {
	ID      string
	Source  string // who published it: the application
	Type    string // its name, like user.authorized
	Subject string // the row that it is about, if its publisher said so
	Time    time.Time

	// TID is the transaction id of the tree that it is part of, Parent the intent that published it (in its publisher's
	// database; zero: none), Trace a W3C traceparent. The intents that the subscription returns inherit them.
	TID    intent.ID
	Parent intent.ID
	Trace  string

	Data T
}

// letter is an event on its way, without its type: what of a message counts, in a form that the inbox can keep.
type letter struct {
	attributes map[string]string // by the names that CloudEvents gives them, and content-type
	body       []byte
}

// The forms in which CloudEvents' attributes come as headers: as the AMQP binding has it, in both spellings.
var prefixes = []string{"cloudEvents_", "cloudEvents:"}

const contentType = "content-type"

// structured is the content type of an event that is all in the body.
const structured = "application/cloudevents+json"

// newLetter takes the attributes out of a message's headers.
func newLetter(headers map[string]any, contentTypeOf string, body []byte) letter {
	l := letter{attributes: map[string]string{}, body: body}
	if contentTypeOf != "" {
		l.attributes[contentType] = store.Storable(contentTypeOf)
	}
	for name, value := range headers {
		for _, prefix := range prefixes {
			if attribute, ok := strings.CutPrefix(name, prefix); ok {
				l.attributes[store.Storable(attribute)] = headerText(value)
			}
		}
	}
	return l
}

// headerText is a header's value as text.
func headerText(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return store.Storable(v)
	case []byte:
		return store.Storable(string(v))
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	}
	return store.Storable(fmt.Sprint(value))
}

// headers are the attributes for the inbox, and restored reads them back.
func (l letter) headers() []byte {
	raw, err := json.Marshal(l.attributes)
	if err != nil {
		panic(err) // strings only
	}
	return raw
}

func restored(headers, body []byte) (letter, error) {
	l := letter{body: body}
	err := json.Unmarshal(headers, &l.attributes)
	return l, err
}

// identity names the event: by source and id, or, where it has none, by what it holds. It never fails, for what cannot
// be read must be kept, too.
func (l letter) identity() (source, id string) {
	if l.structured() {
		var e struct{ ID, Source any } // of any type, as it may be malformed
		_ = json.Unmarshal(l.body, &e)
		id, _ = e.ID.(string)
		source, _ = e.Source.(string)
	} else {
		source, id = l.attributes["source"], l.attributes["id"]
	}
	if source == "" || id == "" || len(source) > maxIdentity || len(id) > maxIdentity {
		sum := sha256.New()
		for _, name := range slices.Sorted(maps.Keys(l.attributes)) {
			fmt.Fprintf(sum, "%q %q\n", name, l.attributes[name])
		}
		sum.Write(l.body)
		return "unknown", "sha256:" + hex.EncodeToString(sum.Sum(nil))
	}
	return store.Storable(source), store.Storable(id)
}

// maxIdentity bounds source and id, in bytes.
const maxIdentity = 255

func (l letter) structured() bool {
	return strings.HasPrefix(strings.ToLower(l.attributes[contentType]), structured)
}

// read makes an event of it. The error says what is wrong with the message.
func (l letter) read(name string) (Event[json.RawMessage], error) {
	attributes, data := l.attributes, json.RawMessage(l.body)
	if l.structured() {
		var err error
		if attributes, data, err = unfold(l.body); err != nil {
			return Event[json.RawMessage]{}, err
		}
	}
	e := Event[json.RawMessage]{
		ID: attributes["id"], Source: attributes["source"], Type: attributes["type"], Subject: attributes["subject"],
		Trace: attributes["traceparent"], Data: data,
	}
	var faults []error
	for _, required := range []string{"id", "source", "type"} {
		if v := attributes[required]; v == "" || len(v) > maxIdentity {
			faults = append(faults, fmt.Errorf("CloudEvents attribute %s has %d bytes; it must have 1 to %d", required, len(v), maxIdentity))
		}
	}
	if v := attributes["specversion"]; !strings.HasPrefix(v, "1.") {
		faults = append(faults, fmt.Errorf("CloudEvents attribute specversion is %q; it must be 1.0", v))
	}
	if e.Type != name {
		faults = append(faults, fmt.Errorf("its type is %q; this is a subscription to %s", e.Type, name))
	}
	if at := attributes["time"]; at != "" {
		var err error
		if e.Time, err = time.Parse(time.RFC3339Nano, at); err != nil {
			faults = append(faults, fmt.Errorf("CloudEvents attribute time: %w", err))
		}
	}
	var err error
	if e.Parent, err = optionalID(attributes["parentid"]); err != nil {
		faults = append(faults, fmt.Errorf("CloudEvents attribute parentid: %w", err))
	}
	if e.TID, err = optionalID(attributes["tid"]); err != nil {
		faults = append(faults, fmt.Errorf("CloudEvents attribute tid: %w", err))
	}
	if e.TID == uuid.Nil { // its publisher knows of none: it begins a tree, the same one at each try
		if e.TID, err = uuid.Parse(e.ID); err != nil {
			e.TID = uuid.NewSHA1(uuid.NameSpaceURL, []byte(e.Source+" "+e.ID))
		}
	}
	return e, errors.Join(faults...)
}

func optionalID(s string) (intent.ID, error) {
	if s == "" {
		return uuid.Nil, nil
	}
	return uuid.Parse(s)
}

// unfold reads an event in the structured form: attributes and data are members of one JSON object.
func unfold(body []byte) (attributes map[string]string, data json.RawMessage, err error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		return nil, nil, fmt.Errorf("its body is no CloudEvent in JSON: %w", err)
	}
	attributes = map[string]string{}
	for name, raw := range members {
		switch name {
		case "data":
			data = raw
		case "data_base64":
			var decoded []byte
			if err := json.Unmarshal(raw, &decoded); err != nil {
				return nil, nil, fmt.Errorf("data_base64: %w", err)
			}
			data = decoded
		default:
			var text string
			if json.Unmarshal(raw, &text) != nil {
				text = string(raw) // a number or a boolean
			}
			attributes[name] = text
		}
	}
	return attributes, data, nil
}
