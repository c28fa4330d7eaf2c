package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/writhq/writ/intent"
)

func (a *app) noteCommand() *cobra.Command {
	var actor string
	cmd := &cobra.Command{
		Use:     "note ID TEXT",
		Short:   "Leave a note on an intent; get and timeline show it",
		Example: "  writ note ID 'asked the provider, ticket 4711, answer expected on Monday'",
		Args:    words("ID", "TEXT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.leaveNote(cmd.Context(), args[0], args[1], actor)
		},
	}
	cmd.Flags().StringVar(&actor, "actor", "", "who leaves it; recorded (default: the OS user and host)")
	cmd.Flags().Bool("yes", false, "accepted by all writes; this one never asks")
	return cmd
}

func (a *app) leaveNote(ctx context.Context, word, text, actor string) error {
	id, err := parseID(word)
	if err != nil {
		return err
	}
	if actor = strings.TrimSpace(actor); actor == "" {
		actor = whoami()
	}
	pool, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := intent.Note(ctx, pool, id, actor, text); err != nil {
		return err
	}
	if a.isJSON() {
		return a.emit(struct {
			ID    intent.ID `json:"id"`
			Actor string    `json:"actor"`
			Note  string    `json:"note"`
		}{id, actor, text})
	}
	_, err = fmt.Fprintf(a.stdout, "noted on %s by %s\n", id, clean(actor))
	return err
}
