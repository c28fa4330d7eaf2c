package workers

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// What the error of an outside call says about the effect. The causes have one home, here: handlers use it, and the
// ready-made kinds in workers/webhook and workers/mail do.

// NotReached marks the error of an outside call as not done if its cause shows that nothing was asked of the other side:
// no connection came about (refused, unreachable, timed out while dialling), a name was not found, or its certificate was
// not accepted. Any other error comes back as it is, for after a connection the request may have left. It is for the error
// of the effect itself; a refused connection of a later step says nothing about what was done before.
//
// An HTTP client tells more than its error does: see [WatchHTTP].
func NotReached(err error) error {
	var dns *net.DNSError
	var op *net.OpError
	var certificate *tls.CertificateVerificationError
	dialling := errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect")
	if dialling || errors.As(err, &dns) || errors.As(err, &certificate) {
		return NotDone(err)
	}
	return err
}

// WatchHTTP follows the HTTP request that is sent with the context it returns. classify then marks that request's error as
// not done if the request cannot have left: no connection was handed to it, because the name was not found, the connection
// was refused, the handshake of TLS failed or hung, or the time was up before. After that nobody knows, and the error comes
// back as it is. For one call of a client, which may follow redirects; a client whose transport does not support
// net/http/httptrace is judged by [NotReached] alone.
//
//	ctx, classify := workers.WatchHTTP(job.Effect(ctx))
//	res, err := client.Do(req.WithContext(ctx))
//	if err != nil {
//		return classify(err)
//	}
//
// Beware: net/http repeats a request on its own if a connection that it used before turns out to be closed, and for a POST
// it does so if there is an Idempotency-Key. Set req.GetBody to nil where that would be wrong.
func WatchHTTP(ctx context.Context) (watched context.Context, classify func(error) error) {
	var asked, got atomic.Bool
	watched = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { asked.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { got.Store(true) },
	})
	return watched, func(err error) error {
		switch {
		case got.Load():
			return err // also where a second one, after a redirect, was not reached
		case asked.Load():
			return NotDone(err)
		}
		return NotReached(err)
	}
}

// longestWait is how long another side can put an attempt off.
const longestWait = 24 * time.Hour

// RetryAfter adds to an outcome that the next attempt is not to begin before d has passed, because the other side asked for
// that: NotDone(RetryAfter(d, err)). Backoff counts if it is longer; more than a day counts as a day. It changes nothing
// about the outcome itself. An error with a method RetryAfter() time.Duration does the same. Nil stays nil.
func RetryAfter(d time.Duration, err error) error {
	if err == nil {
		return nil
	}
	return &waitError{d, err}
}

type waitError struct {
	d   time.Duration
	err error
}

func (e *waitError) Error() string             { return e.err.Error() }
func (e *waitError) Unwrap() error             { return e.err }
func (e *waitError) RetryAfter() time.Duration { return e.d }

// waitOf is how long an error wants the next attempt put off; zero: it does not say.
func waitOf(err error) time.Duration {
	var asks interface{ RetryAfter() time.Duration }
	if !errors.As(err, &asks) {
		return 0
	}
	return min(max(0, asks.RetryAfter()), longestWait)
}

// RetryAfterHeader reads the header Retry-After of an answer: seconds, or a date, which is taken by the answer's own clock
// if its header Date tells that. Zero: there is none, it is past, or it cannot be read.
func RetryAfterHeader(h http.Header) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseInt(value, 10, 64); err == nil {
		return time.Duration(min(max(0, seconds), int64(longestWait/time.Second))) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return min(max(0, at.Sub(now)), longestWait)
}
