//go:build drill

package drills

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writhq/writ/dispatch"
	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/reconciler"
	"github.com/writhq/writ/workers"
)

// effect is the arguments of the drills' kinds.
type effect struct {
	N     int `json:"n"`
	Sleep int `json:"sleep"` // milliseconds, after the effect
}

var (
	manual     = intent.Kind[effect]{Name: "drill.effect.post", Queue: "drill", Timeout: 2 * time.Minute}
	repeatable = intent.Kind[effect]{Name: "drill.effect.repeat", Queue: "drill", Timeout: 2 * time.Minute, Idempotent: true}
	slow       = intent.Kind[effect]{Name: "drill.effect.crawl", Timeout: 5 * time.Minute}
)

// play is what a child process does.
func play(role string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	var err error
	switch role {
	case "ledger":
		err = playLedger(ctx)
	case "worker":
		err = playWorker(ctx, log)
	case "both":
		err = playBoth(ctx, log)
	case "subscriber":
		err = playSubscriber(ctx, log)
	case "relay", "reconciler":
		err = playEngine(ctx, role, log)
	default:
		err = fmt.Errorf("no role %q", role)
	}
	if err != nil {
		log.Error("drill process ended", "role", role, "error", err)
		return 1
	}
	return 0
}

func connect(ctx context.Context) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		return nil, err
	}
	config.MaxConns = 8
	return pgxpool.NewWithConfig(ctx, config)
}

func playWorker(ctx context.Context, log *slog.Logger) error {
	pool, err := connect(context.Background())
	if err != nil {
		return err
	}
	defer pool.Close()
	mux := workers.NewMux()
	handler := workers.Handler[effect]{Do: post}
	workers.Handle(mux, manual, handler)
	workers.Handle(mux, repeatable, handler)
	workers.Handle(mux, slow, handler)
	w, err := workers.New(pool, os.Getenv("AMQP_URL"), mux, workers.Config{Log: log})
	if err != nil {
		return err
	}
	fmt.Println(w.ID())
	return w.Run(ctx)
}

// toLedger keeps a connection for each slot.
var toLedger = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 128}}

// post tells the ledger, then sleeps as asked: a worker killed meanwhile has done it and not written it down.
func post(ctx context.Context, job *workers.Job[effect]) error {
	body, err := json.Marshal(entry{Key: job.Key(), Epoch: job.Epoch(), Worker: job.WorkerID().String()})
	if err != nil {
		return workers.Stop(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, os.Getenv("LEDGER_URL"), bytes.NewReader(body))
	if err != nil {
		return workers.Stop(err)
	}
	res, err := toLedger.Do(req)
	if err != nil {
		return workers.NotReached(err)
	}
	res.Body.Close()
	if job.Args.Sleep > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(job.Args.Sleep) * time.Millisecond):
		}
	}
	return nil
}

func playEngine(ctx context.Context, role string, log *slog.Logger) error {
	pool, err := connect(context.Background())
	if err != nil {
		return err
	}
	defer pool.Close()
	fmt.Println("ready")
	if role == "relay" {
		relay, err := dispatch.New(pool, os.Getenv("AMQP_URL"), dispatch.Config{Log: log})
		if err != nil {
			return err
		}
		return relay.Run(ctx)
	}
	after, err := time.ParseDuration(os.Getenv("REQUEUE_AFTER"))
	if err != nil {
		return err
	}
	r, err := reconciler.New(pool, reconciler.Config{Log: log, RequeueAfter: after})
	if err != nil {
		return err
	}
	return r.Run(ctx)
}

// entry is an effect as the ledger saw it.
type entry struct {
	Key    string    `json:"key"`
	Epoch  int       `json:"epoch"`
	Worker string    `json:"worker"`
	At     time.Time `json:"at"`
}

// playLedger is the outside world: it writes down every effect, and is asked for all of them in the end.
func playLedger(ctx context.Context) error {
	var mu sync.Mutex
	var entries []entry
	mux := http.NewServeMux()
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		var e entry
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		e.At = time.Now()
		mu.Lock()
		entries = append(entries, e)
		mu.Unlock()
	})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_ = json.NewEncoder(w).Encode(entries)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("http://127.0.0.1:" + strconv.Itoa(listener.Addr().(*net.TCPAddr).Port) + "/")
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { <-ctx.Done(); _ = server.Close() }()
	if err := server.Serve(listener); ctx.Err() == nil {
		return err
	}
	return nil
}
