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

func (a *app) treeCommand() *cobra.Command {
	cmd := a.lookCommand("tree", "Show all that one root caused: intents by who created them", a.tree)
	cmd.Long = "Show all intents of this database that share a transaction id, as a tree. ID is that of the root, which is the\ntransaction id, or of any intent in the tree."
	return cmd
}

func (a *app) tree(ctx context.Context, pool *pgxpool.Pool, id intent.ID) error {
	found, err := intent.Tree(ctx, pool, id)
	if err != nil {
		return err
	}
	if len(found) == intent.MaxTree {
		a.note("the tree may have more than these %d", len(found))
	}
	if a.isJSON() {
		return emitAll(a, found)
	}
	g := a.grid("intent", "status", "try", "age", "id")
	at := now(ctx, pool)
	known := map[intent.ID]bool{}
	children := map[intent.ID][]intent.Intent{} // by parent; zero: roots, and those whose parent is not here
	counts := map[string]int{}
	for _, i := range found {
		known[i.ID] = true
		counts[i.Status]++
	}
	for _, i := range found {
		parent := intent.ID{}
		if i.ParentID != nil && known[*i.ParentID] && *i.ParentID != i.ID {
			parent = *i.ParentID
		}
		children[parent] = append(children[parent], i)
	}
	shown := map[intent.ID]bool{}
	var show func(siblings []intent.Intent, prefix string, top bool)
	show = func(siblings []intent.Intent, prefix string, top bool) {
		for n, i := range siblings {
			if shown[i.ID] {
				continue
			}
			shown[i.ID] = true
			branch, below := "├─ ", "│  "
			if n == len(siblings)-1 {
				branch, below = "└─ ", "   "
			}
			if top {
				branch, below = "", ""
			}
			a.branch(g, prefix+branch, i, at)
			show(children[i.ID], prefix+below, false)
		}
	}
	show(children[intent.ID{}], "", true)
	for _, i := range found { // a parent that is its own descendant: written by hand
		show([]intent.Intent{i}, "", true)
	}
	if err := g.print(); err != nil {
		return err
	}
	var parts []string
	for _, status := range intent.Statuses() {
		if n := counts[status]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, status))
		}
	}
	_, err = fmt.Fprintf(a.stdout, "tid %s: %s\n", found[0].TID, strings.Join(parts, ", "))
	return err
}

// branch is one line. Of one whose parent is elsewhere it says so.
func (a *app) branch(g *grid, prefix string, i intent.Intent, at time.Time) {
	name := prefix + clean(i.Kind)
	if prefix == "" && i.ParentID != nil {
		name += fmt.Sprintf(" (of %s, not in this database)", i.ParentID)
	}
	g.row(name, a.paint(i.Status), tries(i), span(at.Sub(i.RequestedAt)), i.ID.String())
}
