package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// The certain answers that nothing happened. Any other error of [Client.Do] leaves it open.
var (
	ErrRefused  = errors.New("the ledger says: not done")
	ErrRejected = errors.New("the ledger says: not done, and it is of no use")
	ErrBusy     = errors.New("the ledger says: not done, not now")
)

// Client speaks with a ledger. It is safe for concurrent use.
type Client struct {
	URL  string       // of the ledger, like http://127.0.0.1:4711
	HTTP *http.Client // default: http.DefaultClient
}

// Do makes one call. It is sent once: the client of net/http repeats a POST only if nothing of it was written.
func (c Client) Do(ctx context.Context, call Call) error {
	res, err := c.send(ctx, http.MethodPost, "/", call)
	if err != nil {
		return err
	}
	defer drop(res)
	switch res.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusConflict:
		return ErrRefused
	case http.StatusGone:
		return ErrRejected
	case http.StatusTooManyRequests:
		return ErrBusy
	}
	return fmt.Errorf("the ledger answers %s", res.Status)
}

// Visits returns what the ledger saw of one intent.
func (c Client) Visits(ctx context.Context, id uuid.UUID) ([]Visit, error) {
	return c.visits(ctx, "/"+id.String())
}

// All returns all that it saw.
func (c Client) All(ctx context.Context) ([]Visit, error) { return c.visits(ctx, "/") }

func (c Client) visits(ctx context.Context, path string) (visits []Visit, err error) {
	res, err := c.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	defer drop(res)
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the ledger answers %s", res.Status)
	}
	if err := json.NewDecoder(res.Body).Decode(&visits); err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	return visits, nil
}

// Replan sets another plan.
func (c Client) Replan(ctx context.Context, p Plan) error { return c.put(ctx, "/plan", p) }

// Wish sets the behaviours of the next calls of an intent.
func (c Client) Wish(ctx context.Context, id uuid.UUID, behaviours ...Behaviour) error {
	return c.put(ctx, "/plan/"+id.String(), behaviours)
}

func (c Client) put(ctx context.Context, path string, body any) error {
	res, err := c.send(ctx, http.MethodPut, path, body)
	if err != nil {
		return err
	}
	defer drop(res)
	if res.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(res.Body, 1000))
		return fmt.Errorf("the ledger answers %s: %s", res.Status, why)
	}
	return nil
}

func (c Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.URL, "/")+path, content)
	if err != nil {
		return nil, err
	}
	req.Header.Set(header, strconv.Itoa(os.Getpid()))
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	return client.Do(req)
}

// drop reads what is left, so that the connection can be used again.
func drop(res *http.Response) {
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	res.Body.Close()
}
