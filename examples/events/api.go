package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/workers"
)

// Application api knows users, and authorizes them. It does not know who cares.

//go:embed schema_api.sql
var schemaAPI string

// AuthorizeArgs is the contract between whoever creates the task, in any language, and its worker.
type AuthorizeArgs struct {
	UserID int64 `json:"user_id"`
}

// Authorize is a task: application, model, and a verb in the present tense. Only api creates it. It touches nothing outside
// this database, so a second run does no harm.
var Authorize = intent.Kind[AuthorizeArgs]{Name: "api.user.authorize", Idempotent: true}

// UserAuthorized is the data of the event, the contract with all who subscribe.
type UserAuthorized struct {
	UserID int64  `json:"user_id"`
	Email  string `json:"email"`
}

// Authorized is an event: model, and a verb in the past tense. It belongs to nobody's plans.
var Authorized = intent.Event[UserAuthorized]{Name: "user.authorized"}

// api is the mux of application api.
func api() *workers.Mux {
	mux := workers.NewMux()
	workers.Handle(mux, Authorize, workers.Handler[AuthorizeArgs]{Do: authorize})
	return mux
}

// authorize lets the user in and tells the world, in the one transaction that records the task as done: the event is
// published exactly if the user is authorized.
func authorize(_ context.Context, job *workers.Job[AuthorizeArgs]) error {
	return job.Done(func(ctx context.Context, tx pgx.Tx) error {
		told := UserAuthorized{UserID: job.Args.UserID}
		err := tx.QueryRow(ctx, `UPDATE users SET authorized_at = now() WHERE id = $1 AND authorized_at IS NULL RETURNING email`, told.UserID).Scan(&told.Email)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // authorized already, and told of it then
		} else if err != nil {
			return err
		}
		_, err = Authorized.Publish(ctx, tx, told, intent.EventOpts{Subject: fmt.Sprintf("user:%d", told.UserID)})
		return err
	})
}
