package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/writhq/writ/intent"
)

func (a *app) whyCommand() *cobra.Command {
	return a.lookCommand("why", "Say in one line why an intent is not done, or how it ended", a.why)
}

func (a *app) why(ctx context.Context, pool *pgxpool.Pool, id intent.ID) error {
	line, err := intent.Why(ctx, pool, id)
	if err != nil {
		return err
	}
	if a.isJSON() {
		return a.emit(struct {
			ID  intent.ID `json:"id"`
			Why string    `json:"why"`
		}{id, line})
	}
	_, err = fmt.Fprintln(a.stdout, clean(line))
	return err
}
