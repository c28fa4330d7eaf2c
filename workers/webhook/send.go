package webhook

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/writhq/writ/workers"
)

const (
	// bodyWait is how long an answer's body is read: what the answer means stands in its first line.
	bodyWait = 2 * time.Second
	// maxHeader bounds an answer's header, in bytes.
	maxHeader = 64 << 10
)

// newClient returns a client that connects to allowed addresses only, anew for each request, and follows nothing.
func newClient(allow []netip.Prefix, resolver *net.Resolver, settings *tls.Config) *http.Client {
	dialer := &net.Dialer{ControlContext: Guard(allow...), Resolver: resolver, KeepAlive: -1}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, DisableKeepAlives: true, DisableCompression: true,
			MaxResponseHeaderBytes: maxHeader, TLSClientConfig: settings,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// prepare makes the request and signs it. What is wrong with it will be wrong again.
func (s *sender[T]) prepare(ctx context.Context, r *Request, key string, now time.Time) (*http.Request, error) {
	u, err := url.Parse(r.URL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("the URL is not an absolute http or https URL") // not shown: it may hold credentials
	case u.Scheme == "http" && !s.cfg.PlainHTTP:
		return nil, fmt.Errorf("the URL of %s is plain http; use https, or allow it with Config.PlainHTTP", u.Host)
	}
	body, err := encodeBody(r.Body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, cmp.Or(r.Method, http.MethodPost), u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("the method %q is none", r.Method)
	}
	req.GetBody = nil // or net/http may send it twice, because of the Idempotency-Key
	for name, values := range r.Header {
		if !headerName(name) || strings.ContainsFunc(strings.Join(values, ""), isControl) {
			return nil, fmt.Errorf("the header %q cannot be sent", name)
		}
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	if req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("User-Agent", s.cfg.UserAgent)
	req.Header.Set("Idempotency-Key", key)
	return req, Sign(req.Header, r.Secrets, key, now, body)
}

// headerName reports whether a name is a token of RFC 9110.
func headerName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}

func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// send sends the request once and returns the answer if it means done.
func (s *sender[T]) send(ctx context.Context, req *http.Request, redact *redactor) (*Response, error) {
	ctx, cutShort := context.WithCancel(ctx)
	defer cutShort()
	ctx, classify := workers.WatchHTTP(ctx)
	res, err := s.client.Do(req.WithContext(ctx))
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // without the URL
		}
		err = fmt.Errorf("webhook: %s: %w", req.URL.Host, &redactedError{err, bounded(redact.text(err.Error(), false))})
		if _, blocked := errors.AsType[*BlockedError](err); blocked {
			return nil, workers.Stop(err)
		}
		return nil, classify(err)
	}
	answer := &Response{Status: res.StatusCode, Header: res.Header}
	answer.Body, answer.Truncated = readBody(res.Body, s.cfg.MaxResponse, cutShort)
	meaning, ok := s.cfg.Means[res.StatusCode]
	if !ok {
		meaning = meaningOf(res.StatusCode, res.Header)
	}
	if meaning == Done {
		return answer, nil
	}
	return nil, meaning.outcome(&StatusError{Method: req.Method, Host: req.URL.Host, Response: *answer, redact: redact})
}

// readBody reads what there is of a body, within its bounds, and closes it. cutShort ends the reading.
func readBody(body io.ReadCloser, most int, cutShort func()) (read []byte, truncated bool) {
	late := time.AfterFunc(bodyWait, func() {
		cutShort()
		body.Close() // after an answer 101 the connection is the caller's, and no context ends it
	})
	defer late.Stop()
	defer body.Close()
	read, err := io.ReadAll(io.LimitReader(body, int64(most)+1))
	if len(read) > most {
		return read[:most], true
	}
	return read, err != nil
}
