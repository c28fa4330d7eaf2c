// Package probe has ready-made probes for package workers: they ask an HTTP interface, a mail server's log, or a table of
// the application whether an attempt was carried out. All of them say WasNotDone only on a sign that was declared to mean
// that; whatever else they meet is CannotTell.
package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/writhq/writ/workers"
)

// HTTPConfig is a question to an HTTP interface.
type HTTPConfig[T any] struct {
	// URL to GET. {key} in it is replaced by the idempotency key, escaped for a query or a path. Either this or Request is
	// required.
	URL string

	// Request makes the request, where a URL is not enough. It must only read.
	Request func(ctx context.Context, a *workers.Attempt[T]) (*http.Request, error)

	// Header is added to each request, for credentials. It is never written down.
	Header http.Header

	// Rules map the answer to a finding. The first that fits counts; an answer that fits none is CannotTell. Required.
	Rules []Rule

	// MaxBody bounds how much of an answer is read, in bytes; a longer one fits no rule that has a Field. Default 64 KiB.
	MaxBody int64

	// Client sends the requests. Redirects are not followed by the default one, for the answer of another address is not the
	// answer to this question. Timeouts come from workers.Probing.
	Client *http.Client
}

// Rule is a line of the mapping from an answer to a finding.
type Rule struct {
	// Status of the answer. 0: any of 200 to 299.
	Status int
	// Field of the JSON body, as a path like data.0.status; # is the length of an array. Default: the body does not matter.
	Field string
	// Equals are the values of Field that fit, as they stand in JSON, strings without quotes: succeeded, true, 0, null.
	Equals []string
	// Is what it means: workers.WasDone, WasNotDone or CannotTell.
	Is workers.Finding
}

// HTTP returns a probe that asks an HTTP interface. Faults of the config are returned all at once. Beware of 404 as a sign
// of not done: a mistyped path answers it, too; better ask for a list, and demand that it is there and empty.
func HTTP[T any](cfg HTTPConfig[T]) (workers.Probe[T], error) {
	var faults []error
	if (cfg.URL == "") == (cfg.Request == nil) {
		faults = append(faults, errors.New("HTTPConfig needs either URL or Request"))
	}
	if cfg.URL != "" {
		u, err := url.Parse(strings.ReplaceAll(cfg.URL, "{key}", "key"))
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			faults = append(faults, errors.New("HTTPConfig.URL is not an absolute http or https URL"))
		}
		if !strings.Contains(cfg.URL, "{key}") {
			faults = append(faults, errors.New("HTTPConfig.URL has no {key}, so every attempt would get the same answer"))
		}
	}
	if len(cfg.Rules) == 0 {
		faults = append(faults, errors.New("HTTPConfig.Rules is empty, so nothing would ever be found"))
	}
	for n, r := range cfg.Rules {
		if (r.Field == "") != (len(r.Equals) == 0) || r.Status != 0 && (r.Status < 100 || r.Status > 599) {
			faults = append(faults, fmt.Errorf("HTTPConfig.Rules[%d]: Field and Equals come together, and Status is 0 or 100 to 599", n))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	if cfg.MaxBody <= 0 {
		cfg.MaxBody = 64 << 10
	}
	if cfg.Client == nil {
		cfg.Client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	return cfg.ask, nil
}

func (c HTTPConfig[T]) ask(ctx context.Context, a *workers.Attempt[T]) (workers.Answer, error) {
	req, err := c.request(ctx, a)
	if err != nil {
		return workers.Answer{}, err
	}
	began := time.Now()
	res, err := c.Client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL, which may hold a credential
		}
		return workers.Answer{}, fmt.Errorf("ask %s: %w", req.URL.Host, err)
	}
	defer res.Body.Close()
	evidence := map[string]any{"host": req.URL.Host, "path": req.URL.Path, "status": res.StatusCode}
	var body any
	raw, err := io.ReadAll(io.LimitReader(res.Body, c.MaxBody+1))
	switch {
	case err != nil:
		return workers.Answer{}, fmt.Errorf("read the answer of %s: %w", req.URL.Host, err)
	case int64(len(raw)) > c.MaxBody:
		evidence["body"] = fmt.Sprintf("over %d bytes", c.MaxBody)
	default:
		d := json.NewDecoder(strings.NewReader(string(raw)))
		d.UseNumber()
		if err := d.Decode(&body); err != nil || d.More() {
			body, evidence["body"] = nil, "not JSON"
		}
	}
	evidence["took"] = time.Since(began).String()
	for _, r := range c.Rules {
		if value, fits := r.fits(res.StatusCode, body); fits {
			what := fmt.Sprintf("%s answers %d", req.URL.Host, res.StatusCode)
			if r.Field != "" {
				what += fmt.Sprintf(", %s is %s", r.Field, value)
				evidence["field"], evidence["value"] = r.Field, value
			}
			return workers.Answer{Finding: r.Is, Why: what + " for key " + a.Key, Evidence: evidence}, nil
		}
	}
	return workers.Answer{Why: fmt.Sprintf("%s answers %d for key %s, which fits no rule", req.URL.Host, res.StatusCode, a.Key), Evidence: evidence}, nil
}

func (c HTTPConfig[T]) request(ctx context.Context, a *workers.Attempt[T]) (*http.Request, error) {
	var req *http.Request
	var err error
	if c.Request != nil {
		req, err = c.Request(ctx, a)
	} else {
		path, query, asks := strings.Cut(c.URL, "?")
		path = strings.ReplaceAll(path, "{key}", url.PathEscape(a.Key))
		if asks {
			path += "?" + strings.ReplaceAll(query, "{key}", url.QueryEscape(a.Key))
		}
		req, err = http.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	if req.Header == nil {
		req.Header = http.Header{}
	}
	maps.Copy(req.Header, c.Header)
	return req.WithContext(ctx), nil
}

// fits reports whether an answer fits the rule, and the field's value.
func (r Rule) fits(status int, body any) (value string, ok bool) {
	if r.Status != status && (r.Status != 0 || status < 200 || status > 299) {
		return "", false
	}
	if r.Field == "" {
		return "", true
	}
	value, ok = field(body, r.Field)
	if !ok {
		return "", false
	}
	if slices.Contains(r.Equals, value) {
		return value, true
	}
	return "", false
}

// field finds a scalar by its path.
func field(body any, path string) (value string, ok bool) {
	for part := range strings.SplitSeq(path, ".") {
		switch v := body.(type) {
		case map[string]any:
			if body, ok = v[part]; !ok {
				return "", false
			}
		case []any:
			if part == "#" {
				body = json.Number(strconv.Itoa(len(v)))
				continue
			}
			n, err := strconv.Atoi(part)
			if err != nil || n < 0 || n >= len(v) {
				return "", false
			}
			body = v[n]
		default:
			return "", false
		}
	}
	switch v := body.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		return strconv.FormatBool(v), true
	case nil:
		return "null", true
	}
	return "", false
}
