package matrix

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"github.com/google/uuid"
)

// entry is what a handler tells the outside.
type entry struct {
	ID     uuid.UUID `json:"id"`
	Epoch  int       `json:"epoch"`
	Worker uuid.UUID `json:"worker"`
}

// What a handler tells: that it began, and that it touched the outside world.
const (
	started  = "start"
	effected = "effect"
)

// recorder is the outside world as a handler sees it.
type recorder interface {
	record(ctx context.Context, what string, e entry) error
	hold(ctx context.Context) error // blocks until the outside world lets it go on
}

// ledger is the outside world: it writes down what handlers tell, whatever becomes of their processes.
type ledger struct {
	url     string
	claimed func(entry) bool // whether the database has a committed claim of the same three

	mu        sync.Mutex
	entries   map[string][]entry
	asked     map[string]int // probes, by intent
	unclaimed []entry        // told before their claim was committed
	released  chan struct{}
	once      sync.Once
}

func newLedger(t *testing.T, claimed func(entry) bool) *ledger {
	l := &ledger{claimed: claimed, entries: map[string][]entry{}, asked: map[string]int{}, released: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /record/{what}", func(w http.ResponseWriter, r *http.Request) {
		var e entry
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		l.note(r.PathValue("what"), e)
	})
	mux.HandleFunc("POST /hold", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-l.released:
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("POST /hook/{word}", l.hook)
	mux.HandleFunc("POST /asked/{id}", func(_ http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.asked[r.PathValue("id")]++
	})
	mux.HandleFunc("POST /effects/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, err := uuid.Parse(r.PathValue("id"))
		if err != nil || len(l.of(effected, id)) == 0 {
			http.NotFound(w, r)
		}
	})
	server := httptest.NewServer(mux)
	l.url = server.URL
	t.Cleanup(server.Close)
	t.Cleanup(l.release)
	return l
}

func (l *ledger) note(what string, e entry) {
	claimed := l.claimed(e)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries[what] = append(l.entries[what], e)
	if !claimed {
		l.unclaimed = append(l.unclaimed, e)
	}
}

// release lets all go on that hold, now and later.
func (l *ledger) release() { l.once.Do(func() { close(l.released) }) }

// of returns what was told of an intent.
func (l *ledger) of(what string, id uuid.UUID) []entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.entries[what]), func(e entry) bool { return e.ID != id })
}

func (l *ledger) early() []entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.unclaimed)
}

// outside speaks to a ledger over HTTP.
type outside struct {
	url    string
	client *http.Client
}

func (o outside) record(ctx context.Context, what string, e entry) error {
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return o.post(ctx, "/record/"+what, body)
}

func (o outside) hold(ctx context.Context) error { return o.post(ctx, "/hold", nil) }

func (o outside) post(ctx context.Context, path string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := o.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the ledger says %s", res.Status)
	}
	return nil
}
