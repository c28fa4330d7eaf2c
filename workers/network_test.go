package workers

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"github.com/writhq/writ/internal/store"
)

func TestNotReached(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		err  error
		want bool
	}{
		"refused":                  {refused(), true},
		"unreachable":              {&net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}, true},
		"timed out dialling":       {&net.OpError{Op: "dial", Err: context.DeadlineExceeded}, true},
		"the proxy refuses":        {&net.OpError{Op: "proxyconnect", Err: io.EOF}, true},
		"no such name":             {&net.DNSError{IsNotFound: true}, true},
		"names cannot be asked":    {fmt.Errorf("x: %w", &net.DNSError{IsTimeout: true}), true},
		"its certificate":          {&tls.CertificateVerificationError{}, true},
		"reset":                    {&net.OpError{Op: "read", Err: syscall.ECONNRESET}, false},
		"broken pipe":              {&net.OpError{Op: "write", Err: syscall.EPIPE}, false},
		"an alert from over there": {&net.OpError{Op: "remote error", Err: errors.New("tls: internal error")}, false},
		"its time was up":          {context.DeadlineExceeded, false},
		"cut":                      {io.ErrUnexpectedEOF, false},
	}
	for name, tt := range tests {
		var said *outcomeError
		got := NotReached(tt.err)
		if is := errors.As(got, &said) && said.kind == notDone; is != tt.want || !errors.Is(got, tt.err) {
			t.Errorf("%s: %v, not done %v; want %v", name, got, is, tt.want)
		}
	}
}

// TestWatchHTTP asks real servers: the error alone does not tell what the connection does.
func TestWatchHTTP(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // connections wait in its backlog for ever
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	t.Cleanup(hanging.Close)
	away := httptest.NewServer(http.RedirectHandler("http://nowhere.invalid/", http.StatusTemporaryRedirect))
	t.Cleanup(away.Close)
	blind := roundTrips(func(*http.Request) (*http.Response, error) { return nil, context.DeadlineExceeded })
	own := func() http.RoundTripper { return &http.Transport{DisableKeepAlives: true} }
	tests := map[string]struct {
		url       string
		transport http.RoundTripper
		want      bool
	}{
		"hangs in the handshake":              {"https://" + silent.Addr().String(), own(), true},
		"hangs after the request":             {hanging.URL, own(), false},
		"was redirected to where nobody is":   {away.URL, own(), false},
		"a transport that tells nothing":      {"http://x.invalid", blind, false},
		"the same, and its error says enough": {"http://x.invalid", roundTrips(func(*http.Request) (*http.Response, error) { return nil, refused() }), true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
			defer cancel()
			ctx, classify := WatchHTTP(ctx)
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, tt.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := (&http.Client{Transport: tt.transport}).Do(req)
			if err == nil {
				res.Body.Close()
				t.Fatal(res.Status)
			}
			var said *outcomeError
			got := classify(err)
			if is := errors.As(got, &said) && said.kind == notDone; is != tt.want || !errors.Is(got, err) {
				t.Errorf("%v: not done %v; want %v", got, is, tt.want)
			}
		})
	}
}

type roundTrips func(*http.Request) (*http.Response, error)

func (f roundTrips) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// asks is an error of somebody else's that knows when to come again.
type asks struct{ d time.Duration }

func (asks) Error() string               { return "busy" }
func (a asks) RetryAfter() time.Duration { return a.d }

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	const most = time.Hour // of the backoff, with full jitter
	tests := map[string]struct {
		class     string
		err       error
		event     string
		low, high time.Duration
	}{
		"not done":                 {Manual, NotDone(RetryAfter(2*time.Hour, boom)), store.Retried, 2 * time.Hour, 2 * time.Hour},
		"the other way round":      {Manual, RetryAfter(2*time.Hour, NotDone(boom)), store.Retried, 2 * time.Hour, 2 * time.Hour},
		"unknown stays that":       {Manual, RetryAfter(2*time.Hour, boom), store.Flagged, 0, 0},
		"unknown, but idempotent":  {Idempotent, RetryAfter(2*time.Hour, boom), store.Retried, 2 * time.Hour, 2 * time.Hour},
		"somebody else's error":    {Manual, NotDone(fmt.Errorf("x: %w", asks{3 * time.Hour})), store.Retried, 3 * time.Hour, 3 * time.Hour},
		"shorter than the backoff": {Manual, NotDone(RetryAfter(time.Nanosecond, boom)), store.Retried, time.Nanosecond, most},
		"negative":                 {Manual, NotDone(RetryAfter(-time.Hour, boom)), store.Retried, 0, most},
		"for ever":                 {Manual, NotDone(RetryAfter(1<<62, boom)), store.Retried, 24 * time.Hour, 24 * time.Hour},
	}
	for name, tt := range tests {
		got := judge(context.Background(), anAttempt(tt.class, 1), tt.err)
		if got.Event != tt.event || got.Delay < tt.low || got.Delay > tt.high {
			t.Errorf("%s: %s in %v; want %s in %v to %v", name, got.Event, got.Delay, tt.event, tt.low, tt.high)
		}
	}
	if RetryAfter(time.Hour, nil) != nil {
		t.Error("a nil error became one")
	}
}

func TestRetryAfterHeader(t *testing.T) {
	t.Parallel()
	const date = "Sun, 22 Nov 2026 04:00:00 GMT"
	tests := map[string]struct {
		value, date string
		want        time.Duration
	}{
		"none":         {"", "", 0},
		"seconds":      {" 120 ", "", 2 * time.Minute},
		"negative":     {"-1", "", 0},
		"a year":       {"31536000", "", 24 * time.Hour},
		"too many":     {"99999999999999999999", "", 0},
		"a fraction":   {"1.5", "", 0},
		"a date":       {"Sun, 22 Nov 2026 04:10:00 GMT", date, 10 * time.Minute},
		"an old form":  {"Sunday, 22-Nov-26 04:10:00 GMT", date, 10 * time.Minute},
		"a past date":  {"Sun, 22 Nov 2026 03:00:00 GMT", date, 0},
		"a far date":   {"Sun, 22 Nov 2099 03:00:00 GMT", date, 24 * time.Hour},
		"no own clock": {"Mon, 01 Jan 2001 00:00:00 GMT", "", 0},
		"nonsense":     {"soon", date, 0},
	}
	for name, tt := range tests {
		if got := RetryAfterHeader(http.Header{"Retry-After": {tt.value}, "Date": {tt.date}}); got != tt.want {
			t.Errorf("%s: %v; want %v", name, got, tt.want)
		}
	}
}
