package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	writsql "github.com/writhq/writ/sql"
)

// outboxLate is how long a due outbox row may wait before somebody should look; the shipped alert says the same.
const outboxLate = time.Minute

// identity: whether work may be done here at all.
func (x *examination) identity(ctx context.Context) {
	settings, err := x.store.Settings(ctx)
	switch {
	case err != nil:
		x.failed("identity", err)
	case !settings.Adopted:
		x.copied(ctx)
	case settings.Paused:
		x.add("identity", checkWarn, settings.Reason(), "when the reason is gone: writ resume --why …")
	default:
		x.add("identity", checkOK, "adopted and not paused, installation "+settings.Installation.String()[:8], "")
	}
}

// copied: a database that nobody adopted, and what to do about it.
func (x *examination) copied(ctx context.Context) {
	const detail = "this database is a copy that nobody adopted; nothing runs on it"
	switch yes, ago, by, err := quarantinedHere(ctx, x.pool); {
	case err != nil:
		x.failed("identity", err)
	case yes:
		x.add("identity", checkFail, fmt.Sprintf("%s; a quarantine was made %s ago by %s", detail, span(ago), by),
			"next, when the other database is stopped: writ adopt --why …")
	default:
		x.add("identity", checkFail, detail, "a staging copy: leave it. Restored, or an unclean failover, and the other one is stopped: "+
			"writ quarantine --since TIME, then writ adopt. Nothing lost: writ adopt --nothing-lost")
	}
}

// running: who publishes, and who looks after what broke.
func (x *examination) running(ctx context.Context) {
	var leader, relay bool
	if err := x.pool.QueryRow(ctx, writsql.Statement("DoctorRunning")).Scan(&leader, &relay); err != nil {
		x.failed("relay", err)
		return
	}
	if relay {
		x.add("relay", checkOK, "one is running", "")
	} else {
		x.add("relay", checkWarn, "none is seen; created intents wait in the outbox", "start one: writ run")
	}
	if leader {
		x.add("reconciler", checkOK, "one leads", "")
	} else {
		x.add("reconciler", checkWarn, "none leads; lost hints and dead workers go unnoticed", "start one: writ run")
	}
}

func (x *examination) workers(ctx context.Context) {
	var alive, dead, slots, running, stuck int64
	if err := x.pool.QueryRow(ctx, writsql.Statement("DoctorWorkers")).Scan(&alive, &dead, &slots, &running, &stuck); err != nil {
		x.failed("workers", err)
		return
	}
	detail := fmt.Sprintf("%d alive, %d of %d slots busy", alive, running, slots)
	switch {
	case alive == 0:
		x.add("workers", checkWarn, "none is alive; nothing is carried out", "start the application's workers (package workers)")
	case dead > 0:
		x.add("workers", checkWarn, fmt.Sprintf("%s; %d died and were not looked at yet", detail, dead), "a reconciler settles what they held: writ run, or writ reconcile --once")
	case stuck > 0:
		x.add("workers", checkWarn, fmt.Sprintf("%s; %d handlers are past their deadline and have not returned", detail, stuck),
			"handlers must return when their context ends; restart those processes")
	default:
		x.add("workers", checkOK, detail, "")
	}
}

// stranded: kinds with rows that are due, and nobody to run them.
func (x *examination) stranded(ctx context.Context) {
	rows, err := x.pool.Query(ctx, writsql.Statement("DoctorStranded"))
	var parts []string
	if err == nil {
		var kind string
		var n int64
		var seconds float64
		_, err = pgx.ForEachRow(rows, []any{&kind, &n, &seconds}, func() error {
			parts = append(parts, fmt.Sprintf("%s (%d, oldest %s)", kind, n, span(time.Duration(seconds*float64(time.Second)))))
			return nil
		})
	}
	switch {
	case err != nil:
		x.failed("kinds", err)
	case len(parts) > 0:
		x.add("kinds", checkWarn, "due, without a live worker: "+few(parts), "start a worker that handles them, or cancel them if the name is wrong")
	default:
		x.add("kinds", checkOK, "all that is due has a live worker", "")
	}
}

func (x *examination) pausedKinds(ctx context.Context) {
	rows, err := x.pool.Query(ctx, writsql.Statement("DoctorPausedKinds"))
	var parts []string
	if err == nil {
		var kind, by, why string
		_, err = pgx.ForEachRow(rows, []any{&kind, &by, &why}, func() error {
			parts = append(parts, fmt.Sprintf("%s by %s (%s)", kind, by, why))
			return nil
		})
	}
	switch {
	case err != nil:
		x.failed("pauses", err)
	case len(parts) > 0:
		x.add("pauses", checkWarn, "paused: "+few(parts), "resume them when the reason is gone")
	default:
		x.add("pauses", checkOK, "no kind is paused", "")
	}
}

func (x *examination) breakers(ctx context.Context) {
	rows, err := x.pool.Query(ctx, writsql.Statement("DoctorBreakers"))
	var parts []string
	if err == nil {
		parts, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	switch {
	case err != nil:
		x.failed("breakers", err)
	case len(parts) > 0:
		x.add("breakers", checkWarn, few(parts), "look what fails: writ list --kind; it is tried again by itself, or by writ breaker close")
	default:
		x.add("breakers", checkOK, "no circuit breaker is open", "")
	}
}

func (x *examination) outbox(ctx context.Context) {
	n, age, err := x.store.OutboxAge(ctx)
	switch detail := fmt.Sprintf("%d due, the oldest for %s", n, span(age)); {
	case err != nil:
		x.failed("outbox", err)
	case n == 0:
		x.add("outbox", checkOK, "nothing is due", "")
	case age > outboxLate:
		x.add("outbox", checkWarn, detail, "look at relay, broker and pauses above; writ why ID tells what holds one up")
	default:
		x.add("outbox", checkOK, detail, "")
	}
}

func (x *examination) ambiguous(ctx context.Context) {
	var n int64
	var seconds float64
	err := x.pool.QueryRow(ctx, writsql.Statement("DoctorAmbiguous")).Scan(&n, &seconds)
	switch {
	case err != nil:
		x.failed("ambiguous", err)
	case n > 0:
		x.add("ambiguous", checkWarn, fmt.Sprintf("%d with an outcome that nobody knows, the oldest for %s", n, span(time.Duration(seconds*float64(time.Second)))),
			"writ list --status ambiguous, then happened, retry or give-up")
	default:
		x.add("ambiguous", checkOK, "none", "")
	}
}

// events that subscriptions could not turn into intents.
func (x *examination) events(ctx context.Context) {
	counts, err := x.store.InboxCounts(ctx)
	var parts []string
	dead := false
	for _, c := range counts {
		parts = append(parts, fmt.Sprintf("%s (%d %s, oldest %s)", c.Subscription, c.N, c.Status, span(c.Oldest)))
		dead = dead || c.Status == "dead"
	}
	switch {
	case err != nil:
		x.failed("events", err)
	case dead:
		x.add("events", checkWarn, "not settled: "+few(parts), "mend the subscription, then writ events list, and retry or drop them")
	case len(parts) > 0:
		x.add("events", checkOK, "being tried again: "+few(parts), "")
	default:
		x.add("events", checkOK, "all that came are settled", "")
	}
}

// few names the first of many.
func few(parts []string) string {
	const most = 5
	if len(parts) <= most {
		return strings.Join(parts, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(parts[:most], ", "), len(parts)-most)
}
