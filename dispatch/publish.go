package dispatch

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/writhq/writ/internal/rabbit"
	"github.com/writhq/writ/internal/store"
)

// parcel is one message with the outbox rows that it settles.
type parcel struct {
	message rabbit.Message
	refs    []pgtype.TID
}

// publish sends taken rows, waits for the broker's word on each, and writes it down: confirmed rows are deleted, refused
// ones delayed, unknown ones left for the next round. It returns how many rows were settled.
func (s *session) publish(ctx context.Context, taken *store.Taken) (int, error) {
	parcels, events, refused := s.pack(taken.Rows)
	var published []pgtype.TID
	refuse := func(p parcel, why string) {
		refused = append(refused, store.Refusal{Refs: p.refs, Why: why})
	}
	sending, cancel := context.WithTimeout(ctx, holding)
	defer cancel()
	if events {
		parcels = s.declareExchanges(sending, parcels, refuse)
	}
	sendErr := s.send(sending, parcels, func(p parcel, fate rabbit.Fate, why error) {
		switch {
		case fate == rabbit.Returned && isEvent(p) && s.miss(p):
			s.metrics.returned.Add(float64(len(p.refs)))
			refuse(p, s.heldBack(p))
		case fate == rabbit.Confirmed, fate == rabbit.Returned && isEvent(p): // to nobody, as nobody subscribes
			if isEvent(p) {
				s.fanout(p.message.Exchange).led = fate == rabbit.Confirmed
			}
			published = append(published, p.refs...)
			s.metrics.published.Add(float64(len(p.refs)))
		case fate == rabbit.Returned:
			s.metrics.returned.Add(float64(len(p.refs)))
			refuse(p, "no such queue: no worker ever declared "+p.message.Key)
		case why != nil:
			if isEvent(p) {
				s.fanout(p.message.Exchange).declared = false // it may be gone
			}
			s.metrics.refused.Add(float64(len(p.refs)))
			refuse(p, why.Error())
		}
	})
	settled := len(published)
	for _, r := range refused {
		settled += len(r.Refs)
	}
	if sendErr != nil {
		s.cfg.Log.Warn("relay: published only a part, the rest stays in the outbox", "rows", len(taken.Rows), "settled", settled, "error", sendErr)
	}
	if settled == 0 {
		taken.Release(ctx)
		return 0, nil
	}
	return settled, taken.Finish(ctx, published, refused)
}

// send publishes parcels and reports each one's fate. A reason beside an unknown fate means that this very parcel was
// refused. One bad row must not stop the rest: where the channel was closed over a batch, its parcels are published
// again one by one, and only the one that closes it alone is refused. The error is an outage: the rest is left unknown.
func (s *session) send(ctx context.Context, parcels []parcel, report func(parcel, rabbit.Fate, error)) error {
	messages := make([]rabbit.Message, len(parcels))
	for i, p := range parcels {
		messages[i] = p.message
	}
	fates, err := s.publisher.Publish(ctx, messages)
	var invalid *rabbit.InvalidError
	var closed *rabbit.ChannelError
	switch {
	case errors.As(err, &invalid):
		report(parcels[invalid.Index], rabbit.Unknown, invalid)
		return s.send(ctx, slices.Delete(parcels, invalid.Index, invalid.Index+1), report)
	case errors.As(err, &closed) && len(parcels) == 1:
		report(parcels[0], rabbit.Unknown, closed)
		return nil
	case errors.As(err, &closed):
		return s.sendSingly(ctx, parcels, fates, report)
	}
	for i, p := range parcels {
		var why error
		if fates[i] == rabbit.Unknown && errors.Is(err, rabbit.ErrNotConfirmed) {
			why = err // refused or never answered: later again, and the rows behind it now
		}
		report(p, fates[i], why)
	}
	if errors.Is(err, rabbit.ErrNotConfirmed) {
		return nil
	}
	return err
}

func (s *session) sendSingly(ctx context.Context, parcels []parcel, fates []rabbit.Fate, report func(parcel, rabbit.Fate, error)) error {
	for i, p := range parcels {
		if fates[i] != rabbit.Unknown {
			report(p, fates[i], nil)
			continue
		}
		if err := s.send(ctx, []parcel{p}, report); err != nil {
			return err
		}
	}
	return nil
}

// pack makes messages of rows: hints of one queue share frames if their kinds run shortly, all else travels singly.
// events reports whether there are any among them.
func (s *session) pack(rows []store.Row) (parcels []parcel, events bool, refused []store.Refusal) {
	lanes := map[string]lane{}  // by kind
	open := map[string]*frame{} // by queue
	flush := func(f *frame) {
		message, err := rabbit.HintMessage(s.installation, f.queue, f.hints)
		if err != nil {
			refused = append(refused, store.Refusal{Refs: f.refs, Why: err.Error()})
			return
		}
		parcels = append(parcels, parcel{message, f.refs})
	}
	for _, row := range rows {
		if (row.Op == "") == (row.Exchange == "") || row.Op == "" && row.Payload == nil {
			refused = append(refused, store.Refusal{Refs: []pgtype.TID{row.Ref}, Why: "it is neither a hint nor an event: op, or exchange and payload"})
			continue
		}
		if row.Op == "" {
			message, err := event(row)
			if err != nil {
				refused = append(refused, store.Refusal{Refs: []pgtype.TID{row.Ref}, Why: err.Error()})
				continue
			}
			parcels, events = append(parcels, parcel{message, []pgtype.TID{row.Ref}}), true
			continue
		}
		l, known := lanes[row.Kind]
		if !known {
			l = s.lane(row.Kind, len(rows))
			lanes[row.Kind] = l
		}
		if l.err != nil {
			refused = append(refused, store.Refusal{Refs: []pgtype.TID{row.Ref}, Why: l.err.Error()})
			continue
		}
		f := open[l.queue]
		if f == nil || l.size == 1 {
			f = &frame{queue: l.queue, most: l.size, hints: make([]rabbit.Hint, 0, l.size), refs: make([]pgtype.TID, 0, l.size)}
		}
		if l.size > 1 {
			open[l.queue] = f
			f.most = min(f.most, l.size)
		}
		f.hints = append(f.hints, rabbit.Hint{Op: row.Op, Epoch: row.Epoch, Kind: row.Kind, ID: row.ID})
		f.refs = append(f.refs, row.Ref)
		if len(f.hints) >= f.most {
			flush(f)
			if open[f.queue] == f {
				delete(open, f.queue)
			}
		}
	}
	for _, f := range open {
		flush(f)
	}
	if len(lanes) > 0 {
		s.known = false
		for _, l := range lanes {
			s.known = s.known || !l.unknown
		}
	}
	return parcels, events, refused
}

// lane is how the hints of a kind travel in one batch.
type lane struct {
	queue   string // the broker's name
	size    int    // of a frame
	unknown bool   // how long its kind typically runs
	err     error
}

func (s *session) lane(kind string, rows int) (l lane) {
	route := s.route(kind)
	if l.queue, l.err = rabbit.QueueName(s.installation, route.Queue); l.err == nil {
		l.size, l.unknown = frameSize(rows, route.Typical), route.Typical == 0
		s.learning = s.learning || l.unknown && rows > 1
	}
	return l
}

// frameSize is how many hints of a kind travel together when rows are at hand.
func frameSize(rows int, typical time.Duration) int {
	share := min(rows/frameShare, maxFrame)
	switch {
	case typical <= 0 || typical > shortRun:
		return 1
	case typical <= briefRun:
		return max(fewest, briefly*share)
	}
	return max(1, share)
}

// frame is a message in the making.
type frame struct {
	queue string
	most  int
	hints []rabbit.Hint
	refs  []pgtype.TID
}

// route resolves a kind to its queue. A kind that nobody declared goes to the queue of its own name, which does not
// exist either: the broker returns it, and the row says so.
func (s *session) route(kind string) store.Route {
	if r, ok := s.routes[kind]; ok {
		return r
	}
	return store.Route{Queue: kind}
}
