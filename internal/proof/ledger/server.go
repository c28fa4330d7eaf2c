package ledger

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
)

// Config of a ledger.
type Config struct {
	// Path of the file that each line is appended to before anybody is answered. Default: none, memory only.
	Path string
	Plan Plan
	// Witness is asked what the database says of a call's claim. It must be quick. Default: nobody is asked.
	Witness func(Call) Claim
	// Kill ends a client. Default: SIGKILL to the process.
	Kill func(pid int) error
}

// Server is the ledger. It is an http.Handler; its methods are safe for concurrent use.
//
//	POST /            a call
//	GET  /            all visits
//	GET  /{id}        the visits of one intent
//	PUT  /plan        another plan
//	PUT  /plan/{id}   the behaviours of the next calls of one intent, in order
type Server struct {
	http.Handler
	cfg  Config
	file *os.File
	gone chan struct{} // closed by Close: nobody waits any longer

	mu     sync.Mutex
	plan   Plan
	wishes map[uuid.UUID][]Behaviour
	visits []*Visit
	byID   map[uuid.UUID][]*Visit
	late   sync.WaitGroup
}

// New returns a ledger. The error tells of a bad plan or of the file.
func New(cfg Config) (*Server, error) {
	if err := cfg.Plan.check(); err != nil {
		return nil, err
	}
	if cfg.Kill == nil {
		cfg.Kill = func(pid int) error { return syscall.Kill(pid, syscall.SIGKILL) }
	}
	s := &Server{cfg: cfg, plan: cfg.Plan, gone: make(chan struct{}), wishes: map[uuid.UUID][]Behaviour{}, byID: map[uuid.UUID][]*Visit{}}
	if cfg.Path != "" {
		var err error
		if s.file, err = os.OpenFile(cfg.Path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			return nil, fmt.Errorf("ledger: %w", err)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{$}", s.call)
	mux.HandleFunc("GET /{$}", s.all)
	mux.HandleFunc("GET /{id}", s.one)
	mux.HandleFunc("PUT /plan", s.replan)
	mux.HandleFunc("PUT /plan/{id}", s.wish)
	s.Handler = mux
	return s, nil
}

// Close lets go of all that wait, waits for late effects, and closes the file.
func (s *Server) Close() error {
	close(s.gone)
	s.late.Wait()
	if s.file != nil {
		return s.file.Close()
	}
	return nil
}

// Wish sets the behaviours of the next calls of an intent, in order; then the plan goes on.
func (s *Server) Wish(id uuid.UUID, behaviours ...Behaviour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wishes[id] = behaviours
}

// Visits returns all that came, in the order of their coming.
func (s *Server) Visits() []Visit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return copies(s.visits)
}

func copies(visits []*Visit) []Visit {
	out := make([]Visit, len(visits))
	for i, v := range visits {
		out[i] = *v
	}
	return out
}

func (s *Server) call(w http.ResponseWriter, r *http.Request) {
	v := &Visit{At: time.Now()}
	if err := json.NewDecoder(r.Body).Decode(&v.Call); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	v.PID, _ = strconv.Atoi(r.Header.Get(header)) // none: nobody can be killed
	delay := s.enter(v)
	if v.Claim == NotAsked && s.cfg.Witness != nil && s.asks(v) {
		claim := s.cfg.Witness(v.Call)
		s.mu.Lock()
		v.Claim = claim
		s.mu.Unlock()
		s.write(v)
	}
	s.behave(w, r, v, delay)
}

// enter notes the visit and what is to be done with it.
func (s *Server) enter(v *Visit) (delay time.Duration) {
	s.mu.Lock()
	dice := s.plan.dice(v.ID, v.Epoch|v.Step<<32)
	v.Behaviour = s.plan.draw(dice)
	delay = s.plan.delay(dice)
	if wishes := s.wishes[v.ID]; len(wishes) > 0 {
		v.Behaviour, s.wishes[v.ID] = wishes[0], wishes[1:]
	}
	s.visits = append(s.visits, v)
	s.byID[v.ID] = append(s.byID[v.ID], v)
	s.mu.Unlock()
	s.write(v)
	return delay
}

// asks reports whether the database is to be asked about this call.
func (s *Server) asks(v *Visit) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.plan.dice(v.ID, -1-v.Epoch).IntN(1000) < s.plan.Witness
}

func (s *Server) behave(w http.ResponseWriter, r *http.Request, v *Visit, delay time.Duration) {
	switch v.Behaviour {
	case Done, LateAnswer, WrongAfter, Twice, NeverAfter, KillAfter:
		s.record(v)
	}
	switch v.Behaviour {
	case Refused:
		http.Error(w, "not done", http.StatusConflict)
	case Rejected:
		http.Error(w, "not done, and it is of no use", http.StatusGone)
	case Busy:
		http.Error(w, "not done, not now", http.StatusTooManyRequests)
	case WrongAfter, WrongBefore:
		http.Error(w, "something went wrong", http.StatusInternalServerError)
	case LateAnswer:
		s.wait(r, delay)
	case LateEffect:
		s.later(v, delay)
	case Twice:
		garble(w)
	case NeverAfter, NeverBefore:
		select {
		case <-r.Context().Done():
		case <-s.gone:
		}
		panic(http.ErrAbortHandler)
	case KillAfter, KillBefore:
		if v.PID > 1 {
			_ = s.cfg.Kill(v.PID) // gone already: as good
		}
		panic(http.ErrAbortHandler)
	}
}

func (s *Server) wait(r *http.Request, delay time.Duration) {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	case <-s.gone:
	}
}

// landing is how long before the end of settle a late effect lands at the latest.
const landing = 200 * time.Millisecond

// later lets the effect happen after a while, whether its client still waits or not.
func (s *Server) later(v *Visit, delay time.Duration) {
	if !v.Settled.IsZero() {
		delay = min(delay, time.Until(v.Settled)-landing)
	}
	if delay <= 0 {
		s.record(v)
		return
	}
	landed := make(chan struct{})
	s.late.Go(func() {
		defer close(landed)
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.gone:
		}
		s.record(v)
	})
	<-landed
}

func (s *Server) record(v *Visit) {
	now := time.Now()
	s.mu.Lock()
	v.Recorded = &now
	s.mu.Unlock()
	s.write(v)
}

// write appends the visit as it is now. A later line of the same visit replaces an earlier one.
func (s *Server) write(v *Visit) {
	if s.file == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	line, err := json.Marshal(v)
	if err == nil {
		_, err = s.file.Write(append(line, '\n'))
	}
	if err != nil {
		panic(fmt.Sprintf("ledger: it cannot write down what happened: %v", err)) // without it nothing is proved
	}
}

// garble answers twice, and neither answer can be read.
func garble(w http.ResponseWriter) {
	conn, buf, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer conn.Close()
	for range 2 {
		_, _ = buf.WriteString("HTTP/1.1 2oo OK\r\nContent-Length: -1\r\n\r\n{\"do")
	}
	_ = buf.Flush()
}

func (s *Server) all(w http.ResponseWriter, _ *http.Request) { reply(w, s.Visits()) }

func (s *Server) one(w http.ResponseWriter, r *http.Request) {
	id, err := uuid.Parse(r.PathValue("id"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	visits := copies(s.byID[id])
	s.mu.Unlock()
	reply(w, visits)
}

func reply(w http.ResponseWriter, visits []Visit) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(visits) // the client has gone: nobody is told
}

func (s *Server) replan(w http.ResponseWriter, r *http.Request) {
	var p Plan
	err := json.NewDecoder(r.Body).Decode(&p)
	if err == nil {
		err = p.check()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.plan = p
	s.mu.Unlock()
}

func (s *Server) wish(w http.ResponseWriter, r *http.Request) {
	var behaviours []Behaviour
	id, err := uuid.Parse(r.PathValue("id"))
	if err == nil {
		err = json.NewDecoder(r.Body).Decode(&behaviours)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.Wish(id, behaviours...)
}
