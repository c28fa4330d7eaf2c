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

// event is a row for an exchange: not mandatory, for without a subscriber it is delivered to nobody. What AMQP has a
// property for comes from the CloudEvents attributes.
func event(row store.Row) (rabbit.Message, error) {
	m := rabbit.Message{Exchange: row.Exchange, Key: row.RoutingKey, Body: row.Payload}
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

// declareExchanges makes sure that the exchanges of events exist, before a missing one closes the channel over a whole
// batch. Parcels whose exchange the broker refuses are refused by that reason; those that it did not answer for are left
// out, and their rows stay as they are.
func (s *session) declareExchanges(ctx context.Context, parcels []parcel, refuse func(parcel, string)) []parcel {
	var out []parcel
	failed := map[string]error{}
	for i, p := range parcels {
		exchange := p.message.Exchange
		if !strings.HasPrefix(exchange, rabbit.EventExchange("")) || s.exchanges[exchange] {
			out = append(out, p)
			continue
		}
		err, again := failed[exchange]
		if !again {
			err = s.publisher.DeclareFanout(ctx, exchange)
			failed[exchange] = err
		}
		var refused *rabbit.ChannelError
		switch {
		case err == nil:
			if s.exchanges == nil {
				s.exchanges = map[string]bool{}
			}
			s.exchanges[exchange] = true
			out = append(out, parcels[i])
		case errors.As(err, &refused):
			s.metrics.refused.Inc()
			refuse(p, fmt.Sprintf("exchange %s: %v", exchange, err))
		default:
			s.cfg.Log.Warn("relay: cannot declare an exchange yet, its events stay in the outbox", "exchange", exchange, "error", err)
		}
	}
	return out
}
