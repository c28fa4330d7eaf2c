package webhook

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// hidden stands where something was taken out.
const hidden = "[…]"

// What is shorter is a word like «hooks», and no secret.
const (
	fewestSegment = 8
	fewestValue   = 4
)

// redactor takes out of a text what a request holds that may be a credential: errors are stored, and shown to many, and other
// sides like to repeat what they were asked.
type redactor struct{ parts []string } // the longest first

func newRedactor(r *http.Request, own http.Header) *redactor {
	var d redactor
	add := func(fewest int, parts ...string) {
		for _, p := range parts {
			if len(p) >= fewest {
				d.parts = append(d.parts, p)
			}
		}
	}
	add(2, r.URL.RequestURI(), r.URL.EscapedPath(), r.URL.Path)
	for segment := range strings.SplitSeq(r.URL.EscapedPath(), "/") {
		plain, _ := url.PathUnescape(segment)
		add(fewestSegment, segment, plain)
	}
	add(fewestValue, r.URL.RawQuery, r.URL.Fragment)
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		_, value, _ := strings.Cut(pair, "=")
		plain, _ := url.QueryUnescape(value)
		add(fewestValue, value, plain)
	}
	if u := r.URL.User; u != nil { // a key may stand there as a name, without a password
		password, _ := u.Password()
		name, escaped, _ := strings.Cut(u.String(), ":")
		add(1, u.Username(), password, name, escaped, base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password))) // as net/http sends it
	}
	for name, values := range own {
		if name := http.CanonicalHeaderKey(name); name == "Content-Type" || name == "Accept" {
			continue
		}
		for _, value := range values {
			scheme, credentials, _ := strings.Cut(value, " ") // Bearer …
			add(fewestValue, value, credentials)
			if plain, err := base64.StdEncoding.DecodeString(credentials); err == nil && strings.EqualFold(scheme, "Basic") {
				user, password, _ := strings.Cut(string(plain), ":")
				add(fewestValue, user, password)
			}
			add(fewestSegment, strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(`;,=" `, r) })...) // Cookie: …
		}
	}
	slices.SortFunc(d.parts, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return &d
}

// text is s without what may be a credential, in whatever case. Where s was cut off, its end may be the beginning of one.
func (d *redactor) text(s string, cutOff bool) string {
	if d == nil || len(d.parts) == 0 {
		return s
	}
	var quoted []string
	for _, p := range d.parts {
		for _, spelled := range spellings(p) {
			quoted = append(quoted, regexp.QuoteMeta(spelled))
		}
	}
	s = regexp.MustCompile("(?i)"+strings.Join(quoted, "|")).ReplaceAllLiteralString(s, hidden)
	if cutOff {
		for _, p := range d.parts {
			for n := min(len(p), len(s)); n > 1; n-- {
				if strings.EqualFold(s[len(s)-n:], p[:n]) {
					return s[:len(s)-n] + hidden
				}
			}
		}
	}
	return s
}

// spellings are a part as it is, and as answers in JSON, HTML or a URL write it.
func spellings(part string) []string {
	all := []string{part, html.EscapeString(part), url.QueryEscape(part), url.PathEscape(part)}
	if escaped, err := json.Marshal(part); err == nil {
		inner := string(escaped[1 : len(escaped)-1])
		all = append(all, inner, strings.ReplaceAll(inner, "/", `\/`))
	}
	all = append(all, strings.ReplaceAll(part, "/", `\/`))
	slices.SortFunc(all, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return slices.Compact(all)
}

// redactedError is an error with another text.
type redactedError struct {
	error
	text string
}

func (e *redactedError) Error() string { return e.text }
func (e *redactedError) Unwrap() error { return e.error }
