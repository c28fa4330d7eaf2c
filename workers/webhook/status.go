package webhook

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/writhq/writ/workers"
)

// Meaning is what an answer's status says of the effect.
//
//	2xx                      Done
//	408, 421, 423, 425, 429  NotDone: tried again, after Retry-After if that is longer than the backoff
//	503 with Retry-After     NotDone, likewise
//	307, 308                 Refused: redirects are not followed; the endpoint has to be given by its new address
//	409                      NobodyKnows: a request with this key may still be at work there
//	other 4xx; 501, 505      Refused
//	other 3xx                NobodyKnows: the answer of those that redirect after the work is done
//	other 5xx                NobodyKnows: something broke over there, or between, and nobody says when; a bare 503 is also
//	                         what a proxy answers whose server went away in the middle
type Meaning int

// The meanings of a status.
const (
	NobodyKnows Meaning = iota // it may have been done
	Done
	NotDone // and may be, later: tried again
	Refused // not done, and never will be: ends in error
)

func meaningOf(status int, h http.Header) Meaning {
	switch status {
	case http.StatusRequestTimeout, http.StatusMisdirectedRequest, http.StatusLocked, http.StatusTooEarly, http.StatusTooManyRequests:
		return NotDone
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect, http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return Refused
	case http.StatusConflict:
		return NobodyKnows
	case http.StatusServiceUnavailable:
		if h.Get("Retry-After") != "" {
			return NotDone
		}
		return NobodyKnows
	}
	switch status / 100 {
	case 2:
		return Done
	case 4:
		return Refused
	}
	return NobodyKnows
}

func (m Meaning) outcome(err *StatusError) error {
	switch m {
	case NotDone:
		return workers.NotDone(err)
	case Refused:
		return workers.Stop(err)
	}
	return workers.Unknown(err)
}

// StatusError is an answer that does not mean done. OnError gets it as its cause: errors.As finds it there, to switch off,
// say, an endpoint that says 410.
type StatusError struct {
	Method, Host string
	Response

	redact *redactor
}

// Error has the status and the beginning of the answer's body, without what the request's URL and headers hold: it is stored
// with the intent.
func (e *StatusError) Error() string {
	said := strings.Join(strings.FieldsFunc(strings.ToValidUTF8(string(e.Body), "\uFFFD"), func(r rune) bool { return r <= ' ' || r == 0x7f }), " ")
	said = bounded(e.redact.text(said, e.Truncated))
	text := fmt.Sprintf("webhook: %s %s answered %d %s", e.Method, e.Host, e.Status, http.StatusText(e.Status))
	if e.Status/100 == 3 {
		text += ", and redirects are not followed"
	}
	if said != "" {
		text += ": " + said
	}
	return text
}

// bounded is the beginning of a text.
func bounded(s string) string {
	const most = 300
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// RetryAfter is what the answer asks for: package workers does not begin the next attempt before.
func (e *StatusError) RetryAfter() time.Duration { return workers.RetryAfterHeader(e.Header) }
