package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/writhq/writ/cmd/bench/contender"
)

// workCommand plays a worker process.
func workCommand(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench work", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var o contender.Options
	flags.IntVar(&o.Slots, "slots", 100, "handlers at once")
	flags.IntVar(&o.Kinds, "kinds", 1, "kinds of jobs")
	roles := flags.String("roles", "", "parts of Writ to run, with commas; empty: all")
	if len(args) == 0 {
		return fmt.Errorf("name who works: writ, river or floor")
	}
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if *roles != "" {
		o.Roles = strings.Split(*roles, ",")
	}
	database, broker := os.Getenv("DATABASE_URL"), os.Getenv("AMQP_URL")
	return contender.Work(ctx, stdin, stdout, func(ctx context.Context, r *contender.Recorder) (contender.Runner, func(), error) {
		switch args[0] {
		case "writ":
			return contender.WorkWrit(ctx, database, broker, o, r, nil)
		case "river":
			return contender.WorkRiver(ctx, database, o, r)
		case "floor":
			return contender.WorkFloor(ctx, database, broker, o, r)
		}
		return nil, nil, fmt.Errorf("there is no worker %q", args[0])
	})
}
