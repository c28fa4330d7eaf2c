package devstack

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// The entries of a stack's directory.
const (
	stateFile   = "stack.json"
	lockFile    = "lock"
	logDir      = "logs"
	postgresDir = "postgres"
	rabbitDir   = "rabbitmq"
)

// stateVersion is raised when an older binary could misread the file.
const stateVersion = 1

// state is stack.json. It is written before the first thing it describes exists,
// so that whatever a crash leaves behind can be found from it.
type state struct {
	Version     int       `json:"version"`
	ID          string    `json:"id"` // marks every server's environment, see markerEnv
	Source      Source    `json:"source"`
	Dir         string    `json:"dir"`
	DatabaseURL string    `json:"database_url"`
	AMQPURL     string    `json:"amqp_url"`
	BootID      string    `json:"boot_id"` // pids are meaningless after a reboot
	ComposeFile string    `json:"compose_file,omitempty"`
	PostgresDir string    `json:"postgres_dir,omitempty"` // outside Dir if the postgres user cannot reach that
	Password    string    `json:"password,omitempty"`
	Ports       ports     `json:"ports,omitzero"`
	Programs    programs  `json:"programs,omitzero"`
	Processes   processes `json:"processes,omitzero"`
}

// ports of a private stack, all on 127.0.0.1.
type ports struct {
	Postgres int `json:"postgres"`
	AMQP     int `json:"amqp"`
	Dist     int `json:"dist"`
	Epmd     int `json:"epmd"`
	CtlMin   int `json:"ctl_min"` // rabbitmqctl is an Erlang node too and listens while it runs
	CtlMax   int `json:"ctl_max"`
}

// processes of a private stack; the zero process is one that is not running.
type processes struct {
	Postgres process `json:"postgres"`
	Broker   process `json:"broker"`
	Epmd     process `json:"epmd"`
}

func newState(dir string) *state {
	return &state{Version: stateVersion, ID: randomHex(8), Dir: dir, BootID: bootID()}
}

func (st *state) stack(s settings) *Stack {
	return &Stack{DatabaseURL: st.DatabaseURL, AMQPURL: st.AMQPURL, Source: st.Source, Dir: st.Dir, opts: s}
}

func (st *state) log(name string) string { return filepath.Join(st.Dir, logDir, name) }

func statePath(dir string) string { return filepath.Join(dir, stateFile) }

// loadState reads the directory's state; the error is os.ErrNotExist if there is
// none.
func loadState(dir string) (*state, error) {
	data, err := os.ReadFile(statePath(dir))
	if err != nil {
		return nil, fmt.Errorf("devstack: read the state: %w", err)
	}
	st := &state{}
	if err := json.Unmarshal(data, st); err != nil {
		return nil, fmt.Errorf("devstack: %s is damaged (%w); end the servers it names, then remove %s", statePath(dir), err, dir)
	}
	if st.Version != stateVersion {
		return nil, fmt.Errorf("devstack: %s has version %d, this program knows %d; run `writ dev down` of the version that wrote it", statePath(dir), st.Version, stateVersion)
	}
	st.Dir = dir // the project may have been moved
	return st, nil
}

// save replaces the state file in one step: a reader sees the old one or the new
// one. It holds passwords, hence mode 0600.
func (st *state) save() error {
	data, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return fmt.Errorf("devstack: encode the state: %w", err)
	}
	next := statePath(st.Dir) + ".new"
	if err := os.WriteFile(next, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("devstack: write the state: %w", err)
	}
	if err := os.Rename(next, statePath(st.Dir)); err != nil {
		return fmt.Errorf("devstack: write the state: %w", err)
	}
	return nil
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(b)
}
