package devstack

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// errNoProgram means that a server's programs are not installed here.
var errNoProgram = errors.New("devstack: not installed")

// programs are the directories and files of the installed servers. They are kept
// in the state, so that a stopped server is started again with the same version.
type programs struct {
	PostgresBin string `json:"postgres_bin"` // directory with initdb and postgres
	RabbitSbin  string `json:"rabbit_sbin"`  // RabbitMQ's own sbin, not the system's wrappers
	Epmd        string `json:"epmd"`
}

// findPrograms looks for all programs. The error wraps errNoProgram and names
// every Debian package that is missing.
func findPrograms() (programs, error) {
	var p programs
	var missing []string
	var err error
	if p.PostgresBin, err = findPostgres("/usr/lib/postgresql"); err != nil {
		missing = append(missing, "postgresql")
	}
	if p.RabbitSbin, err = findRabbit("/usr/lib/rabbitmq/lib"); err == nil {
		p.Epmd, err = findEpmd()
	}
	if err != nil {
		missing = append(missing, "rabbitmq-server")
	}
	if len(missing) > 0 {
		return p, &missingError{packages: missing}
	}
	return p, nil
}

// missingError names the Debian packages whose programs were not found.
type missingError struct{ packages []string }

func (e *missingError) Error() string {
	return fmt.Sprintf("%v: %s", errNoProgram, strings.Join(e.packages, ", "))
}

func (e *missingError) Unwrap() error { return errNoProgram }

// findPostgres prefers the highest version of Debian's layout,
// <base>/<major>/bin, over what is on the PATH: Debian does not put the servers
// there.
func findPostgres(base string) (string, error) {
	dirs, _ := filepath.Glob(filepath.Join(base, "*", "bin"))
	major := func(dir string) int {
		n, _ := strconv.Atoi(strings.SplitN(filepath.Base(filepath.Dir(dir)), ".", 2)[0])
		return n
	}
	slices.SortFunc(dirs, func(a, b string) int { return cmp.Compare(major(b), major(a)) })
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	for _, dir := range dirs {
		if executable(filepath.Join(dir, "initdb")) && executable(filepath.Join(dir, "postgres")) {
			return dir, nil
		}
	}
	return "", errNoProgram
}

// findRabbit returns the directory of RabbitMQ's own scripts. Debian's
// /usr/sbin/rabbitmq-server is a wrapper that insists on the rabbitmq user; the
// scripts it calls lie in <base>/rabbitmq_server-<version>/sbin. On the PATH only
// a generic installation is taken, where the script is the real one.
func findRabbit(base string) (string, error) {
	dirs, _ := filepath.Glob(filepath.Join(base, "rabbitmq_server-*", "sbin"))
	slices.Sort(dirs)
	slices.Reverse(dirs)
	if path, err := exec.LookPath("rabbitmq-server"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	for _, dir := range dirs {
		_, err := os.Stat(filepath.Join(dir, "..", "plugins"))
		if err == nil && executable(filepath.Join(dir, "rabbitmq-server")) && executable(filepath.Join(dir, "rabbitmqctl")) {
			return dir, nil
		}
	}
	return "", errNoProgram
}

// findEpmd takes the one on the PATH or of Erlang's own directory; RabbitMQ also
// needs erl, which comes with it.
func findEpmd() (string, error) {
	if _, err := exec.LookPath("erl"); err != nil {
		return "", errNoProgram
	}
	if path, err := exec.LookPath("epmd"); err == nil {
		return path, nil
	}
	found, _ := filepath.Glob("/usr/lib/erlang/erts-*/bin/epmd")
	if len(found) == 0 {
		return "", errNoProgram
	}
	return found[len(found)-1], nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&fs.FileMode(0o111) != 0
}
