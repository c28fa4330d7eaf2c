package ops_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/writhq/writ/internal/ops"
	"github.com/writhq/writ/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server serves the endpoints for a database, with the given parts.
func server(t *testing.T, db *testkit.DB, parts ...ops.Check) *httptest.Server {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(ops.Collector(db.Pool))
	s := httptest.NewServer(ops.Handler(db.Pool, registry, parts))
	t.Cleanup(s.Close)
	return s
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func TestReadyz(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	well := func() error { return nil }
	ill := func() error { return errors.New("relay: broker: connection refused") }
	type answer struct {
		Status   string
		Problems []string
	}
	ready := func(s *httptest.Server) (int, answer) {
		code, body := get(t, s.URL+"/readyz")
		var a answer
		if err := json.Unmarshal([]byte(body), &a); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		return code, a
	}
	if code, a := ready(server(t, db, well)); code != 200 || a.Status != "ok" {
		t.Errorf("all well: %d %+v", code, a)
	}
	// Creation survives a broker outage: degraded, and still ready.
	if code, a := ready(server(t, db, well, ill)); code != 200 || a.Status != "degraded" || len(a.Problems) != 1 {
		t.Errorf("a broker outage: %d %+v", code, a)
	}
	gone := server(t, db)
	db.Close()
	db.Pool = nil
	if code, a := ready(gone); code != 503 || a.Status != "down" {
		t.Errorf("no database: %d %+v", code, a)
	}
	if code, body := get(t, gone.URL+"/livez"); code != 200 || body != "ok\n" {
		t.Errorf("livez without a database: %d %q", code, body)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t)
	s := server(t, db)
	db.Run(t, "INSERT INTO writ.intents (kind) SELECT 'test.metric.seen' FROM generate_series(1, 3)")
	db.Run(t, `UPDATE writ.intents SET state = 'sending', event = 'attempted', epoch = 1, started_at = now(), flagged_at = now() - interval '1 h', flag_reason = 'unknown'
		WHERE id = (SELECT id FROM writ.intents LIMIT 1)`)
	db.Run(t, "UPDATE writ.outbox SET due_at = now() - interval '90 s'")
	_, body := get(t, s.URL+"/metrics")
	for _, want := range []string{
		`writ_ambiguous 1`,
		`writ_open{kind="test.metric.seen",state="pending"} 2`,
		`writ_open{kind="test.metric.seen",state="ambiguous"} 1`,
		`writ_oldest_age_seconds{kind="test.metric.seen",state="ambiguous"} 36`,
		`writ_outbox_rows 3`,
		`writ_outbox_oldest_age_seconds 9`,
		`writ_scrape_ok 1`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %s:\n%s", want, body)
		}
	}
	db.Close()
	db.Pool = nil
	// A number that is not known is not shown as zero.
	if _, body := get(t, s.URL+"/metrics"); !strings.Contains(body, "writ_scrape_ok 0") || strings.Contains(body, "writ_ambiguous ") {
		t.Errorf("metrics without a database:\n%s", body)
	}
}

func TestServe(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- ops.Serve(ctx, "127.0.0.1:0", http.NotFoundHandler(), testkit.Log(t)) }()
	stop()
	select {
	case err := <-served:
		if err != nil {
			t.Errorf("Serve = %v after its context ended", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("Serve did not end with its context")
	}
	if err := ops.Serve(context.Background(), "127.0.0.1:-1", nil, testkit.Log(t)); err == nil {
		t.Error("a wrong address was accepted")
	}
}
