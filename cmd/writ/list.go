package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/writhq/writ/intent"
)

func (a *app) listCommand() *cobra.Command {
	var f filterFlags
	var limit int
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List intents, the newest first",
		Example: `  writ list --status ambiguous --since 1h
  writ list --kind blog.comment.notify --subject customer:7 -o jsonl`,
		Args: words(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 || limit > 100_000 {
				return usage("--limit %d: give 1 to 100000", limit)
			}
			f.Limit = limit
			return a.list(cmd.Context(), f)
		},
	}
	f.add(cmd.Flags())
	cmd.Flags().IntVar(&limit, "limit", 50, "at most so many")
	return cmd
}

func (a *app) list(ctx context.Context, flags filterFlags) error {
	pool, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	f, err := flags.filter(func() time.Time { return now(ctx, pool) })
	if err != nil {
		return err
	}
	limit := f.Limit
	f.Limit++ // one more tells whether there are more
	found, err := intent.List(ctx, pool, f)
	if err != nil {
		return err
	}
	if more := len(found) > limit; more {
		found = found[:limit]
		a.note("there are more than these %d; raise --limit or narrow the search", limit)
	}
	if a.isJSON() {
		return emitAll(a, found)
	}
	if len(found) == 0 {
		a.note("no intents match")
		return nil
	}
	at := now(ctx, pool)
	if a.output == outputWide {
		return a.listWide(found, at)
	}
	g := a.grid("id", "kind", "status", "try", "age", "note")
	kind, status, try, age := len("kind"), len("status"), len("try"), len("59 m 59 s")
	for _, i := range found {
		kind, status = max(kind, len(i.Kind)), max(status, len(i.Status))
		try, age = max(try, len(tries(i))), max(age, len(span(at.Sub(i.RequestedAt))))
	}
	rest := a.width() - 36 - kind - status - try - age - 5*2
	for _, i := range found {
		g.row(i.ID.String(), clean(i.Kind), a.paint(i.Status), tries(i), span(at.Sub(i.RequestedAt)),
			short(remark(i, at), max(16, rest)))
	}
	return g.print()
}

func (a *app) listWide(found []intent.Intent, at time.Time) error {
	g := a.grid("id", "kind", "status", "state", "epoch", "try", "age", "requested", "run at", "worker", "subjects", "tid", "key", "note")
	for _, i := range found {
		g.row(i.ID.String(), clean(i.Kind), a.paint(i.Status), string(i.State), fmt.Sprint(i.Epoch), tries(i),
			span(at.Sub(i.RequestedAt)), clock(i.RequestedAt), clock(i.RunAt), workerOf(i), subjectsOf(i), i.TID.String(),
			i.IdempotencyKey, remark(i, at))
	}
	return g.print()
}

func tries(i intent.Intent) string { return fmt.Sprintf("%d/%d", i.Attempt, i.MaxAttempts) }

// remark is the one thing worth knowing of an intent in a list.
func remark(i intent.Intent, at time.Time) string {
	switch i.Status {
	case "ambiguous":
		return joined(said(i.FlagReason), said(i.Error))
	case "error":
		return said(i.Error)
	case "retrying":
		return joined("in "+span(i.RunAt.Sub(at)), said(i.Error))
	case "scheduled":
		return joined("in "+span(i.RunAt.Sub(at)), subjectsOf(i))
	case "running":
		return workerOf(i)
	}
	return subjectsOf(i)
}

func joined(parts ...string) string {
	var some []string
	for _, p := range parts {
		if p != "" {
			some = append(some, p)
		}
	}
	return strings.Join(some, ": ")
}

// said is what an optional text from outside says, on one safe line.
func said(s *string) string {
	if s == nil {
		return ""
	}
	return clean(*s)
}

func subjectsOf(i intent.Intent) string { return clean(strings.Join(i.Subjects, " ")) }

// workerOf names the process that claimed it last.
func workerOf(i intent.Intent) string {
	switch {
	case i.Host != nil && i.PID != nil:
		return fmt.Sprintf("%s pid %d", clean(*i.Host), *i.PID)
	case i.WorkerID != nil:
		return "worker " + i.WorkerID.String()
	}
	return ""
}
