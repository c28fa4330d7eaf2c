package devstack

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
)

const (
	postgresUser = "writ" // superuser of the private cluster
	postgresDB   = "writ"
	postgresLog  = "postgres.log"
	// bootstrapDB exists in every cluster; ours is created through it.
	bootstrapDB = "postgres"
)

// postgresSettings are appended to initdb's postgresql.conf. Durability is left
// as shipped (fsync on): a drill that pulls the plug must see what production
// would.
func postgresSettings(port int) string {
	return strings.Join([]string{
		"",
		"# written by writ dev",
		"listen_addresses = '127.0.0.1'",
		"port = " + strconv.Itoa(port),
		"unix_socket_directories = ''", // a socket path may be no longer than 107 bytes
		"max_connections = 400",
		"shared_buffers = '256MB'",
		"timezone = 'UTC'",
		"log_timezone = 'UTC'",
		"log_line_prefix = '%m [%p] %q%u@%d %a '",
		"",
	}, "\n")
}

// createPostgres makes a cluster, starts it and creates the database. It blocks
// until the database answers.
func createPostgres(ctx context.Context, st *state, update func(func(*state)) error) error {
	cred, err := postgresCredential()
	if err != nil {
		return err
	}
	if err := makePostgresDir(st, cred); err != nil {
		return err
	}
	if err := initCluster(ctx, st, cred); err != nil {
		return err
	}
	p, err := runPostgres(st)
	if err != nil {
		return err
	}
	if err := update(func(st *state) { st.Processes.Postgres = p }); err != nil {
		return err
	}
	bootstrap := databaseURL(st, bootstrapDB)
	err = waitFor(ctx, "Postgres", p, st.log(postgresLog), func(ctx context.Context) error { return pingPostgres(ctx, bootstrap) })
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, bootstrap)
	if err != nil {
		return fmt.Errorf("devstack: connect to the new cluster: %w", err)
	}
	_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{postgresDB}.Sanitize())
	if err := errors.Join(err, conn.Close(context.WithoutCancel(ctx))); err != nil {
		return fmt.Errorf("devstack: create the database: %w", err)
	}
	return nil
}

// initCluster runs initdb. It does not sync: a cluster lost to a power cut in
// its first second is simply made again.
func initCluster(ctx context.Context, st *state, cred *syscall.Credential) error {
	pwfile := filepath.Join(st.PostgresDir, "password")
	if err := os.WriteFile(pwfile, []byte(st.Password+"\n"), 0o600); err != nil {
		return fmt.Errorf("devstack: write the password for initdb: %w", err)
	}
	defer func() { _ = os.Remove(pwfile) }()
	if err := giveTo(cred, pwfile); err != nil {
		return err
	}
	data := filepath.Join(st.PostgresDir, "data")
	cmd := exec.CommandContext(ctx, filepath.Join(st.Programs.PostgresBin, "initdb"),
		"--pgdata="+data, "--username="+postgresUser, "--pwfile="+pwfile, "--auth=scram-sha-256",
		"--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions")
	cmd.Dir = st.PostgresDir
	cmd.Env = serverEnv(st, st.PostgresDir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: cred}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("devstack: initdb: %w\n%s", err, strings.TrimSpace(string(out)))
	}
	conf, err := os.OpenFile(filepath.Join(data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("devstack: configure Postgres: %w", err)
	}
	_, err = conf.WriteString(postgresSettings(st.Ports.Postgres))
	if err := errors.Join(err, conf.Close()); err != nil {
		return fmt.Errorf("devstack: configure Postgres: %w", err)
	}
	return nil
}

// runPostgres starts the postmaster on the existing cluster and returns at once.
func runPostgres(st *state) (process, error) {
	cred, err := postgresCredential()
	if err != nil {
		return process{}, err
	}
	cmd := exec.Command(filepath.Join(st.Programs.PostgresBin, "postgres"), "-D", filepath.Join(st.PostgresDir, "data"))
	cmd.Dir = st.PostgresDir
	cmd.Env = serverEnv(st, st.PostgresDir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	return spawn(cmd, st.log(postgresLog))
}

// postgresCredential is the OS user that Postgres runs as: nil, meaning ourselves,
// unless we are root, as which it refuses to run.
func postgresCredential() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("devstack: Postgres does not run as root and there is no OS user postgres (%w); create it with `useradd --system postgres`", err)
	}
	uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return nil, fmt.Errorf("devstack: read the ids of the OS user postgres: %w", err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// choosePostgresDir says where the cluster goes: in the stack's directory, or in
// the system's temporary directory if the postgres user cannot get into the
// first, as when the project lies under /root. It makes nothing.
func choosePostgresDir(dir, id string) (string, error) {
	cred, err := postgresCredential()
	if err != nil {
		return "", err
	}
	if reachable(dir, cred) {
		return filepath.Join(dir, postgresDir), nil
	}
	if tmp := os.TempDir(); reachable(tmp, cred) {
		return filepath.Join(tmp, "writ-dev-postgres-"+id), nil
	}
	return "", fmt.Errorf("devstack: the OS user postgres can get into neither %s nor %s; set TMPDIR to a directory it can walk into", dir, os.TempDir())
}

// reachable reports whether the user can make dir its working directory, by
// doing just that.
func reachable(dir string, cred *syscall.Credential) bool {
	cmd := exec.Command("/bin/sh", "-c", ":")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	return cmd.Run() == nil
}

func makePostgresDir(st *state, cred *syscall.Credential) error {
	if err := os.Mkdir(st.PostgresDir, 0o700); err != nil {
		return fmt.Errorf("devstack: make the cluster's directory: %w", err)
	}
	return giveTo(cred, st.PostgresDir)
}

func giveTo(cred *syscall.Credential, path string) error {
	if cred == nil {
		return nil
	}
	if err := os.Chown(path, int(cred.Uid), int(cred.Gid)); err != nil {
		return fmt.Errorf("devstack: give the file to the OS user postgres: %w", err)
	}
	return nil
}

func databaseURL(st *state, database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(postgresUser, st.Password),
		Host: loopback(st.Ports.Postgres), Path: "/" + database, RawQuery: "sslmode=disable",
	}
	return u.String()
}
