package rabbit

import (
	"cmp"
	"fmt"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"
)

// appID is the app-id property of every message.
const appID = "writ"

// headerInstallation names the installation that a hint is from, so that a
// worker recognises one that was sent by a copy of its database.
const headerInstallation = "writ-installation"

// Message is one message to publish. It is always published as persistent.
type Message struct {
	Exchange string // "" is the default exchange, which routes to the queue named Key
	Key      string // routing key
	// Mandatory has the message returned if no queue takes it (fate Returned).
	// Without it such a message is confirmed, and delivered to nobody.
	Mandatory bool
	// Headers hold strings, bools, numbers, times, nil, and slices ([]any) and maps
	// (map[string]any) of these.
	Headers     map[string]any
	ContentType string
	MessageID   string
	Type        string
	AppID       string    // default: "writ"
	Timestamp   time.Time // whole seconds go over the wire; zero: none
	Body        []byte
}

// HintMessage returns the message that carries the hints to a queue, named as by
// QueueName. The error is EncodeFrame's.
func HintMessage(installation uuid.UUID, queue string, hints []Hint) (Message, error) {
	frame, err := EncodeFrame(hints)
	if err != nil {
		return Message{}, err
	}
	return Message{
		Key:         queue,
		Mandatory:   true,
		Headers:     map[string]any{headerInstallation: installation.String()},
		ContentType: "text/plain",
		Body:        frame,
	}, nil
}

// Fate is what became of a published message.
type Fate uint8

// The fates of a message.
const (
	// Unknown means that the broker may or may not have it.
	Unknown Fate = iota
	// Confirmed means that every queue it was routed to has it, on disk.
	Confirmed
	// Returned means that it was mandatory and no queue took it.
	Returned
)

func (f Fate) String() string {
	switch f {
	case Confirmed:
		return "confirmed"
	case Returned:
		return "returned"
	default:
		return "unknown"
	}
}

// prepare turns messages into what the library takes. It refuses what the
// library would refuse only while writing, at the cost of the connection.
func prepare(messages []Message) ([]amqp.Publishing, error) {
	publishings := make([]amqp.Publishing, len(messages))
	for i := range messages {
		m := &messages[i]
		if n := max(len(m.Exchange), len(m.Key), len(m.ContentType), len(m.MessageID), len(m.Type), len(m.AppID)); n > maxShortstr {
			return nil, &InvalidError{Index: i, Err: fmt.Errorf("an exchange, key, content type, type, message or app id of %d bytes; at most %d", n, maxShortstr)}
		}
		headers, err := table(m.Headers)
		if err != nil {
			return nil, &InvalidError{Index: i, Err: err}
		}
		publishings[i] = amqp.Publishing{
			Headers:      headers,
			ContentType:  m.ContentType,
			DeliveryMode: amqp.Persistent,
			MessageId:    m.MessageID,
			Type:         m.Type,
			AppId:        cmp.Or(m.AppID, appID),
			Timestamp:    m.Timestamp,
			Body:         m.Body,
		}
	}
	return publishings, nil
}

func table(headers map[string]any) (amqp.Table, error) {
	if headers == nil {
		return nil, nil
	}
	t := make(amqp.Table, len(headers))
	for name, v := range headers {
		if len(name) > maxShortstr {
			return nil, fmt.Errorf("header name of %d bytes; at most %d", len(name), maxShortstr)
		}
		f, err := field(v)
		if err != nil {
			return nil, fmt.Errorf("header %q: %w", name, err)
		}
		t[name] = f
	}
	return t, nil
}

// field converts the maps that JSON decodes to; the library knows only its own.
func field(v any) (any, error) {
	switch v := v.(type) {
	case map[string]any:
		return table(v)
	case []any:
		list := make([]any, len(v))
		for i := range v {
			f, err := field(v[i])
			if err != nil {
				return nil, err
			}
			list[i] = f
		}
		return list, nil
	}
	if err := (amqp.Table{"": v}).Validate(); err != nil {
		return nil, fmt.Errorf("a %T cannot be sent", v)
	}
	return v, nil
}
