package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/writhq/writ/intent"
)

// switches are the two verbs that stop and start work.
var switches = []struct {
	name, past, short, long string
	do, queue               func(context.Context, intent.DB, string, intent.Word) error
}{
	{
		"pause", "paused", "Stop everything, one kind or one queue, until somebody resumes it",
		"Nothing new is begun: a pause of everything counts from the next claim on, others within two\nseconds. Running handlers go on. Intents can still be created; their messages wait in the broker.", intent.Pause, intent.PauseQueue,
	},
	{
		"resume", "resumed", "End a pause of everything, of one kind or of one queue",
		"It adopts nothing: a copied database stays closed. What waited begins within two seconds or so.", intent.Resume, intent.ResumeQueue,
	},
}

func (a *app) switchCommands() (cmds []*cobra.Command) {
	for _, s := range switches {
		var f reasonFlags
		var queue string
		cmd := &cobra.Command{
			Use:   s.name + " [KIND]",
			Short: s.short,
			Long:  s.short + ".\n\n" + s.long,
			Example: fmt.Sprintf("  writ %s --why 'maintenance of the provider until 04:00'\n  writ %s shop.order.charge --why 'the bank is down (INC-431)'",
				s.name, s.name),
			Args: cobra.MaximumNArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				switch {
				case queue != "" && len(args) > 0:
					return usage("%s: give a kind or --queue, not both", s.name)
				case queue != "":
					return a.throw(cmd.Context(), s.past, "queue", queue, s.queue, f)
				case len(args) > 0:
					return a.throw(cmd.Context(), s.past, "kind", args[0], s.do, f)
				}
				return a.throw(cmd.Context(), s.past, "", "", s.do, f)
			},
		}
		cmd.Flags().StringVar(&queue, "queue", "", "all kinds of this queue")
		f.bind(cmd)
		cmds = append(cmds, cmd)
	}
	return cmds
}

// throw does to a kind, a queue or, without a name, to everything what the verb says.
func (a *app) throw(ctx context.Context, past, sort, name string, do func(context.Context, intent.DB, string, intent.Word) error, f reasonFlags) error {
	actor, why, err := f.reason()
	if err != nil {
		return err
	}
	pool, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := do(ctx, pool, name, intent.Word{Actor: actor, Why: why}); err != nil {
		return err
	}
	if a.isJSON() {
		done := struct {
			Did   string `json:"did"`
			Kind  string `json:"kind,omitempty"`
			Queue string `json:"queue,omitempty"`
			Actor string `json:"actor"`
		}{Did: past, Kind: name, Actor: actor}
		if sort == "queue" {
			done.Kind, done.Queue = "", name
		}
		return a.emit(done)
	}
	what := "everything"
	if name != "" {
		what = sort + " " + name
	}
	_, err = fmt.Fprintf(a.stdout, "%s: %s\n", past, clean(what))
	return err
}

func (a *app) breakerCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "breaker", Short: "Open or close the circuit breaker of a kind by hand"}
	group(cmd)
	var opening, closing reasonFlags
	var pause time.Duration
	open := &cobra.Command{
		Use:   "open KIND",
		Short: "Stop a kind whose code declares a circuit breaker; then one intent is tried",
		Long: `Stop a kind whose code declares a circuit breaker, for --for, or as long as it would stay open by
itself. Then one intent is tried: if it is done the breaker closes. To stop a kind until somebody says so: writ pause.`,
		Example: "  writ breaker open shop.order.charge --for 10m --why 'the bank asks for a break (INC-431)'",
		Args:    words("KIND"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.throw(cmd.Context(), "opened", "breaker", args[0], func(ctx context.Context, db intent.DB, kind string, w intent.Word) error {
				return intent.OpenBreaker(ctx, db, kind, pause, w)
			}, opening)
		},
	}
	open.Flags().DurationVar(&pause, "for", 0, "how long until one intent is tried (default: as its code declares)")
	opening.bind(open)
	shut := &cobra.Command{
		Use:     "close KIND",
		Short:   "Let a kind go on without a trial",
		Example: "  writ breaker close shop.order.charge --why 'the bank says that it is back'",
		Args:    words("KIND"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.throw(cmd.Context(), "closed", "breaker", args[0], intent.CloseBreaker, closing)
		},
	}
	closing.bind(shut)
	cmd.AddCommand(open, shut)
	return cmd
}
