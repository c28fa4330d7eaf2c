package devstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	composeFile    = "docker-compose.yml"
	composeProject = "writ-dev"
	// dockerAnswers bounds the question whether there is an engine: a client
	// whose engine hangs would otherwise wait for minutes.
	dockerAnswers = 2 * time.Second
	// These match docker-compose.yml, which a test checks. The password protects
	// nothing: the ports are published on loopback only.
	dockerDatabaseURL = "postgres://writ:writ@127.0.0.1:55432/writ?sslmode=disable"
	dockerAMQPURL     = "amqp://writ:writ@127.0.0.1:55672/"
)

// dockerUsable reports whether an engine and the compose plugin answer in time,
// and returns the compose file to run.
func dockerUsable(ctx context.Context, s settings) (file string, ok bool) {
	file = filepath.Join(s.root, composeFile)
	if s.mode == ModePrivate {
		return "", false
	}
	if _, err := os.Stat(file); err != nil {
		return "", false
	}
	if _, err := exec.LookPath("docker"); err != nil {
		return "", false
	}
	ctx, cancel := context.WithTimeout(ctx, dockerAnswers)
	defer cancel()
	for _, args := range [][]string{{"compose", "version"}, {"version", "--format", "{{.Server.Version}}"}} {
		cmd := exec.CommandContext(ctx, "docker", args...)
		cmd.WaitDelay = 100 * time.Millisecond
		if err := cmd.Run(); err != nil {
			s.log.printf("no usable Docker engine (`docker %s`: %v): running private processes instead", strings.Join(args, " "), err)
			return "", false
		}
	}
	return file, true
}

// composeArgs are the arguments of docker for one verb on our project. Naming
// the project keeps every verb away from other projects' containers.
func composeArgs(file string, verb ...string) []string {
	return append([]string{"compose", "--project-name", composeProject, "--file", file}, verb...)
}

func upArgs(file string) []string   { return composeArgs(file, "up", "--detach", "--wait") }
func downArgs(file string) []string { return composeArgs(file, "down", "--volumes") }

func startDocker(ctx context.Context, s settings, st *state, file string) error {
	st.Source, st.ComposeFile = SourceDocker, file
	if err := st.save(); err != nil {
		return err
	}
	s.log.printf("starting the containers of %s", file)
	if err := docker(ctx, upArgs(file)); err != nil {
		return err
	}
	if err := answerBoth(ctx, dockerDatabaseURL, dockerAMQPURL); err != nil {
		return fmt.Errorf("devstack: the containers report healthy, but: %w", err)
	}
	st.DatabaseURL, st.AMQPURL = dockerDatabaseURL, dockerAMQPURL
	return st.save()
}

// stopDocker removes the project's containers and volumes. If the compose file
// is gone, the project name alone still leads to them.
func stopDocker(ctx context.Context, s settings, st *state) error {
	args := downArgs(st.ComposeFile)
	if _, err := os.Stat(st.ComposeFile); errors.Is(err, os.ErrNotExist) {
		args = []string{"compose", "--project-name", composeProject, "down", "--volumes"}
	}
	s.log.printf("removing the containers of project %s", composeProject)
	return docker(ctx, args)
}

func docker(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.WaitDelay = 5 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("devstack: docker %s: %w\n%s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
