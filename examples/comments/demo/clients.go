package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/writhq/writ/intent"
)

// comment is one line of the input.
type comment struct {
	Post   int64  `json:"post"`
	Author string `json:"author"`
	Text   string `json:"text"`
}

// Posts with a role in the story, see schema.sql.
const (
	postGone = 21 // its author's address is refused
	postLast = 22 // over its mail the worker is killed
)

func parse(lines []byte) ([]comment, error) {
	var all []comment
	for d := json.NewDecoder(bytes.NewReader(lines)); ; {
		var c comment
		if err := d.Decode(&c); err == io.EOF {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("comment %d: %w", len(all)+1, err)
		}
		all = append(all, c)
	}
}

// posting is what the application answered to a comment.
type posting struct {
	comment
	act    int
	Status int       // HTTP
	ID     int64     // of the comment, if it was stored
	Intent intent.ID // of its mail
}

// clients is how many readers post at once.
const clients = 4

// post sends comments to the application as several clients at once, and notes the answers.
func (d *director) post(ctx context.Context, comments []comment) error {
	work := make(chan comment)
	var mu sync.Mutex
	var failed error
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for c := range work {
				p, err := d.postOne(ctx, c)
				mu.Lock()
				if err != nil && failed == nil {
					failed = err
				}
				d.postings = append(d.postings, p)
				mu.Unlock()
			}
		})
	}
	for i, c := range comments {
		d.say.live("%d of %d comments posted", i, len(comments))
		work <- c // after a failure the others fail fast or are done
	}
	close(work)
	wg.Wait()
	d.say.live("")
	return failed
}

func (d *director) postOne(ctx context.Context, c comment) (posting, error) {
	p := posting{comment: c, act: len(d.acts) - 1}
	body, err := json.Marshal(c)
	if err != nil {
		return p, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.web.ready+"/comments", bytes.NewReader(body))
	if err != nil {
		return p, err
	}
	resp, err := (&http.Client{Timeout: patience}).Do(req)
	if err != nil {
		return p, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return p, err
	}
	switch p.Status = resp.StatusCode; p.Status {
	case http.StatusCreated:
		return p, json.Unmarshal(answer, &p)
	case http.StatusUnprocessableEntity:
		return p, nil
	}
	return p, fmt.Errorf("POST /comments: %s: %s", resp.Status, strings.TrimSpace(string(answer)))
}
