package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/writhq/writ/intent"
)

func (a *app) whyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "why ID",
		Short: "Say in one line why an intent is not done, or how it ended",
		Args:  words("ID"),
		RunE:  func(cmd *cobra.Command, args []string) error { return a.why(cmd.Context(), args[0]) },
	}
}

func (a *app) why(ctx context.Context, word string) error {
	id, err := parseID(word)
	if err != nil {
		return err
	}
	pool, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
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
