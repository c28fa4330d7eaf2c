package devstack

import (
	"net/url"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// TestComposeFileIsPinnedAndOnLoopback checks docker-compose.yml with Docker's own
// parser, as no engine runs in CI.
func TestComposeFileIsPinnedAndOnLoopback(t *testing.T) {
	t.Parallel()
	project, err := loader.LoadWithContext(testContext(t), types.ConfigDetails{
		WorkingDir:  filepath.Join("..", ".."),
		ConfigFiles: []types.ConfigFile{{Filename: filepath.Join("..", "..", composeFile)}},
	})
	if err != nil {
		t.Fatalf("parse %s: %v", composeFile, err)
	}
	if project.Name != composeProject {
		t.Errorf("the project is %q, the code says %q", project.Name, composeProject)
	}
	exact := map[string]*regexp.Regexp{
		"postgres": regexp.MustCompile(`^postgres:17\.\d+$`),
		"rabbitmq": regexp.MustCompile(`^rabbitmq:4\.\d+\.\d+$`),
	}
	if len(project.Services) != len(exact) {
		t.Errorf("there are %d services, want %d", len(project.Services), len(exact))
	}
	published := map[string]string{} // service → host:port
	for name, s := range project.Services {
		if want, ok := exact[name]; !ok || !want.MatchString(s.Image) {
			t.Errorf("%s: image %q is not pinned as expected", name, s.Image)
		}
		if s.HealthCheck == nil || s.HealthCheck.Disable || len(s.HealthCheck.Test) < 2 {
			t.Errorf("%s has no health check", name)
		}
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" || p.Published == "" {
				t.Errorf("%s publishes %s:%s, want a fixed port on 127.0.0.1", name, p.HostIP, p.Published)
			}
			published[name] = p.HostIP + ":" + p.Published
		}
		if s.NetworkMode == "host" {
			t.Errorf("%s uses the host's network", name)
		}
	}
	// The URLs in the code lead to these services, as these users.
	for name, c := range map[string]struct{ rawURL, userEnv, passEnv string }{
		"postgres": {dockerDatabaseURL, "POSTGRES_USER", "POSTGRES_PASSWORD"},
		"rabbitmq": {dockerAMQPURL, "RABBITMQ_DEFAULT_USER", "RABBITMQ_DEFAULT_PASS"},
	} {
		u, err := url.Parse(c.rawURL)
		if err != nil {
			t.Fatal(err)
		}
		env := project.Services[name].Environment
		user, pass := env[c.userEnv], env[c.passEnv]
		if user == nil || pass == nil || u.User.String() != *user+":"+*pass || u.Host != published[name] {
			t.Errorf("%s: the code connects to %s as %s, which the file does not offer", name, u.Host, u.User.Username())
		}
	}
}
