// Comments is a small blog application on Writ, and the demo of it: see README.md.
package main

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/writhq/writ/examples/comments/demo"
	"github.com/writhq/writ/examples/comments/mailserver"
)

//go:embed testdata/comments.jsonl
var samples []byte

const usage = `comments is a small blog on Writ: https://github.com/writhq/writ

  comments demo         run all of it for about 20 seconds, with faults, and check the outcome
  comments serve        the web application, with Writ's relay and reconciler
  comments worker       a worker that mails comments
  comments mailserver   an SMTP server that keeps its mails on disk

DATABASE_URL and AMQP_URL name the servers; «writ dev exec -- comments demo» brings its own.
Flags of each: comments VERB -h
`

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// environment is what all verbs share.
type environment struct {
	DatabaseURL, AMQPURL string
	Log                  *slog.Logger
}

// run returns the exit code: 0 ok, 1 failure, 2 usage, 130 and 143 interrupted.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	verb := ""
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet("comments "+verb, flag.ContinueOnError)
	flags.SetOutput(stderr)
	leash := flags.Bool("leash", false, "end when standard input does, so that a parent that dies leaves nothing behind")
	do := verbs(flags, verb, stdin)
	switch {
	case verb == "-h" || verb == "--help" || verb == "help":
		fmt.Fprint(stdout, usage)
		return 0
	case do == nil:
		fmt.Fprint(stderr, usage)
		return 2
	}
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil || flags.NArg() > 0 {
		fmt.Fprintf(stderr, "comments %s takes flags only, see -h\n", verb)
		return 2
	}
	env := environment{os.Getenv("DATABASE_URL"), os.Getenv("AMQP_URL"), slog.New(slog.NewTextHandler(stderr, nil))}
	if verb != "mailserver" && (env.DatabaseURL == "" || env.AMQPURL == "") {
		fmt.Fprintln(stderr, "comments: DATABASE_URL and AMQP_URL must be set; «writ dev exec -- comments "+verb+"» brings its own servers")
		return 2
	}

	ctx, interrupted, stop := untilSignal()
	defer stop()
	if *leash && verb != "mailserver" { // which reads its orders there, and ends with them
		go func() { defer stop(); _, _ = io.Copy(io.Discard, stdin) }()
	}
	err := do(ctx, env, stdout)
	if sig := interrupted(); sig != 0 && verb == "demo" {
		if err != nil && !errors.Is(err, context.Canceled) {
			fmt.Fprintf(stderr, "comments demo: %v\n", err)
		}
		return 128 + int(sig)
	}
	if err != nil {
		fmt.Fprintf(stderr, "comments %s: %v\n", verb, err)
		return 1
	}
	return 0
}

// verbs adds the flags of a verb and returns what it does, or nil if there is no such verb.
func verbs(flags *flag.FlagSet, verb string, stdin io.Reader) func(context.Context, environment, io.Writer) error {
	switch verb {
	case "serve":
		listen := flags.String("listen", "127.0.0.1:8080", "address of the web application")
		return func(ctx context.Context, env environment, out io.Writer) error { return serve(ctx, env, *listen, out) }
	case "worker":
		smtp := flags.String("smtp", "127.0.0.1:2525", "address of the mail server")
		log := flags.String("mail-log", "", "the mail server's log, in which the probe looks for mails that nobody knows of (default: no probe)")
		return func(ctx context.Context, env environment, out io.Writer) error {
			return work(ctx, env, *smtp, *log, out)
		}
	case "mailserver":
		listen := flags.String("listen", "127.0.0.1:2525", "address to take mail on")
		dir := flags.String("dir", "mails", "directory for the mails and their log")
		return func(ctx context.Context, _ environment, out io.Writer) error {
			return keepMail(ctx, *listen, *dir, flags.Lookup("leash").Value.String() == "true", stdin, out)
		}
	case "demo":
		noProbe := flags.Bool("no-probe", false, "let a person decide what nobody knows, instead of a look into the mail server's log")
		keep := flags.String("keep", "", "directory to keep the mails and the processes' logs in (default: a temporary one)")
		return func(ctx context.Context, env environment, out io.Writer) error {
			return demo.Run(ctx, demo.Config{
				DatabaseURL: env.DatabaseURL, AMQPURL: env.AMQPURL, Comments: samples, Keep: *keep, Out: out,
				Kind: Notify.Name, Queue: Notify.Name, Settle: Notify.Settle, NoProbe: *noProbe,
			})
		}
	}
	return nil
}

// keepMail runs the mail server. On a leash it takes orders for faults from standard input, answers each with a line,
// and ends with it.
func keepMail(ctx context.Context, listen, dir string, leash bool, stdin io.Reader, stdout io.Writer) error {
	box, err := mailserver.Open(dir)
	if err != nil {
		return err
	}
	defer box.Close()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	server := mailserver.New(box)
	fmt.Fprintf(stdout, "listening %s\n", l.Addr())
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if leash {
		go func() {
			defer stop()
			for lines := bufio.NewScanner(stdin); lines.Scan(); {
				answer := "ok"
				if err := server.Order(lines.Bytes()); err != nil {
					answer = err.Error()
				}
				fmt.Fprintln(stdout, answer)
			}
		}()
	}
	return server.Serve(ctx, l)
}

// untilSignal returns a context that ends with the first SIGINT or SIGTERM, and which signal it was. The second one ends
// the process at once.
func untilSignal() (context.Context, func() syscall.Signal, context.CancelFunc) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() {
		sig := <-signals
		signal.Stop(signals)
		cancel(signalled{sig.(syscall.Signal)})
	}()
	which := func() syscall.Signal {
		var s signalled
		errors.As(context.Cause(ctx), &s)
		return s.Signal
	}
	return ctx, which, func() { cancel(nil) }
}

type signalled struct{ syscall.Signal }

func (s signalled) Error() string { return "interrupted by " + s.String() }
