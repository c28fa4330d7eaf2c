package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/writhq/writ/internal/store"
)

// The results of a check. A warn may be meant, a fail never is.
const (
	checkOK   = "ok"
	checkWarn = "warn"
	checkFail = "fail"
)

// finding is one line of the doctor's report.
type finding struct {
	Check  string `json:"check"`
	Result string `json:"result"`
	Detail string `json:"detail"`
	Advice string `json:"advice,omitempty"`
}

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check servers, schema, relay, workers and backlog; exit code 7 if something was found",
		Args:  words(),
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context()) },
	}
}

func (a *app) doctor(ctx context.Context) error {
	x := &examination{app: a}
	x.all(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := a.printFindings(x.findings); err != nil {
		return err
	}
	bad := 0
	for _, f := range x.findings {
		if f.Result != checkOK {
			bad++
		}
	}
	if bad == 0 {
		return nil
	}
	a.note("%d of %d checks found something", bad, len(x.findings))
	return &exitError{Code: exitFindings}
}

func (a *app) printFindings(findings []finding) error {
	if a.isJSON() {
		return emitAll(a, findings)
	}
	g := a.grid("check", "result", "finding")
	for _, f := range findings {
		text := f.Detail
		if f.Advice != "" {
			text += "\n→ " + f.Advice
		}
		g.row(f.Check, a.paint(f.Result), text)
	}
	g.wrap(3, a.width()-len("reconciler")-2-len("result")-2)
	return g.print()
}

// examination collects findings. Each check adds one; one that finds the ground gone ends those that stand on it.
type examination struct {
	app      *app
	pool     *pgxpool.Pool
	store    *store.Store
	findings []finding
}

// all runs the checks in the order in which one depends on the other.
func (x *examination) all(ctx context.Context) {
	database := x.database(ctx)
	if x.pool != nil {
		defer x.pool.Close()
	}
	x.broker(ctx)
	if !database {
		return
	}
	x.roles(ctx)
	if !x.schema(ctx) {
		return
	}
	for _, check := range []func(context.Context){
		x.identity, x.running, x.workers, x.stranded, x.pausedKinds, x.breakers, x.outbox, x.ambiguous, x.events, x.snapshots,
	} {
		check(ctx)
	}
}

func (x *examination) add(check, result, detail, advice string) {
	x.findings = append(x.findings, finding{check, result, clean(x.app.scrub(detail)), clean(advice)})
}

// failed notes that a check could not be made, and why.
func (x *examination) failed(check string, err error) {
	advice := "see the server's log"
	if isDenied(err) {
		advice = "this database user may not look; grant it writ_viewer"
	}
	x.add(check, checkFail, fmt.Sprintf("could not be checked: %s", x.app.describe(err)), advice)
}
