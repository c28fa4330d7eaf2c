package devstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	rabbitUser = "writ"
	rabbitLog  = "rabbitmq.log"
	epmdLog    = "epmd.log"
	// defaultWatermark is the share of the machine's memory above which the
	// broker blocks publishers; it is RabbitMQ's own default up to 3.x.
	defaultWatermark = 0.4
	// distLoopback keeps an Erlang node's distribution port off other interfaces.
	distLoopback = "-kernel inet_dist_use_interface {127,0,0,1}"
)

// rabbitSettings is rabbitmq.conf. It holds the password, hence mode 0600.
func rabbitSettings(st *state) string {
	return strings.Join([]string{
		"# written by writ dev",
		"listeners.tcp.1 = " + loopback(st.Ports.AMQP),
		"default_user = " + rabbitUser,
		"default_pass = " + st.Password,
		"loopback_users = none", // it is on loopback anyway; guest does not exist
		"vm_memory_high_watermark.relative = " + strconv.FormatFloat(defaultWatermark, 'f', -1, 64),
		"disk_free_limit.absolute = 256MB",
		"log.file.level = info",
		"",
	}, "\n")
}

// createBroker writes the node's configuration and starts epmd and the node. It
// blocks until the broker answers.
func createBroker(ctx context.Context, st *state, update func(func(*state)) error) error {
	dir := filepath.Join(st.Dir, rabbitDir)
	for _, d := range []string{dir, filepath.Join(dir, "home")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return fmt.Errorf("devstack: make the broker's directory: %w", err)
		}
	}
	files := []struct {
		path, text string
		mode       os.FileMode
	}{
		{"rabbitmq.conf", rabbitSettings(st), 0o600},
		{"advanced.config", "[].\n", 0o600},
		{"enabled_plugins", "[].\n", 0o600},
		{"env.conf", "", 0o600},                                               // else the system's rabbitmq-env.conf would be read
		{filepath.Join("home", ".erlang.cookie"), st.ID + st.Password, 0o400}, // Erlang refuses a wider mode
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f.path), []byte(f.text), f.mode); err != nil {
			return fmt.Errorf("devstack: configure RabbitMQ: %w", err)
		}
	}
	if err := makeSlimHome(st); err != nil {
		return err
	}
	return bootBroker(ctx, st, update)
}

// bootBroker starts the node on what is there, and epmd if it does not run.
func bootBroker(ctx context.Context, st *state, update func(func(*state)) error) error {
	if !st.Processes.Epmd.alive() {
		if err := bootEpmd(ctx, st, update); err != nil {
			return err
		}
	}
	err := bootNode(ctx, st, update)
	if err == nil || ctx.Err() != nil || serverHome(st) != slimDir(st) {
		return err
	}
	// A release may need an application that it does not declare: try once with
	// everything it was installed with. The first failure stays in the log.
	if err := errors.Join(st.Processes.Broker.signal(syscall.SIGKILL), st.Processes.Broker.waitEnd(ctx), os.RemoveAll(slimDir(st))); err != nil {
		return fmt.Errorf("devstack: start the broker again: %w", err)
	}
	return bootNode(ctx, st, update)
}

func bootNode(ctx context.Context, st *state, update func(func(*state)) error) error {
	cmd := exec.Command(filepath.Join(serverHome(st), "sbin", "rabbitmq-server"))
	cmd.Dir = filepath.Join(st.Dir, rabbitDir)
	cmd.Env = rabbitEnv(st)
	p, err := spawn(cmd, st.log(rabbitLog))
	if err != nil {
		return err
	}
	st.Processes.Broker = p
	if err := update(func(st *state) { st.Processes.Broker = p }); err != nil {
		return err
	}
	return waitFor(ctx, "RabbitMQ", p, st.log(rabbitLog), func(ctx context.Context) error { return pingBroker(ctx, brokerURL(st)) })
}

// bootEpmd starts Erlang's name server in the foreground before the node would
// start one itself as a daemon, whose pid nobody would know.
func bootEpmd(ctx context.Context, st *state, update func(func(*state)) error) error {
	cmd := exec.Command(st.Programs.Epmd, "-port", strconv.Itoa(st.Ports.Epmd), "-address", "127.0.0.1")
	cmd.Dir = filepath.Join(st.Dir, rabbitDir)
	cmd.Env = rabbitEnv(st)
	p, err := spawn(cmd, st.log(epmdLog))
	if err != nil {
		return err
	}
	if err := update(func(st *state) { st.Processes.Epmd = p }); err != nil {
		return err
	}
	return waitFor(ctx, "epmd", p, st.log(epmdLog), func(ctx context.Context) error {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp4", loopback(st.Ports.Epmd))
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// rabbitctl runs rabbitmqctl against the stack's node; about two seconds, most of
// it the start of an Erlang machine.
func rabbitctl(ctx context.Context, st *state, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(st.Programs.RabbitSbin, "rabbitmqctl"), args...)
	cmd.Dir = filepath.Join(st.Dir, rabbitDir)
	cmd.Env = rabbitEnv(st)
	cmd.WaitDelay = 2 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("devstack: rabbitmqctl %s: %w\n%s", args[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}

// rabbitEnv is the whole environment of the node, epmd and rabbitmqctl. It is
// built from nothing: a RABBITMQ_ or ERL_ variable of the caller's could lead a
// private node to a system-wide one's files.
func rabbitEnv(st *state) []string {
	dir := filepath.Join(st.Dir, rabbitDir)
	port := strconv.Itoa
	return append(serverEnv(st, filepath.Join(dir, "home")),
		"RABBITMQ_NODENAME="+nodeName(st),
		"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1",
		"RABBITMQ_NODE_PORT="+port(st.Ports.AMQP),
		"RABBITMQ_DIST_PORT="+port(st.Ports.Dist),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"ERL_EPMD_PORT="+port(st.Ports.Epmd),
		"RABBITMQ_CTL_DIST_PORT_MIN="+port(st.Ports.CtlMin),
		"RABBITMQ_CTL_DIST_PORT_MAX="+port(st.Ports.CtlMax),
		// An idle scheduler normally spins for a while, which costs a busy test
		// machine more than it gains the broker.
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+distLoopback+" +sbwt none +sbwtdcpu none +sbwtdio none",
		"RABBITMQ_CTL_ERL_ARGS="+distLoopback,
		"RABBITMQ_CONF_ENV_FILE="+filepath.Join(dir, "env.conf"),
		"RABBITMQ_CONFIG_FILE="+filepath.Join(dir, "rabbitmq.conf"),
		"RABBITMQ_ADVANCED_CONFIG_FILE="+filepath.Join(dir, "advanced.config"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(dir, "enabled_plugins"),
		"RABBITMQ_PLUGINS_DIR="+filepath.Join(serverHome(st), "plugins"),
		"RABBITMQ_MNESIA_BASE="+filepath.Join(dir, "data"),
		"RABBITMQ_PID_FILE="+filepath.Join(dir, "pid"),
		"RABBITMQ_LOG_BASE="+filepath.Join(st.Dir, logDir),
		// Makes the script exec the node rather than wait for it, so that the pid
		// we know is the node's.
		"RUNNING_UNDER_SYSTEMD=true",
	)
}

// nodeName differs per stack: crash dumps and logs of several side by side can
// be told apart.
func nodeName(st *state) string { return "writ-" + st.ID + "@localhost" }

func brokerURL(st *state) string {
	u := url.URL{Scheme: "amqp", User: url.UserPassword(rabbitUser, st.Password), Host: loopback(st.Ports.AMQP), Path: "/"}
	return u.String()
}
