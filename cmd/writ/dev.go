package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/writhq/writ/internal/devstack"
)

// devFlags are shared by the verbs of `writ dev`.
type devFlags struct {
	dir     string
	private bool
}

func (f *devFlags) options(log io.Writer) devstack.Options {
	o := devstack.Options{Dir: f.dir, Log: log}
	if f.private {
		o.Mode = devstack.ModePrivate
	}
	return o
}

// devCommand is `writ dev`: a Postgres and a RabbitMQ for development.
func devCommand() *cobra.Command {
	f := &devFlags{}
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a Postgres and a RabbitMQ for development",
		Long: `Run a Postgres and a RabbitMQ for development.

The first of these that applies is used:
  1. DATABASE_URL and AMQP_URL, if both are set: nothing is started
  2. Docker, if an engine answers: the containers of docker-compose.yml
  3. private server processes on loopback, in .writ/dev`,
	}
	group(cmd)
	cmd.PersistentFlags().StringVar(&f.dir, "dir", "", "directory of the stack (default: .writ/dev under the project root)")
	cmd.PersistentFlags().BoolVar(&f.private, "private", false, "run private processes, whatever the environment or Docker offer")
	cmd.AddCommand(devUp(f), devDown(f), devStatus(f), devExec(f))
	return cmd
}

func devUp(f *devFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "up",
		Short: "Start the servers, or find them running, and print their URLs",
		Long: `Start the servers, or find them running, and print their URLs on standard output
in a form that a shell can read:

  eval "$(writ dev up)"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := devContext(cmd)
			defer stop()
			stack, err := devstack.Up(ctx, f.options(cmd.ErrOrStderr()))
			if err != nil {
				return devFailure(err)
			}
			return writeStack(cmd, stack)
		},
	}
}

// writeStack prints the URLs, but not those the user gave us: they are known, and
// may hold a real password.
func writeStack(cmd *cobra.Command, stack *devstack.Stack) error {
	out := cmd.OutOrStdout()
	given := stack.Source == devstack.SourceEnvironment
	if devOutput(cmd) == "json" {
		v := struct {
			Source      devstack.Source `json:"source"`
			Dir         string          `json:"dir,omitempty"`
			Started     bool            `json:"started"`
			DatabaseURL string          `json:"database_url,omitempty"`
			AMQPURL     string          `json:"amqp_url,omitempty"`
		}{Source: stack.Source, Dir: stack.Dir, Started: stack.Started}
		if !given {
			v.DatabaseURL, v.AMQPURL = stack.DatabaseURL, stack.AMQPURL
		}
		return writeDevJSON(out, v)
	}
	switch {
	case given:
		_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "using the servers named by DATABASE_URL and AMQP_URL; both answer")
		return nil
	case stack.Started:
		_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "started; take it down with `writ dev down`")
	default:
		_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "already running")
	}
	_, err := fmt.Fprintf(out, "export DATABASE_URL='%s'\nexport AMQP_URL='%s'\n", stack.DatabaseURL, stack.AMQPURL)
	return err
}

func devDown(f *devFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Stop the servers that up started and remove their data",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := devContext(cmd)
			defer stop()
			found, err := devstack.Down(ctx, f.options(cmd.ErrOrStderr()))
			if err != nil {
				return devFailure(err)
			}
			note := "nothing was running"
			if found {
				note = "stopped; its data is removed"
			}
			_, _ = fmt.Fprintln(cmd.ErrOrStderr(), note)
			return nil
		},
	}
}

func devStatus(f *devFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the servers; exit code 1 unless both answer",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := devContext(cmd)
			defer stop()
			r, err := devstack.Inspect(ctx, f.options(cmd.ErrOrStderr()))
			if err != nil {
				return devFailure(err)
			}
			if devOutput(cmd) == "json" {
				err = writeDevJSON(cmd.OutOrStdout(), r)
			} else {
				err = writeReport(cmd.OutOrStdout(), r)
			}
			if err == nil && !r.Running {
				return &exitError{Code: exitFailure}
			}
			return err
		},
	}
}

func writeReport(out io.Writer, r devstack.Report) error {
	if r.Source == "" {
		_, err := fmt.Fprintf(out, "not running (no stack in %s)\n", r.Dir)
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "SERVICE\tADDRESS\tPID\tSTATE")
	for _, s := range r.Services {
		pid, state := "-", "answers"
		if s.PID != 0 {
			pid = strconv.Itoa(s.PID)
		}
		if !s.Answers {
			state = strings.Join(strings.Fields(s.Problem), " ")
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", s.Name, s.Address, pid, state)
	}
	_, _ = fmt.Fprintf(w, "\nsource\t%s\n", r.Source)
	for _, line := range [][2]string{{"directory", r.Dir}, {"logs", r.Logs}, {"DATABASE_URL", r.DatabaseURL}, {"AMQP_URL", r.AMQPURL}} {
		if line[1] != "" {
			_, _ = fmt.Fprintf(w, "%s\t%s\n", line[0], line[1])
		}
	}
	return w.Flush()
}

func devExec(f *devFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec [flags] -- COMMAND [ARGUMENTS]",
		Short: "Run a command with DATABASE_URL and AMQP_URL set, on servers that exist as long as it runs",
		Example: `  writ dev exec -- go test ./...
  writ dev exec -- sh -c 'psql "$DATABASE_URL"'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &exitError{Code: exitUsage, Err: errors.New("writ dev exec: no command given; usage: writ dev exec -- COMMAND [ARGUMENTS]")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			signals := make(chan os.Signal, 4)
			signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
			defer signal.Stop(signals)
			// Signals are passed on to the command, which decides what they mean;
			// should the root command cancel its context on them, that is ignored.
			code, err := devstack.Exec(context.WithoutCancel(cmd.Context()), f.options(cmd.ErrOrStderr()), devstack.Command{
				Args: args, Stdin: cmd.InOrStdin(), Stdout: cmd.OutOrStdout(), Stderr: cmd.ErrOrStderr(), Signals: signals,
			})
			if err != nil || code != 0 {
				return &exitError{Code: code, Err: err}
			}
			return nil
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows COMMAND is COMMAND's
	return cmd
}

// devContext ends with the first SIGINT or SIGTERM.
func devContext(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
}

// devFailure gives an interrupted verb the exit code a shell expects.
func devFailure(err error) error {
	if errors.Is(err, context.Canceled) {
		return &exitError{Code: exitInterrupted, Err: err}
	}
	return err
}

// devOutput is the value of the root command's -o flag.
func devOutput(cmd *cobra.Command) string {
	if f := cmd.Flags().Lookup("output"); f != nil && strings.HasPrefix(f.Value.String(), "json") {
		return "json"
	}
	return "table"
}

func writeDevJSON(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
