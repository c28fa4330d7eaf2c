package devstack

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// modulePath marks the project root: the directory whose go.mod declares it.
const modulePath = "github.com/writhq/writ"

// settings are Options with every default filled in.
type settings struct {
	dir    string // absolute
	root   string // where docker-compose.yml is looked for
	mode   Mode
	getenv func(string) string
	log    *notes
}

func (o Options) resolve() (settings, error) {
	s := settings{dir: o.Dir, mode: o.Mode, getenv: o.Getenv, log: &notes{to: o.Log}}
	if s.getenv == nil {
		s.getenv = os.Getenv
	}
	if !slices.Contains([]Mode{ModeAuto, ModePrivate}, s.mode) {
		return s, fmt.Errorf("devstack: unknown Options.Mode %q; it is ModeAuto or ModePrivate", s.mode)
	}
	cwd, err := os.Getwd()
	if err != nil {
		return s, fmt.Errorf("devstack: find the working directory: %w", err)
	}
	s.root = projectRoot(cwd)
	if s.dir == "" {
		s.dir = filepath.Join(s.root, ".writ", "dev")
	}
	if s.dir, err = filepath.Abs(s.dir); err != nil {
		return s, fmt.Errorf("devstack: make Options.Dir absolute: %w", err)
	}
	return s, nil
}

// projectRoot is the nearest directory at or above dir with this module's
// go.mod, or dir itself.
func projectRoot(dir string) string {
	for d := dir; ; d = filepath.Dir(d) {
		mod, err := os.ReadFile(filepath.Join(d, "go.mod"))
		if err == nil {
			for line := range strings.Lines(string(mod)) {
				if f := strings.Fields(line); len(f) >= 2 && f[0] == "module" && strings.Trim(f[1], `"`) == modulePath {
					return d
				}
			}
		}
		if d == filepath.Dir(d) {
			return dir
		}
	}
}

// requireEmpty refuses a directory with files that are not ours, so that neither
// a start nor the later removal can touch them.
func requireEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("devstack: read the stack's directory: %w", err)
	}
	for _, e := range entries {
		if e.Name() != lockFile {
			return fmt.Errorf("devstack: %s holds %q but no %s, so it is not a stack's directory; empty it or name another", dir, e.Name(), stateFile)
		}
	}
	return nil
}

// removeDir removes the lock file and the directory, and a .writ above it, as
// far as they are empty. The caller holds the lock; whoever waits for it notices
// that the file is gone and makes a new one.
func removeDir(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 1 || (len(entries) == 1 && entries[0].Name() != lockFile) {
		return
	}
	err = errors.Join(os.Remove(filepath.Join(dir, lockFile)), os.Remove(dir))
	if parent := filepath.Dir(dir); err == nil && filepath.Base(parent) == ".writ" {
		_ = os.Remove(parent) // fails if it holds anything else, which is meant
	}
}

// notes writes progress lines. It is safe for concurrent use.
type notes struct {
	mu sync.Mutex
	to io.Writer
}

func (n *notes) printf(format string, args ...any) {
	if n.to == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	// A log that cannot be written to is no reason to stop.
	_, _ = fmt.Fprintf(n.to, "writ dev: "+format+"\n", args...)
}
