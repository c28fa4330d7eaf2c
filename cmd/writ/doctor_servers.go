package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/internal/rabbit"
	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/migrations"
	writsql "github.com/writhq/writ/sql"
)

// oldestServer is the first version of Postgres that the SQL is tried with.
const oldestServer = 150000

// database checks that Postgres answers, is new enough, and keeps what it confirms. It reports whether the rest can be
// looked at.
func (x *examination) database(ctx context.Context) bool {
	pool, err := x.app.connect(ctx)
	if err != nil {
		x.add("database", checkFail, x.app.describe(err), "")
		return false
	}
	x.pool, x.store = pool, store.New(pool)
	var number int
	var version, fsync, pages, commit string
	var standby bool
	err = pool.QueryRow(ctx, writsql.Statement("DoctorServer")).Scan(&number, &version, &fsync, &pages, &commit, &standby)
	if err != nil {
		x.add("database", checkFail, x.app.describe(err), advise(err))
		return false
	}
	config := pool.Config().ConnConfig
	where := fmt.Sprintf("%s on %s, Postgres %s", config.Database, config.Host, version)
	switch {
	case number < oldestServer:
		x.add("database", checkFail, where, "Writ needs Postgres 15 or newer; upgrade the server")
		return false
	case standby:
		x.add("database", checkFail, where+", a standby in recovery", "point DATABASE_URL at the primary")
		return false
	default:
		x.add("database", checkOK, where, "")
	}
	x.durability(fsync, pages, commit)
	return true
}

// durability: whether a confirmed commit survives a crash of the server.
func (x *examination) durability(fsync, pages, commit string) {
	settings := fmt.Sprintf("fsync %s, full_page_writes %s, synchronous_commit %s", fsync, pages, commit)
	switch {
	case fsync != "on" || pages != "on":
		x.add("durability", checkFail, settings+": a crash of the server can lose or break everything",
			"set fsync and full_page_writes to on; off is for servers that may be thrown away")
	case commit == "off":
		x.add("durability", checkWarn, settings+": a crash of the server can lose intents whose creation was confirmed",
			"set synchronous_commit to on, at least for the roles that create intents")
	default:
		x.add("durability", checkOK, settings, "")
	}
}

func (x *examination) broker(ctx context.Context) {
	if x.app.amqp == "" {
		x.add("broker", checkFail, "AMQP_URL is not set", "set AMQP_URL or --amqp")
		return
	}
	advice := "start the broker, or correct AMQP_URL; intents are created and kept meanwhile, but none starts"
	publisher, err := rabbit.NewPublisher(rabbit.Config{URL: x.app.amqp, Name: "writ doctor"})
	if err != nil {
		x.add("broker", checkFail, strings.ReplaceAll(x.app.describe(err), "rabbit: Config.URL", "AMQP_URL"), "correct AMQP_URL")
		return
	}
	defer publisher.Close()
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	_, err = publisher.Depths(ctx, nil) // of no queues: it only waits for the connection
	switch where := rabbit.Redact(x.app.amqp); {
	case errors.Is(err, rabbit.ErrBlocked):
		x.add("broker", checkFail, where+": "+x.app.describe(err), "free memory or disk on the broker; the outbox absorbs meanwhile")
	case err != nil:
		x.add("broker", checkFail, x.app.describe(err), advice)
	default:
		x.add("broker", checkOK, where+" answers", "")
	}
}

// schema reports whether there is one that the other checks can be run on.
func (x *examination) schema(ctx context.Context) bool {
	status, err := migrations.Read(ctx, x.pool.Config().ConnConfig)
	version := fmt.Sprintf("schema %d of %d", status.Current, status.Target)
	switch {
	case errors.Is(err, migrations.ErrNewer):
		x.add("schema", checkFail, err.Error(), "upgrade this binary")
	case err != nil:
		x.failed("schema", err)
	case status.Current == 0:
		x.add("schema", checkFail, "the database has no Writ schema", "run writ migrate up")
		return false
	case status.Current > status.Target:
		x.add("schema", checkOK, fmt.Sprintf("schema %d, of a newer release than this binary, which is of %d and can work on it", status.Current, status.Target), "")
	case status.Current < status.Target:
		x.add("schema", checkFail, version, "run writ migrate up")
	case len(status.Stale) > 0:
		x.add("schema", checkWarn, version+", but its functions differ from this binary's: "+strings.Join(status.Stale, ", "), "run writ migrate up")
	default:
		x.add("schema", checkOK, version, "")
	}
	return true
}

func (x *examination) roles(ctx context.Context) {
	rows, err := x.pool.Query(ctx, writsql.Statement("DoctorRoles"))
	var missing []string
	if err == nil {
		missing, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	switch {
	case err != nil:
		x.failed("roles", err)
	case len(missing) > 0:
		x.add("roles", checkWarn, "missing: "+strings.Join(missing, ", "),
			"run writ migrate up as a user who may create roles, or create them (NOLOGIN) first")
	default:
		x.add("roles", checkOK, "all six exist", "")
	}
}

// snapshots: a long transaction keeps deleted outbox rows visible to every scan.
func (x *examination) snapshots(ctx context.Context) {
	const long = 5 * time.Minute
	var who string
	var seconds float64
	var all bool
	if err := x.pool.QueryRow(ctx, writsql.Statement("DoctorSnapshots")).Scan(&who, &seconds, &all); err != nil {
		x.failed("snapshots", err)
		return
	}
	age := time.Duration(seconds * float64(time.Second))
	limits := ""
	if !all {
		limits = " (seen with this user's rights only; grant it pg_read_all_stats to see all sessions)"
	}
	if age > long {
		x.add("snapshots", checkWarn, fmt.Sprintf("a transaction has been open for %s and keeps dead rows: %s%s", span(age), who, limits),
			"end it: a long transaction slows down every scan of the outbox")
		return
	}
	detail := "no open transaction keeps dead rows"
	if age > 0 {
		detail = "the oldest open transaction is " + span(age) + " old"
	}
	x.add("snapshots", checkOK, detail+limits, "")
}
