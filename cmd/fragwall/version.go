package main

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is the program's release.
const version = "0.1.0"

// versionSet is what the program is made of.
type versionSet struct{ program, goVersion, gvisor string }

// versions returns what this program is made of.
func versions() versionSet {
	v := versionSet{program: version, goVersion: "unknown", gvisor: "unknown"}
	if info, ok := debug.ReadBuildInfo(); ok {
		v.goVersion = info.GoVersion
		for _, m := range info.Deps {
			if m.Path == "gvisor.dev/gvisor" {
				v.gvisor = m.Version
			}
		}
	}
	return v
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the versions of fragwall, Go and gVisor",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			v := versions()
			_, err := fmt.Fprintf(c.OutOrStdout(), "fragwall %s\ngo %s\ngvisor %s\n", v.program, v.goVersion, v.gvisor)
			return err
		},
	}
}
