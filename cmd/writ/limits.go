package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/writhq/writ/intent"
)

func (a *app) limitsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "limits", Short: "Limits of kinds over all worker processes: list with their use, set, clear"}
	group(cmd)
	cmd.AddCommand(
		&cobra.Command{
			Use:   "list",
			Short: "List limits, those that the code declares and those that were set, with their use",
			Args:  words(),
			RunE: func(cmd *cobra.Command, _ []string) error {
				return a.withPool(cmd.Context(), func(pool *pgxpool.Pool) error { return a.listLimits(cmd.Context(), pool) })
			},
		},
		a.limitsSetCommand(), a.limitsClearCommand())
	return cmd
}

func (a *app) limitsSetCommand() *cobra.Command {
	var f reasonFlags
	var l intent.Limit
	var none bool
	cmd := &cobra.Command{
		Use:   "set KIND",
		Short: "Set a limit of a kind, or of each of its keys; it counts before what the code declares",
		Long: `Set a limit of a kind as a whole, or, with --key, of each of its keys. It counts before what the
code declares, until writ limits clear. Workers follow within two seconds; what waits comes in order.`,
		Example: `  writ limits set shop.order.charge --starts 100 --per 1m --why 'the bank lets us call it 100 times a minute'
  writ limits set shop.order.charge --running 5 --why 'the bank is slow (INC-431)'
  writ limits set shop.order.charge --key args.customer_id --starts 10 --why 'one customer floods us (INC-432)'`,
		Args: words("KIND"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if none == (l.Starts > 0 || l.Running > 0) {
				return usage("give --starts or --running, or both; or --none: no limit, whatever the code declares")
			}
			return a.changeLimit(cmd.Context(), f, "limited", args[0], func(ctx context.Context, db intent.DB, w intent.Word) error {
				return intent.SetLimit(ctx, db, args[0], l, w)
			})
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&l.Starts, "starts", 0, "so many may start …")
	flags.DurationVar(&l.Per, "per", time.Second, "… in this time, 1s to 744h")
	flags.IntVar(&l.Burst, "burst", 0, "so many at once after a rest (default: 1)")
	flags.IntVar(&l.Running, "running", 0, "so many may run at once")
	flags.StringVar(&l.Key, "key", "", "for each key by itself, which stands here: args.customer_id or subject:customer")
	flags.BoolVar(&none, "none", false, "no limit, whatever the code declares")
	f.bind(cmd)
	return cmd
}

func (a *app) limitsClearCommand() *cobra.Command {
	var f reasonFlags
	var per string
	cmd := &cobra.Command{
		Use:     "clear KIND",
		Short:   "Take back a limit that was set: what the code declares counts again",
		Example: "  writ limits clear shop.order.charge --why 'the bank is well again'",
		Args:    words("KIND"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if per != string(intent.PerKind) && per != string(intent.PerKey) {
				return usage("--per %q: give kind or key", clean(per))
			}
			return a.changeLimit(cmd.Context(), f, "cleared", args[0], func(ctx context.Context, db intent.DB, w intent.Word) error {
				return intent.ClearLimit(ctx, db, args[0], intent.LimitPer(per), w)
			})
		},
	}
	cmd.Flags().StringVar(&per, "per", string(intent.PerKind), "which one: of the kind as a whole, or of each key")
	f.bind(cmd)
	return cmd
}

func (a *app) changeLimit(ctx context.Context, f reasonFlags, past, kind string, do func(context.Context, intent.DB, intent.Word) error) error {
	actor, why, err := f.reason()
	if err != nil {
		return err
	}
	return a.withPool(ctx, func(pool *pgxpool.Pool) error {
		if err := do(ctx, pool, intent.Word{Actor: actor, Why: why}); err != nil {
			return err
		}
		if a.isJSON() {
			return a.emit(struct {
				Did   string `json:"did"`
				Kind  string `json:"kind"`
				Actor string `json:"actor"`
			}{past, kind, actor})
		}
		_, err := fmt.Fprintf(a.stdout, "%s: kind %s\n", past, clean(kind))
		return err
	})
}

func (a *app) listLimits(ctx context.Context, pool *pgxpool.Pool) error {
	all, err := intent.Limits(ctx, pool)
	if err != nil {
		return err
	}
	if a.isJSON() {
		return emitAll(a, all)
	}
	if len(all) == 0 {
		a.note("no kind has a limit")
		return nil
	}
	g := a.grid("kind", "per", "limit", "said by", "next token", "running", "waiting", "why")
	for _, u := range all {
		per := string(u.Per)
		if u.Key != "" {
			per = u.Key
		}
		next, running := "-", "-"
		if u.Starts > 0 {
			next = "now"
			if u.NextToken > 0 {
				next = span(u.NextToken)
			}
			if u.Per == intent.PerKey && u.Keys > 0 && u.NextToken > 0 {
				next += " (" + u.Hottest + ")"
			}
		}
		if u.Running > 0 {
			running = fmt.Sprintf("%d of %d", u.Taken, u.Running)
			if u.Per == intent.PerKey {
				running = fmt.Sprint(u.Taken)
			}
		}
		by := "the code"
		if u.SetBy != "" {
			by = u.SetBy
		}
		g.row(clean(u.Kind), clean(per), limitWords(u.Limit), clean(by), clean(next), running, fmt.Sprint(u.Waiting), short(clean(u.SetWhy), 60))
	}
	return g.print()
}

// limitWords says what a limit allows.
func limitWords(l intent.Limit) string {
	var words []string
	if l.Starts > 0 {
		words = append(words, fmt.Sprintf("%d per %s, burst %d", l.Starts, span(l.Per), l.Burst))
	}
	if l.Running > 0 {
		words = append(words, fmt.Sprintf("%d at once", l.Running))
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, "; ")
}
