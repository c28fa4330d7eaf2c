package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	writsql "github.com/writhq/writ/sql"
)

func (a *app) adoptCommand() *cobra.Command {
	var f reasonFlags
	cmd := &cobra.Command{
		Use:   "adopt",
		Short: "Declare this database to be the real one, and let work begin on it",
		Long: `Declare this database to be the real one, and let work begin on it.

A database that was copied (a restore, a promoted standby, a staging copy) does nothing until
a person adopts it: a copy must not send production's mail. Make sure that the other one is
stopped. Adopting also ends a pause.`,
		Example: "  writ adopt --why 'failover to db2, db1 is shut down (INC-431)'",
		Args:    words(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.adopt(cmd.Context(), f) },
	}
	cmd.Flags().StringVar(&f.why, "why", "", "the reason, at least 10 characters; recorded (required)")
	cmd.Flags().StringVar(&f.actor, "actor", "", "who decides; recorded (default: the OS user and host)")
	cmd.Flags().Bool("yes", false, "accepted by all writes; this one never asks")
	return cmd
}

func (a *app) adopt(ctx context.Context, f reasonFlags) error {
	actor, why, err := f.reason()
	if err != nil {
		return err
	}
	pool, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	if _, err := pool.Exec(ctx, writsql.Statement("Adopt"), actor, why); err != nil {
		return fmt.Errorf("adopt: %w", explain(err))
	}
	config := pool.Config().ConnConfig
	if a.isJSON() {
		return a.emit(struct {
			Database string `json:"database"`
			Host     string `json:"host"`
			Actor    string `json:"actor"`
		}{config.Database, config.Host, actor})
	}
	_, err = fmt.Fprintf(a.stdout, "adopted: database %s on %s is the real one; work may begin\n", config.Database, config.Host)
	return err
}
