package devstack

import (
	"context"
	"errors"
	"net/url"
	"os"
	"sync"
)

// Service is one server in a Report.
type Service struct {
	Name    string `json:"name"`              // postgres or rabbitmq
	Address string `json:"address,omitempty"` // host:port
	PID     int    `json:"pid,omitempty"`     // 0 unless a private process
	Answers bool   `json:"answers"`
	Problem string `json:"problem,omitempty"` // why it does not answer
}

// Report is what Inspect found.
type Report struct {
	Running     bool      `json:"running"` // both servers answer
	Source      Source    `json:"source,omitempty"`
	Dir         string    `json:"dir,omitempty"`
	Logs        string    `json:"logs,omitempty"`
	DatabaseURL string    `json:"database_url,omitempty"` // its password is hidden for SourceEnvironment
	AMQPURL     string    `json:"amqp_url,omitempty"`     // likewise
	Services    []Service `json:"services"`
}

// Inspect looks at the stack that Up would use, without starting anything or
// waiting for the lock, so it also works while Up is busy. It blocks for a few
// seconds at most. A stack that does not run is no error; half an environment is.
func Inspect(ctx context.Context, o Options) (Report, error) {
	s, err := o.resolve()
	if err != nil {
		return Report{}, err
	}
	db, mq := s.getenv(databaseEnv), s.getenv(amqpEnv)
	if s.mode != ModePrivate && (db != "" || mq != "") {
		if db == "" || mq == "" {
			_, err := fromEnvironment(ctx, s)
			return Report{}, err
		}
		r := Report{Source: SourceEnvironment, DatabaseURL: redact(db), AMQPURL: redact(mq)}
		r.probe(ctx, db, mq, processes{})
		return r, nil
	}
	st, err := loadState(s.dir)
	if errors.Is(err, os.ErrNotExist) {
		return Report{Dir: s.dir, Services: []Service{}}, nil
	}
	if err != nil {
		return Report{}, err
	}
	r := Report{Source: st.Source, Dir: st.Dir, DatabaseURL: st.DatabaseURL, AMQPURL: st.AMQPURL}
	if st.Source == SourceProcesses {
		r.Logs = st.log("")
	}
	r.probe(ctx, st.DatabaseURL, st.AMQPURL, st.Processes)
	return r, nil
}

// probe asks both servers at once.
func (r *Report) probe(ctx context.Context, db, mq string, p processes) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	r.Services = []Service{{Name: "postgres"}, {Name: "rabbitmq"}}
	var wg sync.WaitGroup
	ask := func(s *Service, rawURL string, p process, ping func(context.Context, string) error) {
		if p.alive() {
			s.PID = p.PID
		}
		if rawURL == "" {
			s.Problem = "its start was never finished"
			return
		}
		s.Address = address(rawURL)
		wg.Go(func() {
			err := ping(ctx, rawURL)
			if s.Answers = err == nil; err != nil {
				s.Problem = err.Error()
			}
		})
	}
	ask(&r.Services[0], db, p.Postgres, pingPostgres)
	ask(&r.Services[1], mq, p.Broker, pingBroker)
	wg.Wait()
	r.Running = r.Services[0].Answers && r.Services[1].Answers
}

// redact hides a URL's password, and all of what is not a URL.
func redact(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil || u.Host == "" {
		return "(hidden)"
	}
	if q := u.Query(); q.Has("password") {
		q.Set("password", "xxxxx")
		u.RawQuery = q.Encode()
	}
	return u.Redacted()
}
