package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/writhq/writ/intent"
)

// switches are the two verbs that stop and start work.
var switches = []struct {
	name, past, short, long string
	do                      func(context.Context, intent.DB, string, intent.Word) error
}{
	{
		"pause", "paused", "Stop everything, or one kind, until somebody resumes it",
		"Nothing new is begun: a pause of everything counts from the next claim on, that of a kind within two\nseconds. Running handlers go on. Intents can still be created, and wait.", intent.Pause,
	},
	{
		"resume", "resumed", "End a pause of everything, or of one kind",
		"It adopts nothing: a copied database stays closed. What waited begins within about ten seconds.", intent.Resume,
	},
}

func (a *app) switchCommands() (cmds []*cobra.Command) {
	for _, s := range switches {
		var f reasonFlags
		cmd := &cobra.Command{
			Use:   s.name + " [KIND]",
			Short: s.short,
			Long:  s.short + ".\n\n" + s.long,
			Example: fmt.Sprintf("  writ %s --why 'maintenance of the provider until 04:00'\n  writ %s shop.order.charge --why 'the bank is down (INC-431)'",
				s.name, s.name),
			Args: cobra.MaximumNArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				kind := ""
				if len(args) > 0 {
					kind = args[0]
				}
				return a.throw(cmd.Context(), s.past, s.do, kind, f)
			},
		}
		f.bind(cmd)
		cmds = append(cmds, cmd)
	}
	return cmds
}

func (a *app) throw(ctx context.Context, past string, do func(context.Context, intent.DB, string, intent.Word) error, kind string, f reasonFlags) error {
	actor, why, err := f.reason()
	if err != nil {
		return err
	}
	pool, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := do(ctx, pool, kind, intent.Word{Actor: actor, Why: why}); err != nil {
		return err
	}
	if a.isJSON() {
		return a.emit(struct {
			Did   string `json:"did"`
			Kind  string `json:"kind,omitempty"`
			Actor string `json:"actor"`
		}{past, kind, actor})
	}
	what := "everything"
	if kind != "" {
		what = "kind " + kind
	}
	_, err = fmt.Fprintf(a.stdout, "%s: %s\n", past, clean(what))
	return err
}
