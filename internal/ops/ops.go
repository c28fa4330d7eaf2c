// Package ops serves what watches a Writ process: /livez, /readyz and /metrics.
package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Check says what keeps a part from its work, or nil.
type Check func() error

// Handler serves the three endpoints. /livez answers as long as the process does. /readyz is 503 only if Postgres does
// not answer: creation survives everything else, which it lists as degraded.
func Handler(pool *pgxpool.Pool, registry *prometheus.Registry, parts []Check) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		answer := readiness{Status: "ok"}
		for _, part := range parts {
			if err := part(); err != nil {
				answer.Status = "degraded"
				answer.Problems = append(answer.Problems, err.Error())
			}
		}
		code := http.StatusOK
		if err := pool.Ping(ctx); err != nil {
			answer.Status, code = "down", http.StatusServiceUnavailable
			answer.Problems = append(answer.Problems, "postgres does not answer") // its error may hold names and hosts
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(answer) // the client may be gone
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}

type readiness struct {
	Status   string   `json:"status"` // ok, degraded or down
	Problems []string `json:"problems,omitempty"`
}

// Serve listens on addr until ctx is cancelled, then finishes what is being answered and returns nil.
func Serve(ctx context.Context, addr string, handler http.Handler, log *slog.Logger) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen for /livez, /readyz and /metrics: %w", err)
	}
	log.Info("serving /livez, /readyz and /metrics", "address", listener.Addr().String())
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	err = server.Shutdown(closing)
	if served := <-served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
