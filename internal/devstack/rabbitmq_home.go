package devstack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// slimHome is the name, in the broker's directory, of a RabbitMQ home that holds
// only what the broker itself needs.
//
// Erlang looks for every module it loads in every library directory. RabbitMQ
// brings about seventy of them, most for plugins that are not enabled here, and
// these futile lookups are more than half of its start (12.5 s with all, 5.5 s
// with the twenty it needs, on the machine where this was written).
const slimHome = "server"

// makeSlimHome links the applications that rabbit depends on into the slim home
// and copies the start scripts there, which take the home from their own place.
// It makes nothing if the installation is not laid out as expected.
func makeSlimHome(st *state) error {
	full := filepath.Join(st.Programs.RabbitSbin, "..", "plugins")
	needed := erlangClosure(full, "rabbit")
	if len(needed) == 0 {
		return nil
	}
	home := slimDir(st)
	plugins, sbin := filepath.Join(home, "plugins"), filepath.Join(home, "sbin")
	if err := errors.Join(os.MkdirAll(plugins, 0o700), os.MkdirAll(sbin, 0o700)); err != nil {
		return fmt.Errorf("devstack: make the broker's home: %w", err)
	}
	for _, dir := range needed {
		if err := os.Symlink(dir, filepath.Join(plugins, filepath.Base(dir))); err != nil {
			return fmt.Errorf("devstack: link the broker's libraries: %w", err)
		}
	}
	for _, name := range []string{"rabbitmq-server", "rabbitmq-env", "rabbitmq-defaults"} {
		text, err := os.ReadFile(filepath.Join(st.Programs.RabbitSbin, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(sbin, name), text, 0o700)
		}
		if err != nil {
			return fmt.Errorf("devstack: copy the broker's start scripts: %w", err)
		}
	}
	return nil
}

func slimDir(st *state) string { return filepath.Join(st.Dir, rabbitDir, slimHome) }

// serverHome is the directory whose sbin and plugins the broker starts from.
func serverHome(st *state) string {
	if _, err := os.Stat(slimDir(st)); err == nil {
		return slimDir(st)
	}
	return filepath.Join(st.Programs.RabbitSbin, "..")
}

var (
	appsPattern = regexp.MustCompile(`(?s)\{\s*applications\s*,\s*\[(.*?)\]`)
	namePattern = regexp.MustCompile(`[a-z][a-z0-9_]*`)
)

// erlangClosure returns the directories under root of an application and all it
// depends on, directly or not. What is not under root is part of Erlang itself.
// It returns nil if the application is not there.
func erlangClosure(root, app string) []string {
	files, _ := filepath.Glob(filepath.Join(root, "*", "ebin", "*.app"))
	at := map[string]string{}
	for _, f := range files {
		at[strings.TrimSuffix(filepath.Base(f), ".app")] = f
	}
	var dirs []string
	seen := map[string]bool{}
	for todo := []string{app}; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		file, ok := at[name]
		if seen[name] || !ok {
			continue
		}
		seen[name] = true
		dirs = append(dirs, filepath.Dir(filepath.Dir(file)))
		text, _ := os.ReadFile(file)
		if m := appsPattern.FindSubmatch(text); m != nil {
			todo = append(todo, namePattern.FindAllString(string(m[1]), -1)...)
		}
	}
	return dirs
}
