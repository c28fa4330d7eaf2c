package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/internal/devstack"
	"github.com/writhq/writ/internal/store"
)

// connectTimeout bounds one attempt to reach the database, unless the URL says otherwise.
const connectTimeout = 5 * time.Second

var (
	errNoDatabase = errors.New("no database: set DATABASE_URL or --database, or start one for development with writ dev up")
	errNoBroker   = errors.New("no broker: set AMQP_URL or --amqp, or start one for development with writ dev up")
)

// resolve fills in both URLs: the flags, then the environment, then, if no database is named at all, a development
// stack that runs. A broker of the development stack is never mixed with a database from elsewhere.
func (a *app) resolve(ctx context.Context) {
	if a.amqp == "" {
		a.amqp = environment("AMQP_URL")
	}
	if a.database != "" {
		return
	}
	if a.database = environment("DATABASE_URL"); a.database != "" {
		return
	}
	stack, err := devstack.Open(ctx, devstack.Options{Getenv: func(string) string { return "" }})
	if err != nil {
		return // none runs; whoever needs a database says so
	}
	a.database = stack.DatabaseURL
	if a.amqp == "" {
		a.amqp = stack.AMQPURL
	}
	a.note("DATABASE_URL is not set; using the development stack in %s", stack.Dir)
}

// config reads the database's URL. No cause is shown for one that cannot be read as a URL: it would quote parts of it,
// and with a wrongly escaped password nobody can tell which part that is.
func (a *app) config(ctx context.Context) (*pgxpool.Config, error) {
	a.resolve(ctx)
	if a.database == "" {
		return nil, &exitError{Code: exitUsage, Err: errNoDatabase}
	}
	config, err := pgxpool.ParseConfig(a.database)
	if err != nil {
		cause := ""
		if _, notURL := url.Parse(a.database); notURL == nil && strings.Contains(a.database, "://") {
			cause = ": " + err.Error()
		}
		return nil, usage("DATABASE_URL (or --database) cannot be read%s; it should look like postgres://user:password@host:5432/database, with reserved characters percent-encoded", a.scrub(cause))
	}
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = connectTimeout
	}
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = "writ"
	}
	return config, nil
}

// connect opens a pool. The caller closes it. Nothing is dialled yet.
func (a *app) connect(ctx context.Context) (*pgxpool.Pool, error) {
	config, err := a.config(ctx)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return pool, nil
}

// inTransaction runs do, and commits, or rolls back if told so or if do failed.
func inTransaction(ctx context.Context, pool *pgxpool.Pool, commit bool, do func(pgx.Tx) error) error {
	rollback := errors.New("rolled back as asked")
	err := pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
		if err := do(tx); err != nil || commit {
			return err
		}
		return rollback
	})
	if err == rollback {
		return nil
	}
	return err
}

// now is the database's clock, which alone is compared with the database's times. Where it cannot be asked (a standby)
// our own has to do: it is only for people to read.
func now(ctx context.Context, pool *pgxpool.Pool) time.Time {
	o, err := store.New(pool).Observe(ctx)
	if err != nil {
		return time.Now()
	}
	return o.At
}

var (
	passwordInURL = regexp.MustCompile(`(\w+://[^:/@\s]*:)[^@\s]*@`)
	passwordInDSN = regexp.MustCompile(`(?i)(pass(?:word|file)?\s*=\s*)('[^']*'|[^\s&'"]+)`)
)

// scrub takes passwords out of a text, wherever it came from.
func (a *app) scrub(text string) string {
	for _, raw := range []string{a.database, a.amqp, environment("DATABASE_URL"), environment("AMQP_URL")} {
		if u, err := url.Parse(raw); err == nil {
			for _, secret := range secrets(u) {
				text = strings.ReplaceAll(text, secret, "xxxxx")
			}
		}
	}
	text = passwordInURL.ReplaceAllString(text, "${1}xxxxx@")
	return passwordInDSN.ReplaceAllString(text, "${1}xxxxx")
}

// secrets are the passwords in a URL. Very short ones are left to the patterns: replacing «a» everywhere makes an error
// unreadable and tells what the password is.
func secrets(u *url.URL) []string {
	var out []string
	password, _ := u.User.Password()
	for _, s := range []string{password, u.Query().Get("password"), u.Query().Get("sslpassword")} {
		if len(s) >= 4 && s != u.User.Username() {
			out = append(out, s, url.QueryEscape(s), url.PathEscape(s))
		}
	}
	return out
}

// lookCommand is a verb that looks at one intent.
func (a *app) lookCommand(verb, short string, look func(context.Context, *pgxpool.Pool, intent.ID) error) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " ID",
		Short: short,
		Args:  words("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseID(args[0])
			if err != nil {
				return err
			}
			pool, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			defer pool.Close()
			return look(cmd.Context(), pool, id)
		},
	}
}
