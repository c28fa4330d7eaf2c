package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/writhq/writ/internal/store"
	writsql "github.com/writhq/writ/sql"
)

func (a *app) adoptCommand() *cobra.Command {
	var f reasonFlags
	var nothingLost bool
	cmd := &cobra.Command{
		Use:   "adopt",
		Short: "Declare this database to be the real one, and let work begin on it",
		Long: `Declare this database to be the real one, and let work begin on it.

A database that was copied (a restore, a promoted standby, a staging copy) does nothing until
a person adopts it: a copy must not send production's mail. Make sure that the other one is
stopped. If rows may have gone back in time (a restore, an unclean failover), put them into
quarantine first; else say --nothing-lost. A pause goes on: writ resume ends it.`,
		Example: `  writ adopt --why 'restored to 02:55, quarantine made (INC-431)'
  writ adopt --nothing-lost --why 'clean failover to db2, db1 is shut down (INC-431)'`,
		Args: words(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.adopt(cmd.Context(), f, nothingLost) },
	}
	cmd.Flags().BoolVar(&nothingLost, "nothing-lost", false, "nothing that was committed is missing here, so no quarantine is needed")
	f.bind(cmd)
	return cmd
}

func (a *app) adopt(ctx context.Context, f reasonFlags, nothingLost bool) error {
	actor, why, err := f.reason()
	if err != nil {
		return err
	}
	pool, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	if !nothingLost {
		if err := a.checkPast(ctx, pool); err != nil {
			return err
		}
	}
	if _, err := pool.Exec(ctx, writsql.Statement("Adopt"), actor, why); err != nil {
		return fmt.Errorf("adopt: %w", explain(err))
	}
	settings, err := a.settings(ctx, pool)
	if err != nil {
		return err
	}
	if settings.Paused {
		a.note("%s; writ resume lets work begin", settings.Reason())
	}
	config := pool.Config().ConnConfig
	if a.isJSON() {
		return a.emit(struct {
			Database string `json:"database"`
			Host     string `json:"host"`
			Actor    string `json:"actor"`
			Open     bool   `json:"open"`
		}{config.Database, config.Host, actor, settings.Open})
	}
	next := "; work may begin"
	if !settings.Open {
		next = "; it is paused"
	}
	_, err = fmt.Fprintf(a.stdout, "adopted: database %s on %s is the real one%s\n", config.Database, config.Host, next)
	return err
}

// checkPast refuses to open a database whose rows may have gone back in time, which nobody has looked at.
func (a *app) checkPast(ctx context.Context, pool *pgxpool.Pool) error {
	settings, err := a.settings(ctx, pool)
	if err != nil || settings.Adopted {
		return err
	}
	yes, _, _, err := quarantinedHere(ctx, pool)
	if err != nil {
		return fmt.Errorf("look for a quarantine: %w", explain(err))
	}
	if yes {
		return nil
	}
	return &exitError{Code: exitNotAllowed, Err: errors.New(`this is not the database that was adopted: has it lost anything that was committed?
perhaps (a restore, an unclean failover): writ quarantine --since TIME, then adopt
certainly not (a clean failover, a copy that may run): add --nothing-lost`)}
}

func (a *app) settings(ctx context.Context, pool *pgxpool.Pool) (store.Settings, error) {
	return store.New(pool).Settings(ctx)
}
