package ledger_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/writhq/writ/internal/proof/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serve(t *testing.T, cfg ledger.Config) (*ledger.Server, ledger.Client) {
	t.Helper()
	s, err := ledger.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s)
	transport := &http.Transport{}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		server.Close()
	})
	return s, ledger.Client{URL: server.URL, HTTP: &http.Client{Transport: transport}}
}

// TestBehaviours: each answer is what it says, and a certain answer is true.
func TestBehaviours(t *testing.T) {
	t.Parallel()
	var killed atomic.Int32
	s, client := serve(t, ledger.Config{
		Plan: ledger.Plan{Late: 10 * time.Millisecond},
		Kill: func(int) error { killed.Add(1); return nil },
	})
	anything := errors.New("anything")
	for _, tt := range []struct {
		behaviour ledger.Behaviour
		says      error
		recorded  bool
		kills     int32
	}{
		{ledger.Done, nil, true, 0},
		{ledger.LateAnswer, nil, true, 0},
		{ledger.LateEffect, nil, true, 0},
		{ledger.Refused, ledger.ErrRefused, false, 0},
		{ledger.Rejected, ledger.ErrRejected, false, 0},
		{ledger.Busy, ledger.ErrBusy, false, 0},
		{ledger.WrongAfter, anything, true, 0},
		{ledger.WrongBefore, anything, false, 0},
		{ledger.Twice, anything, true, 0},
		{ledger.NeverAfter, context.DeadlineExceeded, true, 0},
		{ledger.NeverBefore, context.DeadlineExceeded, false, 0},
		{ledger.KillAfter, anything, true, 1},
		{ledger.KillBefore, anything, false, 1},
	} {
		id := uuid.New()
		before := killed.Load()
		s.Wish(id, tt.behaviour)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		if errors.Is(tt.says, context.DeadlineExceeded) {
			ctx, cancel = context.WithTimeout(context.Background(), 100*time.Millisecond)
		}
		err := client.Do(ctx, ledger.Call{ID: id, Epoch: 1})
		cancel()
		switch {
		case tt.says == nil && err != nil, tt.says != nil && err == nil, tt.says != anything && !errors.Is(err, tt.says):
			t.Errorf("%s: it says %v; want %v", tt.behaviour, err, tt.says)
		}
		visits, err := client.Visits(context.Background(), id)
		if err != nil || len(visits) != 1 {
			t.Fatalf("%s: visits %v, %v", tt.behaviour, visits, err)
		}
		if got := visits[0].Recorded != nil; got != tt.recorded || visits[0].PID != os.Getpid() || visits[0].Behaviour != tt.behaviour {
			t.Errorf("%s: visit %+v; want recorded %v", tt.behaviour, visits[0], tt.recorded)
		}
		if n := killed.Load() - before; n != tt.kills {
			t.Errorf("%s: %d kills; want %d", tt.behaviour, n, tt.kills)
		}
	}
}

// TestLateEffect: it lands though its client has gone, and not after settle.
func TestLateEffect(t *testing.T) {
	t.Parallel()
	s, client := serve(t, ledger.Config{Plan: ledger.Plan{Late: time.Hour}})
	id := uuid.New()
	s.Wish(id, ledger.LateEffect)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	settled := time.Now().Add(time.Second)
	if err := client.Do(ctx, ledger.Call{ID: id, Epoch: 1, Settled: settled}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("it says %v; want nothing in time", err)
	}
	for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
		visits := s.Visits()
		if visits[0].Recorded != nil {
			if !visits[0].Recorded.Before(settled) {
				t.Errorf("it landed at %v, after %v", visits[0].Recorded, settled)
			}
			tick.Stop()
			return
		}
		if time.Now().After(settled.Add(5 * time.Second)) {
			t.Fatal("it never landed")
		}
	}
}

// TestPlan: the same seed draws the same, and about as often as planned.
func TestPlan(t *testing.T) {
	t.Parallel()
	s, client := serve(t, ledger.Config{})
	plan := ledger.Plan{Seed: 7, PerMille: map[ledger.Behaviour]int{ledger.Refused: 300, ledger.WrongAfter: 200}}
	if err := client.Replan(context.Background(), plan); err != nil {
		t.Fatal(err)
	}
	if err := client.Replan(context.Background(), ledger.Plan{PerMille: map[ledger.Behaviour]int{"lies": 1}}); err == nil {
		t.Error("a behaviour that is not one was taken")
	}
	counts := map[ledger.Behaviour]int{}
	for n := range 400 {
		id := uuid.NewSHA1(uuid.Nil, []byte{byte(n), byte(n >> 8)})
		for range 2 {
			_ = client.Do(context.Background(), ledger.Call{ID: id, Epoch: 1}) // refused or not
		}
	}
	visits := s.Visits()
	for n := 0; n < len(visits); n += 2 {
		if visits[n].Behaviour != visits[n+1].Behaviour {
			t.Fatalf("the same call was treated as %s and %s", visits[n].Behaviour, visits[n+1].Behaviour)
		}
		counts[visits[n].Behaviour]++
	}
	if counts[ledger.Refused] < 80 || counts[ledger.Refused] > 160 || counts[ledger.WrongAfter] < 50 || counts[ledger.WrongAfter] > 110 {
		t.Errorf("of 400: %v; want about 120 refused, 80 wrong-after", counts)
	}
}

// TestFile: what was answered is in the file, and a witness is heard.
func TestFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	_, client := serve(t, ledger.Config{
		Path: path, Plan: ledger.Plan{Witness: 1000},
		Witness: func(ledger.Call) ledger.Claim { return ledger.Missing },
	})
	call := ledger.Call{ID: uuid.New(), Key: "k", Kind: "a.b.c", Epoch: 3, Worker: uuid.New()}
	if err := client.Do(context.Background(), call); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var last ledger.Visit
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if err := json.Unmarshal(lines.Bytes(), &last); err != nil {
			t.Fatal(err)
		}
	}
	if last.Recorded == nil || last.Claim != ledger.Missing || last.ID != call.ID || last.Epoch != 3 || last.Worker != call.Worker {
		t.Errorf("the file ends with %+v", last)
	}
}
