package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/writhq/writ/internal/store"
	"github.com/writhq/writ/migrations"
)

func (a *app) migrateCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "migrate", Short: "Bring the database to the schema that this binary needs"}
	group(cmd)
	var yes bool
	down := &cobra.Command{
		Use:   "down",
		Short: "Remove schema writ with everything in it, all intents included",
		Args:  words(),
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.migrateDown(cmd.Context(), yes) },
	}
	down.Flags().BoolVar(&yes, "yes", false, "do it without asking; required off a terminal")
	cmd.AddCommand(
		&cobra.Command{
			Use:   "up",
			Short: "Apply what is missing; safe to run from many processes at once",
			Args:  words(),
			RunE:  func(cmd *cobra.Command, _ []string) error { return a.migrateUp(cmd.Context()) },
		},
		down,
		&cobra.Command{
			Use:   "status",
			Short: "Show where the database stands; exit code 1 unless it is up to date",
			Args:  words(),
			RunE:  func(cmd *cobra.Command, _ []string) error { return a.migrateStatus(cmd.Context()) },
		},
	)
	return cmd
}

func (a *app) connConfig(ctx context.Context) (*pgx.ConnConfig, error) {
	config, err := a.config(ctx)
	if err != nil {
		return nil, err
	}
	return config.ConnConfig, nil
}

func (a *app) migrateUp(ctx context.Context) error {
	config, err := a.connConfig(ctx)
	if err != nil {
		return err
	}
	report, err := migrations.Up(ctx, config)
	for _, notice := range report.Notices {
		a.note("%s", clean(notice))
	}
	if err != nil {
		if len(report.Applied) > 0 {
			a.note("applied before the failure: %s", strings.Join(report.Applied, ", "))
		}
		return err
	}
	if a.isJSON() {
		return a.emit(migrations.Report{
			Applied: append([]string{}, report.Applied...), Repeatable: append([]string{}, report.Repeatable...),
			Notices: append([]string{}, report.Notices...),
		})
	}
	if len(report.Applied)+len(report.Repeatable) == 0 {
		_, err = fmt.Fprintf(a.stdout, "already up to date at schema %d\n", migrations.Version)
		return err
	}
	g := a.grid("applied", "file")
	for _, name := range report.Applied {
		g.row("migration", name)
	}
	for _, name := range report.Repeatable {
		g.row("repeatable", name+".sql")
	}
	return g.print()
}

func (a *app) migrateDown(ctx context.Context, yes bool) error {
	config, err := a.connConfig(ctx)
	if err != nil {
		return err
	}
	if !yes {
		if err := a.confirmDown(config); err != nil {
			return err
		}
	}
	rolled, err := migrations.Down(ctx, config)
	if pgErr, ok := store.Code(err); ok && pgErr.Code == noSuchSchema {
		err = nil // as it should be
	}
	if err != nil {
		return err
	}
	if a.isJSON() {
		return a.emit(struct {
			RolledBack []string `json:"rolled_back"`
		}{append([]string{}, rolled...)})
	}
	if len(rolled) == 0 {
		_, err = fmt.Fprintf(a.stdout, "database %s had no Writ schema\n", config.Database)
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "schema writ is removed from database %s (%s)\n", config.Database, strings.Join(rolled, ", "))
	return err
}

// noSuchSchema is the SQLSTATE of a database without schema writ.
const noSuchSchema = "3F000"

// confirmDown lets a person at a terminal type the database's name; nobody else is asked.
func (a *app) confirmDown(config *pgx.ConnConfig) error {
	if !isTerminal(a.stdin) {
		return usage("migrate down removes all intents of database %s on %s; if you mean it, add --yes", config.Database, config.Host)
	}
	_, _ = fmt.Fprintf(a.stderr, "This removes schema writ, all intents included, from database %s on %s.\nType the database's name to go on: ",
		config.Database, config.Host)
	answer, _ := bufio.NewReader(a.stdin).ReadString('\n') // nothing read is no confirmation
	if strings.TrimSpace(answer) != config.Database {
		return errors.New("not confirmed; nothing was changed")
	}
	return nil
}

func (a *app) migrateStatus(ctx context.Context) error {
	config, err := a.connConfig(ctx)
	if err != nil {
		return err
	}
	status, err := migrations.Read(ctx, config)
	if err != nil {
		return err
	}
	if a.isJSON() {
		err = a.emit(struct {
			migrations.Status
			UpToDate bool `json:"up_to_date"`
		}{status, status.UpToDate()})
	} else {
		err = a.columns([][2]string{
			{"database", config.Database + " on " + config.Host},
			{"schema", fmt.Sprintf("%d of %d", status.Current, status.Target)},
			{"functions", staleness(status)},
		})
	}
	if err == nil && !status.UpToDate() {
		a.note("not up to date; run writ migrate up")
		return &exitError{Code: exitFailure}
	}
	return err
}

func staleness(s migrations.Status) string {
	if len(s.Stale) == 0 {
		return "up to date"
	}
	return "to be applied: " + strings.Join(s.Stale, ", ")
}
