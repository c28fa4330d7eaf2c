package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// app is what all verbs share: the streams and the global flags.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	output   string
	noColor  bool
	database string // --database
	amqp     string // --amqp
}

// run is the whole program. The first SIGINT or SIGTERM cancels what it does; the second ends the process at once.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // from now on signals do what they do by default: end the process

	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.rootCommand()
	root.SetArgs(append([]string{}, args...)) // nil would mean os.Args
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	code := exitCode(err)
	if err != nil && ctx.Err() != nil && code == exitFailure {
		code = exitInterrupted // whatever an interrupted call reported, this is why
	}
	a.complain(err, code)
	return code
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "writ",
		Short: "Business-critical jobs that cannot be lost, are never repeated on a guess, and never hide what nobody knows",
		Long: `Writ keeps business-critical jobs as rows in Postgres: they cannot be lost, are never
repeated on a guess, and never hide what nobody knows.

Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 not allowed, 5 conflict (the row
moved), 6 bulk partly done, 7 doctor found something, 130 interrupted.`,
		Args:          cobra.ArbitraryArgs, // so that an unknown verb comes to us
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if !slices.Contains(outputs, a.output) {
				return usage("-o %s: the output is one of %s", a.output, strings.Join(outputs, ", "))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownVerb(cmd, args[0])
			}
			return cmd.Help()
		},
	}
	flags := root.PersistentFlags()
	flags.StringVarP(&a.output, "output", "o", "table", "output: "+strings.Join(outputs, ", ")+"; only data on stdout, notes on stderr")
	flags.BoolVar(&a.noColor, "no-color", false, "no colours (also: NO_COLOR set); never any off a terminal")
	flags.StringVar(&a.database, "database", "", "Postgres URL (default: $DATABASE_URL, else a running writ dev stack)")
	flags.StringVar(&a.amqp, "amqp", "", "AMQP URL (default: $AMQP_URL, else a running writ dev stack)")
	root.SetFlagErrorFunc(badFlag)
	root.AddGroup(&cobra.Group{ID: "look", Title: "Look:"}, &cobra.Group{ID: "act", Title: "Create and decide:"},
		&cobra.Group{ID: "run", Title: "Run and maintain:"})
	add := func(group string, verbs ...*cobra.Command) {
		for _, verb := range verbs {
			verb.GroupID = group
			root.AddCommand(verb)
		}
	}
	add("look", a.listCommand(), a.getCommand(), a.whyCommand(), a.timelineCommand(), a.treeCommand(), a.auditCommand(), a.workersCommand(), a.doctorCommand())
	add("act", a.createCommand())
	for _, v := range verdicts {
		add("act", a.verdictCommand(v))
	}
	add("act", a.bulkCommand(), a.noteCommand(), a.eventsCommand())
	add("run", a.runCommand(), a.reconcileCommand(), a.migrateCommand(), a.kindsCommand(), a.limitsCommand())
	add("run", a.switchCommands()...)
	add("run", a.breakerCommand(), a.quarantineCommand(), a.adoptCommand(), devCommand())
	root.AddCommand(a.versionCommand())
	return root
}

// group makes a command that only holds others refuse to do nothing: a script must notice.
func group(cmd *cobra.Command) {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownVerb(cmd, args[0])
		}
		var names []string
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				names = append(names, sub.Name())
			}
		}
		return usage("%s: say which: %s", cmd.CommandPath(), strings.Join(names, ", "))
	}
}

func unknownVerb(cmd *cobra.Command, word string) error {
	cmd.SuggestionsMinimumDistance = 2
	hint := "see " + cmd.CommandPath() + " --help"
	if near := cmd.SuggestionsFor(word); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return usage("%s has no verb %q; %s", cmd.CommandPath(), word, hint)
}

// badFlag turns a fault in the flags into a usage error, with the flag that was probably meant.
func badFlag(cmd *cobra.Command, err error) error {
	hint := "see " + cmd.CommandPath() + " --help"
	if _, name, ok := strings.Cut(err.Error(), "unknown flag: --"); ok {
		best, distance := "", 3
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if d := editDistance(name, f.Name); d < distance || strings.HasPrefix(f.Name, name) {
				best, distance = f.Name, d
			}
		})
		if best != "" {
			hint = "did you mean --" + best + "?"
		}
	}
	return usage("%s: %v; %s", cmd.CommandPath(), err, hint)
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// words checks the number of arguments and says what they are.
func words(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		want := "takes no arguments"
		if len(names) > 0 {
			want = "takes " + strings.Join(names, " ")
		}
		return usage("%s %s; got %d arguments", cmd.CommandPath(), want, len(args))
	}
}

// note tells a person something that is no data.
func (a *app) note(format string, args ...any) {
	_, _ = fmt.Fprintln(a.stderr, "writ: "+clean(fmt.Sprintf(format, args...)))
}

// environment is a variable, with blanks around it taken for a slip.
func environment(name string) string { return strings.TrimSpace(os.Getenv(name)) }
