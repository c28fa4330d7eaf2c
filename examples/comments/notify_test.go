package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/writhq/writ"
	"github.com/writhq/writ/examples/comments/mailserver"
	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/testkit"
	"github.com/writhq/writ/workers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// setup returns the application on a database of its own.
func setup(t *testing.T) (*App, *testkit.DB) {
	t.Helper()
	db := testkit.Database(t)
	db.Run(t, schema)
	return &App{db: db.Pool, log: testkit.Log(t)}, db
}

// post sends a comment over HTTP and returns the status and what was stored.
func post(t *testing.T, app *App, c Comment) (int, Comment) {
	t.Helper()
	body, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	app.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/comments", bytes.NewReader(body)))
	if w.Code == http.StatusCreated {
		if err := json.Unmarshal(w.Body.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
	}
	return w.Code, c
}

func TestPost(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		comment Comment
		status  int
		rows    int
	}{
		{"StoresBoth", Comment{Post: 1, Author: "Ann", Text: "hello"}, http.StatusCreated, 1},
		{"StoresNeitherWhenRolledBack", Comment{Post: 1, Author: "Ann", Text: "see casino.example"}, http.StatusUnprocessableEntity, 0},
		{"StoresNeitherWithoutPost", Comment{Post: 99, Author: "Ann", Text: "hello"}, http.StatusNotFound, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			app, db := setup(t)
			status, _ := post(t, app, tt.comment)
			comments := testkit.Value[int](t, db, "SELECT count(*) FROM comments")
			intents := testkit.Value[int](t, db, "SELECT count(*) FROM writ.intents")
			hints := testkit.Value[int](t, db, "SELECT count(*) FROM writ.outbox")
			if status != tt.status || comments != tt.rows || intents != tt.rows || hints != tt.rows {
				t.Errorf("got HTTP %d, %d comments, %d intents, %d hints; want HTTP %d and %d of each", status, comments, intents, hints, tt.status, tt.rows)
			}
		})
	}
}

func TestShow(t *testing.T) {
	t.Parallel()
	app, _ := setup(t)
	_, c := post(t, app, Comment{Post: 1, Author: "Ann", Text: "hello"})
	for path, want := range map[string]int{"/comments/1": http.StatusOK, "/comments/2": http.StatusNotFound, "/comments/x": http.StatusBadRequest} {
		w := httptest.NewRecorder()
		app.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != want || want == http.StatusOK && !strings.Contains(w.Body.String(), c.Intent.String()) {
			t.Errorf("GET %s: %d %s; want %d", path, w.Code, w.Body, want)
		}
	}
}

// mailServer runs the real SMTP server and returns how to give it orders.
func mailServer(t *testing.T, dir string, first mailserver.Order) (addr string, order func(mailserver.Order)) {
	t.Helper()
	box, err := mailserver.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := mailserver.New(box)
	order = func(o mailserver.Order) {
		raw, err := json.Marshal(o)
		if err := errors.Join(err, server.Order(raw)); err != nil {
			t.Fatal(err)
		}
	}
	order(first)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-served, box.Close()); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String(), order
}

// begin runs Writ with the notifier until the test ends.
func begin(t *testing.T, db *testkit.DB, addr string) {
	t.Helper()
	mux := workers.NewMux()
	handler, err := (&Notifier{db: db.Pool, server: addr}).Handler()
	if err != nil {
		t.Fatal(err)
	}
	workers.Handle(mux, Notify, handler)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- writ.Run(ctx, db.Pool, testkit.AMQPURL(t), mux, writ.Config{Log: testkit.Log(t)}) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func await(t *testing.T, db *testkit.DB, id intent.ID, what string, ok func(intent.Intent) bool) {
	t.Helper()
	testkit.Until(t, time.Minute, what, func() (bool, string) {
		i, err := intent.Get(context.Background(), db, id)
		if err != nil {
			t.Fatal(err)
		}
		seen := i.Status
		if i.Error != nil {
			seen += ": " + *i.Error
		}
		return ok(i), seen
	})
}

func stored(t *testing.T, dir string) (keys []string) {
	t.Helper()
	entries, err := mailserver.ReadLog(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		keys = append(keys, e.Key)
	}
	return keys
}

// TestNotify: what the mail server says decides what becomes of the intent.
func TestNotify(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		order   mailserver.Order
		status  string
		retried bool // before that it is tried again until the server behaves
		mails   int
	}{
		{"SentWhenAccepted", mailserver.Order{}, "sent", false, 1},
		{"StopsAt550", mailserver.Order{Refuse: "author1@blog.example"}, "error", false, 0},
		{"StopsAt550AfterTheText", mailserver.Order{Mode: mailserver.Reject}, "error", false, 0},
		{"RetriedAt451", mailserver.Order{Mode: mailserver.Later}, "sent", true, 1},
		{"RetriedAt451AfterTheText", mailserver.Order{Mode: mailserver.Busy}, "sent", true, 1},
		{"AmbiguousWhenCutAfterTheText", mailserver.Order{Mode: mailserver.Greedy}, "ambiguous", false, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			app, db := setup(t)
			dir := t.TempDir()
			addr, order := mailServer(t, dir, tt.order)
			_, c := post(t, app, Comment{Post: 1, Author: "Ann", Text: "hello"})
			begin(t, db, addr)
			if tt.retried {
				await(t, db, c.Intent, "tried again", func(i intent.Intent) bool { return i.Attempt > 1 && strings.Contains(*i.Error, "451") })
				order(mailserver.Order{})
			}
			await(t, db, c.Intent, "is "+tt.status, func(i intent.Intent) bool { return i.Status == tt.status })
			if keys := stored(t, dir); len(keys) != tt.mails || tt.mails == 1 && keys[0] != c.Intent.String() {
				t.Errorf("mails %v; want %d with the intent's key", keys, tt.mails)
			}
			if got := testkit.Value[int](t, db, "SELECT count(notified_at) FROM comments"); (got == 1) != (tt.status == "sent") {
				t.Errorf("%d receipts for a mail that is %s", got, tt.status)
			}
		})
	}
}

// TestNotify_NotReached: a server that refuses the connection has surely not taken the mail.
func TestNotify_NotReached(t *testing.T) {
	t.Parallel()
	app, db := setup(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	_, c := post(t, app, Comment{Post: 1, Author: "Ann", Text: "hello"})
	begin(t, db, addr)
	await(t, db, c.Intent, "tried again", func(i intent.Intent) bool {
		if i.Status == "ambiguous" {
			t.Fatal("a refused connection left it ambiguous")
		}
		return i.Attempt > 1 && strings.Contains(*i.Error, "refused")
	})
}

// TestMessage: names and texts come from strangers.
func TestMessage(t *testing.T) {
	t.Parallel()
	for line := range bytes.Lines(samples) {
		var p posted
		if err := json.Unmarshal(line, &p.Comment); err != nil {
			t.Fatal(err)
		}
		p.Title, p.To = "A title", "author@blog.example"
		msg, err := message(p)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		msg.SetMessageIDWithValue("k1@comments.example")
		var raw bytes.Buffer
		if _, err := msg.WriteTo(&raw); err != nil {
			t.Fatal(err)
		}
		got, err := mail.ReadMessage(&raw)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if got.Header.Get("Bcc") != "" || len(got.Header["Subject"]) != 1 || got.Header.Get("Message-Id") != "<k1@comments.example>" {
			t.Errorf("%s: headers %v", line, got.Header)
		}
	}
}
