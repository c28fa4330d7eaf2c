package main

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"

	"github.com/writhq/writ/intent"
	"github.com/writhq/writ/workers"
)

// Application pheidi sends mails. It knows of api only the event, and has its own idea of its data: what it needs of it.

//go:embed schema_pheidi.sql
var schemaPheidi string

// SendArgs of a mail.
type SendArgs struct {
	To   string `json:"to"`
	Text string `json:"text"`
}

// Send is pheidi's own task.
var Send = intent.Kind[SendArgs]{Name: "pheidi.email.send", Idempotent: true}

// newcomer is what pheidi reads of the event.
type newcomer struct {
	UserID int64  `json:"user_id"`
	Email  string `json:"email"`
}

// pheidi is the mux of application pheidi.
func pheidi(log *slog.Logger) *workers.Mux {
	mux := workers.NewMux()
	workers.Subscribe(mux, intent.Event[newcomer]{Name: "user.authorized"}, workers.Subscription[newcomer]{Name: "welcome", Do: welcome})
	workers.Handle(mux, Send, workers.Handler[SendArgs]{Do: func(_ context.Context, job *workers.Job[SendArgs]) error {
		log.Info("sending", "to", job.Args.To, "tid", job.TID())
		// A real one speaks SMTP here: see ../comments. This one writes down what it would have sent.
		return job.Done(func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `INSERT INTO mails (key, address, text) VALUES ($1, $2, $3)`, job.Key(), job.Args.To, job.Args.Text)
			return err
		})
	}})
	return mux
}

// welcome turns the event into what pheidi does about it: a task in its own database. It does nothing itself.
func welcome(_ context.Context, e workers.Event[newcomer]) ([]intent.New, error) {
	if e.Data.Email == "" {
		return nil, fmt.Errorf("user %d has no address", e.Data.UserID) // tried again, then kept for a person to see
	}
	mail := SendArgs{To: e.Data.Email, Text: fmt.Sprintf("Welcome, user %d.", e.Data.UserID)}
	return []intent.New{Send.New(mail, intent.Opts{Subjects: []string{e.Subject}})}, nil
}
