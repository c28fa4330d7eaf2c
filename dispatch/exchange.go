package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/writhq/writ/internal/rabbit"
	"github.com/writhq/writ/internal/store"
)

// event is a row for an exchange. It may go to nobody, but the relay is to know. What AMQP has a
// property for comes from the CloudEvents attributes.
func event(row store.Row) (rabbit.Message, error) {
	m := rabbit.Message{Exchange: row.Exchange, Key: row.RoutingKey, Body: row.Payload}
	m.Mandatory = strings.HasPrefix(row.Exchange, rabbit.EventExchange(""))
	if row.Headers != nil {
		if err := json.Unmarshal(row.Headers, &m.Headers); err != nil {
			return m, fmt.Errorf("headers: %w", err)
		}
	}
	text := func(name string) string {
		s, _ := m.Headers[name].(string)
		return s
	}
	m.ContentType, m.MessageID, m.Type, m.AppID = text("content-type"), text("cloudEvents_id"), text("cloudEvents_type"), text("cloudEvents_source")
	if at, err := time.Parse(time.RFC3339Nano, text("cloudEvents_time")); err == nil {
		m.Timestamp = at
	}
	maps.DeleteFunc(m.Headers, func(name string, _ any) bool { return name == "content-type" })
	return m, nil
}

// fanout is what the relay knows of an event's exchange.
type fanout struct {
	declared bool
	led      bool      // to a queue, when it was last published to
	held     time.Time // nothing is published until then: it was lost, or its bindings were, and subscribers bind again
}

// rebinding is how long events are held back whose exchange, or bindings, are gone: until each subscriber that lives has bound
// its queue again.
const rebinding = rabbit.BindEvery + 4*time.Second

func (r *Relay) fanout(exchange string) *fanout {
	f := r.fanouts[exchange]
	if f == nil {
		f = &fanout{}
		r.fanouts[exchange] = f
	}
	return f
}

// declareExchanges makes sure that the exchanges of events exist, before a missing one closes the channel over a whole
// batch. Parcels whose exchange the broker refuses are refused by that reason, and so are those that are held back; those that
// it did not answer for are left out, and their rows stay as they are.
func (s *session) declareExchanges(ctx context.Context, parcels []parcel, refuse func(parcel, string)) []parcel {
	var out []parcel
	failed := map[string]error{}
	for _, p := range parcels {
		exchange := p.message.Exchange
		if !isEvent(p) {
			out = append(out, p)
			continue
		}
		f := s.fanout(exchange)
		err, again := failed[exchange]
		if !again && !f.declared {
			var made bool
			made, err = s.publisher.DeclareFanout(ctx, exchange)
			failed[exchange] = err
			f.declared = err == nil
			if made && err == nil {
				s.miss(p)
			}
		}
		var refused *rabbit.ChannelError
		switch {
		case errors.As(err, &refused):
			s.metrics.refused.Inc()
			refuse(p, fmt.Sprintf("exchange %s: %v", exchange, err))
		case err != nil:
			s.cfg.Log.Warn("relay: cannot declare an exchange yet, its events stay in the outbox", "exchange", exchange, "error", err)
		case time.Now().Before(f.held):
			s.metrics.refused.Inc()
			refuse(p, s.heldBack(p))
		default:
			out = append(out, p)
		}
	}
	return out
}

func isEvent(p parcel) bool { return strings.HasPrefix(p.message.Exchange, rabbit.EventExchange("")) }

// miss notes that an event's exchange was not there, or led nowhere. Where it led somewhere before, or is to lead to a
// subscription of this database, its events are held back for a while; else nobody is missed, and it reports false.
func (s *session) miss(p parcel) bool {
	f := s.fanout(p.message.Exchange)
	if !f.led && s.subscribed[p.message.Key] == "" {
		return false
	}
	f.led, f.held = false, time.Now().Add(rebinding)
	s.cfg.Log.Warn("relay: an event's exchange is gone, or nothing is bound to it any more: its events wait until subscribers have bound again",
		"exchange", p.message.Exchange, "held", rebinding)
	return true
}

func (s *session) heldBack(p parcel) string {
	why := fmt.Sprintf("exchange %s was gone, or nothing was bound to it any more: held back until subscribers have bound again", p.message.Exchange)
	if name := s.subscribed[p.message.Key]; name != "" {
		why += "; one is " + name + ": start its worker, or delete it from writ.subscriptions"
	}
	return why
}
