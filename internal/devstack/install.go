package devstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	policyFile = "/usr/sbin/policy-rc.d"
	// policyText makes Debian's package scripts leave services alone (101 means
	// "not allowed"). Its comment lets a later run recognise the file of a run
	// that was killed.
	policyText = "#!/bin/sh\n# Written by writ dev while it installs packages; safe to delete.\nexit 101\n"

	clusterFile = "/etc/postgresql-common/createcluster.d/writ-dev.conf"
	clusterText = "# Written by writ dev while it installs packages; safe to delete.\ncreate_main_cluster = false\n"

	// installWithin bounds dpkg's part, which is not interrupted.
	installWithin = 10 * time.Minute
)

// install adds Debian packages, or returns an error with the command to run if
// it may not. It says what it does on the log. The packages' services are not
// started and no default cluster is made: the machine gains programs, not
// servers.
func install(ctx context.Context, log *notes, packages []string) (programs, error) {
	if err := mayInstall(packages); err != nil {
		return programs{}, err
	}
	shared, err := sharedDir()
	if err != nil {
		return programs{}, err
	}
	lock, err := lockFileAt(ctx, filepath.Join(shared, "install.lock"))
	if err != nil {
		return programs{}, err
	}
	defer lock.release()
	if p, err := findPrograms(); err == nil {
		return p, nil // another run installed them while we waited
	}
	log.printf("INSTALLING the Debian packages %s with apt-get (their services are not started)", strings.Join(packages, " "))
	if err := aptGet(ctx, "update"); err != nil {
		log.printf("apt-get update failed, going on with the package lists that are there: %v", err)
	}
	args := append([]string{"install", "--yes", "--no-install-recommends"}, packages...)
	if err := aptGet(ctx, append(args, "--download-only")...); err != nil {
		return programs{}, err
	}
	if err := ctx.Err(); err != nil {
		return programs{}, err
	}
	// From here on an interrupt waits: dpkg stopped half-way leaves the machine's
	// package system broken.
	calm, cancel := context.WithTimeout(context.WithoutCancel(ctx), installWithin)
	defer cancel()
	err = withoutServices(func() error { return aptGet(calm, append(args, "--no-download")...) })
	if err != nil {
		return programs{}, err
	}
	log.printf("installed %s", strings.Join(packages, " "))
	return findPrograms()
}

// mayInstall explains what to do if this program cannot install packages itself.
func mayInstall(packages []string) error {
	release, _ := os.ReadFile("/etc/os-release")
	debian := isDebian(string(release))
	if debian && os.Getuid() == 0 {
		return nil
	}
	missing := &missingError{packages: packages}
	if debian {
		return fmt.Errorf("%w; run\n\n\tsudo apt-get install --no-install-recommends %s\n\nor start Docker, or set %s and %s",
			missing, strings.Join(packages, " "), databaseEnv, amqpEnv)
	}
	return fmt.Errorf("%w; install PostgreSQL and RabbitMQ with this system's package manager, or start Docker and run\n\n\twrit dev up\n\nor set %s and %s",
		missing, databaseEnv, amqpEnv)
}

// isDebian reads /etc/os-release: Debian, Ubuntu, or something built on them.
func isDebian(release string) bool {
	var ids []string
	for line := range strings.Lines(release) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if key == "ID" || key == "ID_LIKE" {
			ids = append(ids, strings.Fields(strings.Trim(value, `"'`))...)
		}
	}
	return slices.Contains(ids, "debian") || slices.Contains(ids, "ubuntu")
}

// aptGet runs apt-get away from the terminal, in a session of its own, and
// interrupts it when ctx ends. Another package manager at work is waited for.
func aptGet(ctx context.Context, args ...string) error {
	args = append([]string{"-qq", "-o", "DPkg::Lock::Timeout=300"}, args...)
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(out.String())
		return fmt.Errorf("devstack: apt-get %s: %w\n%s", strings.Join(args, " "), err, text[max(0, len(text)-2000):])
	}
	return nil
}

// withoutServices runs f while package scripts may start no service and make no
// cluster, and afterwards puts everything back as it was.
func withoutServices(f func() error) (err error) {
	restorePolicy, err := placeFile(policyFile, policyText, 0o755)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, restorePolicy()) }()
	restoreCluster, err := placeFile(clusterFile, clusterText, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, restoreCluster()) }()
	return f()
}

// placeFile writes a file that is not there yet and returns what removes it, and
// the directories made for it if they are empty by then. A file that is there is
// somebody's decision: it stays, unless a killed run of ours left it.
func placeFile(path, text string, mode os.FileMode) (restore func() error, err error) {
	nothing := func() error { return nil }
	if old, err := os.ReadFile(path); err == nil && string(old) != text {
		return nothing, nil
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("devstack: look at %s: %w", path, err)
	}
	var made []string
	for d := filepath.Dir(path); ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); err == nil {
			break
		}
		made = append(made, d)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("devstack: make the directory of %s: %w", path, err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		return nil, fmt.Errorf("devstack: write %s: %w", path, err)
	}
	return func() error {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("devstack: remove the temporary %s: %w; remove it by hand", path, err)
		}
		for _, d := range made {
			_ = os.Remove(d) // fails if a package has since put files there, which is meant
		}
		return nil
	}, nil
}
