package proof

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writhq/writ/internal/proof/ledger"
)

// For ordinary tests: a proof of what a test did, in a few calls.

// SwitchOnHistory makes a test's database keep its history.
func SwitchOnHistory(t testing.TB, db DB) {
	t.Helper()
	if err := SwitchOn(context.Background(), db); err != nil {
		t.Fatal(err)
	}
}

// NewLedger serves a ledger from the test's own process until the test ends; the processes that are killed are others.
// Beware of the behaviours that kill: a handler that runs in the test's process has the test's process id.
func NewLedger(t testing.TB, cfg ledger.Config) (*ledger.Server, ledger.Client) {
	t.Helper()
	s, err := ledger.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s)
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		server.Close()
	})
	return s, ledger.Client{URL: server.URL, HTTP: &http.Client{Transport: transport}}
}

// NewJournal returns a journal in the test's directory, and its path, which other processes may open, too.
func NewJournal[T any](t testing.TB, name string) (*Journal[T], string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	j, err := OpenJournal[T](path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j, path
}

// Verify gathers the database's part of the evidence, lets the test fill in the rest, and checks it. Each violation is an
// error of the test, with the whole story of its intent.
func Verify(t testing.TB, db DB, fill func(*Evidence)) Report {
	t.Helper()
	e, err := Gather(context.Background(), db)
	if err != nil {
		t.Fatal(err)
	}
	if fill != nil {
		fill(&e)
	}
	r := Check(e)
	t.Log(r.Line())
	if len(r.Violations) > 0 {
		var text strings.Builder
		r.Print(&text, 10)
		t.Errorf("%v\n%s", r.Err(), text.String())
	}
	return r
}
