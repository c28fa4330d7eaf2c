package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/writhq/writ/intent"
)

type createFlags struct {
	args, key, at, id string
	subjects          []string
}

func (a *app) createCommand() *cobra.Command {
	var f createFlags
	cmd := &cobra.Command{
		Use:   "create KIND",
		Short: "Create an intent, in a transaction of its own, and print its id",
		Long: `Create an intent, in a transaction of its own, and print its id.

An application creates intents in the transaction of the rows that they belong to
(package intent); this verb is for people and scripts. With --key or --id it can be
repeated safely: what exists already is not created twice.`,
		Example: `  writ create blog.comment.notify --args '{"comment_id": 7}' --subject customer:7
  writ create blog.digest.send --args @digest.json --at +10m --key digest-2026-03-01`,
		Args: words("KIND"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.create(cmd.Context(), args[0], f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.args, "args", "{}", "arguments: JSON, @FILE, or - for standard input")
	flags.StringVar(&f.key, "key", "", "creation key: a second creation of the kind under it returns the first one's id")
	flags.StringVar(&f.at, "at", "", "earliest start: RFC 3339, or a span from now like +10m (default: now)")
	flags.StringArrayVar(&f.subjects, "subject", nil, "a row of the application that this is about, like customer:7 (repeatable)")
	flags.StringVar(&f.id, "id", "", "id of the new intent, to repeat a creation whose answer was lost (default: a new one)")
	return cmd
}

func (a *app) create(ctx context.Context, kind string, f createFlags) error {
	opts := intent.Opts{ID: intent.NewID(), Key: f.key, Subjects: f.subjects}
	var err error
	if f.id != "" {
		if opts.ID, err = parseID(f.id); err != nil {
			return err
		}
	}
	args, err := a.readJSON("--args", f.args)
	if err != nil {
		return err
	}
	pool, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	if f.at != "" {
		if opts.RunAt, err = parseAt(f.at, func() time.Time { return now(ctx, pool) }); err != nil {
			return err
		}
	}
	var created intent.Created
	err = inTransaction(ctx, pool, true, func(tx pgx.Tx) (err error) {
		created, err = intent.CreateRaw(ctx, tx, kind, args, opts)
		return err
	})
	if err != nil {
		if isUnknown(err) {
			return fmt.Errorf("%w\nwhether it was created is not known; repeat it with --id %s: nothing is created twice", err, opts.ID)
		}
		return err
	}
	return a.created(ctx, pool, kind, created)
}

func (a *app) created(ctx context.Context, pool *pgxpool.Pool, kind string, c intent.Created) error {
	if c.Existed {
		a.note("existed already; nothing was created")
	} else if i, err := intent.Get(ctx, pool, c.ID); err == nil && i.Class == "undeclared" {
		// Only a hint against slips of the pen; a creator may not be allowed to look.
		a.note("no worker has declared kind %s yet; it waits until one does", kind)
	}
	if a.isJSON() {
		return a.emit(struct {
			ID      intent.ID `json:"id"`
			Existed bool      `json:"existed"`
		}{c.ID, c.Existed})
	}
	_, err := fmt.Fprintln(a.stdout, c.ID)
	return err
}
