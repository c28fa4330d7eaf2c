package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/writhq/writ/migrations"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the version of this binary and of the schema that it needs",
		Args:  words(),
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version  string `json:"version"`
				Revision string `json:"revision,omitempty"`
				Go       string `json:"go"`
				Schema   int    `json:"schema"`
			}{Version: "(devel)", Go: runtime.Version(), Schema: migrations.Version}
			if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
				v.Version = info.Main.Version
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						v.Revision = s.Value
					}
				}
			}
			if a.isJSON() {
				return a.emit(v)
			}
			_, err := fmt.Fprintf(a.stdout, "writ %s, schema %d, %s\n", v.Version, v.Schema, v.Go)
			return err
		},
	}
}
