// Package webhook is a ready-made handler that sends an intent as an HTTP request: with an Idempotency-Key, signed by the
// scheme of Standard Webhooks (standardwebhooks.com), never to an address inside your own network, and with each answer
// mapped to what it says of the effect.
//
// Customers' endpoints are asked to drop what they have seen before, by webhook-id; where that is agreed declare the kind
// Idempotent, so that an answer that nobody knows is simply asked for again. Where it is not, such an attempt is ambiguous
// like any other.
package webhook

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/workers"
)

// Config of a handler. Zero fields mean the defaults.
type Config[T any] struct {
	// Request makes the request of a job, anew for each attempt, which should then be the same one. Nothing has been sent
	// when it returns an error: the job is tried again, or with workers.Stop ends in error. Required.
	Request func(ctx context.Context, job *workers.Job[T]) (*Request, error)

	// Receipt runs in the transaction that records the intent as sent, for the application's own rows. Default: none. Where only a
	// probe or a person could say that it was done there is no answer: Handler.OnHappened is for that.
	Receipt func(ctx context.Context, tx pgx.Tx, job *workers.Job[T], answer *Response) error

	// Means says what a status means where that is not what [Meaning] lists.
	Means map[int]Meaning

	// Allow are networks inside that may be called all the same, like 10.1.2.0/24. Default: none, public addresses only. The
	// address is checked when it is connected to, whatever a name said before. Proxies are never used, for they would
	// connect instead.
	Allow []netip.Prefix

	// PlainHTTP allows URLs that begin with http. Default: https only.
	PlainHTTP bool

	// MaxResponse bounds how much of an answer's body is read, in bytes; the rest is cut off, which changes nothing of what
	// the answer means. Default 64 KiB.
	MaxResponse int

	// UserAgent is sent as such. Default "Writ-Webhook/1".
	UserAgent string

	// TLS settings, such as own certificate authorities. Default: the system's.
	TLS *tls.Config

	// Resolver looks names up. Default: net.DefaultResolver.
	Resolver *net.Resolver
}

// Request is one request.
type Request struct {
	// URL to send to. Required. It is never written down but for its host, because the rest of it may hold credentials; nor is
	// it, or a value of Header, where an answer repeats it.
	URL string

	// Method. Default POST.
	Method string

	// Body is sent as JSON: an [Event], bytes that are JSON already as json.RawMessage, or whatever encoding/json knows.
	Body any

	// Header is sent besides. Not these, which are set here: Idempotency-Key, webhook-id, webhook-timestamp,
	// webhook-signature.
	Header http.Header

	// Secrets sign the request: whsec_… (HMAC) or whsk_… (Ed25519), each adds a signature, so that receivers can change
	// over. Default: not signed.
	Secrets []string
}

// Event is the body that Standard Webhooks recommends.
type Event struct {
	Type      string    `json:"type"`      // like invoice.paid
	Timestamp time.Time `json:"timestamp"` // when it happened, not when it is sent
	Data      any       `json:"data"`
}

// Response is the answer to a request.
type Response struct {
	Status    int
	Header    http.Header
	Body      []byte // of at most Config.MaxResponse
	Truncated bool   // the body was longer, or broke off
}

// New returns a handler for workers.Handle; a Probe and OnError can be added to it. Faults of the config are returned all
// at once.
//
// Each request has a connection of its own: one that was used before may turn out to be closed while the request is on its
// way, and then nobody would know. The effect is entered just before the request; see [Meaning] for what the answers mean.
func New[T any](cfg Config[T]) (workers.Handler[T], error) {
	var faults []error
	if cfg.Request == nil {
		faults = append(faults, errors.New("Config.Request is missing"))
	}
	if cfg.MaxResponse < 0 {
		faults = append(faults, fmt.Errorf("Config.MaxResponse is %d; it must be at least 1, zero is the default", cfg.MaxResponse))
	}
	for status, m := range cfg.Means {
		if status < 200 || status > 599 || m < NobodyKnows || m > Refused {
			faults = append(faults, fmt.Errorf("Config.Means[%d] is %d; it maps 200 to 599 to a Meaning", status, m))
		}
	}
	for _, p := range cfg.Allow {
		if !p.IsValid() {
			faults = append(faults, errors.New("Config.Allow has a prefix that is not valid"))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return workers.Handler[T]{}, fmt.Errorf("webhook: %w", err)
	}
	cfg.MaxResponse = cmp.Or(cfg.MaxResponse, 64<<10)
	cfg.UserAgent = cmp.Or(cfg.UserAgent, "Writ-Webhook/1")
	s := &sender[T]{cfg: cfg, client: newClient(cfg.Allow, cfg.Resolver, cfg.TLS)}
	return workers.Handler[T]{Do: s.do, Effect: workers.EffectMarked}, nil
}

type sender[T any] struct {
	cfg    Config[T]
	client *http.Client
}

func (s *sender[T]) do(ctx context.Context, job *workers.Job[T]) error {
	r, err := s.cfg.Request(ctx, job)
	if err != nil {
		return err
	}
	if r == nil {
		return workers.Stop(errors.New("webhook: Config.Request returned no request"))
	}
	out, err := s.prepare(ctx, r, job.Key(), time.Now())
	if err != nil {
		return workers.Stop(fmt.Errorf("webhook: %w", err))
	}
	answer, err := s.send(job.Effect(ctx), out, newRedactor(out, r.Header))
	if err != nil {
		return err
	}
	if s.cfg.Receipt == nil {
		return nil
	}
	return job.Done(func(ctx context.Context, tx pgx.Tx) error { return s.cfg.Receipt(ctx, tx, job, answer) })
}

// encodeBody makes the bytes that are sent, and signed. They are never none: net/http takes a request without a body for
// one that it may repeat.
func encodeBody(body any) ([]byte, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("its body cannot be written as JSON: %w", err)
	}
	return raw, nil
}
