package main

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is the program's release.
const version = "0.1.0"

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the versions of fragwall, Go and gVisor",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			goVersion, gvisor := "unknown", "unknown"
			if info, ok := debug.ReadBuildInfo(); ok {
				goVersion = info.GoVersion
				for _, m := range info.Deps {
					if m.Path == "gvisor.dev/gvisor" {
						gvisor = m.Version
					}
				}
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "fragwall %s\ngo %s\ngvisor %s\n", version, goVersion, gvisor)
			return err
		},
	}
}
