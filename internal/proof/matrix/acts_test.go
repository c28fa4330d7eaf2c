package matrix

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/fsm"
	"github.com/writhq/writ/intent"
)

// ann is who does what a person does.
var ann = intent.Word{Actor: "ann", Why: "restored from the backup"}

// What a person does besides the four verbs: the verb in an order, and the text that its statement is known by.
const (
	pauses      = "writ.pause"
	resumes     = "writ.resume"
	adopts      = "writ.adopt"
	quarantines = "writ.quarantine"
	plans       = "writ.bulk_plan"
	carries     = "writ.bulk_step" // a bulk is carried out, two rows in a step
	aborts      = "writ.bulk_abort"
	publishes   = "writ.publish" // by the application, in a transaction of its own
)

var acts = map[string]func(context.Context, *pgx.Conn, order) error{
	pauses:  func(ctx context.Context, conn *pgx.Conn, _ order) error { return intent.Pause(ctx, conn, "", ann) },
	resumes: func(ctx context.Context, conn *pgx.Conn, _ order) error { return intent.Resume(ctx, conn, "", ann) },
	adopts: func(ctx context.Context, conn *pgx.Conn, _ order) error {
		_, err := conn.Exec(ctx, "SELECT writ.adopt($1, $2)", ann.Actor, ann.Why)
		return err
	},
	quarantines: func(ctx context.Context, conn *pgx.Conn, _ order) error {
		_, err := intent.Quarantine(ctx, conn, time.Now().Add(-time.Minute), ann, nil)
		return err
	},
	plans: func(ctx context.Context, conn *pgx.Conn, o order) error {
		_, err := intent.PlanBulk(ctx, conn, intent.BulkPlan{Verb: fsm.Retry, IDs: o.IDs, Actor: ann.Actor, Why: "the mailboxes are there now"})
		return err
	},
	carries: func(ctx context.Context, conn *pgx.Conn, o order) error {
		for n := 1; ; n++ {
			b, err := intent.RunBulk(ctx, conn, o.ID, intent.BulkRun{Actor: ann.Actor, Limit: 2})
			if err != nil || b.EndedAt != nil || n == o.Steps {
				return err
			}
		}
	},
	publishes: func(ctx context.Context, conn *pgx.Conn, o order) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			_, err := told(o.Event).Publish(ctx, tx, task{[]string{done}}, intent.EventOpts{ID: o.ID})
			return err
		})
	},
	aborts: func(ctx context.Context, conn *pgx.Conn, o order) error {
		_, err := intent.AbortBulk(ctx, conn, o.ID, ann.Actor, "the mailboxes are gone again")
		return err
	},
}
