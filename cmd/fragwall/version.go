package main

import (
	"encoding/json"
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"

	"fragwall/cmd/fragwall/internal/report"
)

// version is the release of the program.
const version = "0.1.0"

// versions returns the versions of the program, Go and gVisor.
func versions() report.Build {
	v := report.Build{Version: version, Go: "unknown", GVisor: "unknown"}
	if info, ok := debug.ReadBuildInfo(); ok {
		v.Go = info.GoVersion
		for _, m := range info.Deps {
			if m.Path == "gvisor.dev/gvisor" {
				v.GVisor = m.Version
			}
		}
	}
	return v
}

func newVersionCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "version [--json]",
		Short: "Print the versions of fragwall, Go and gVisor",
		Args:  usageArgs(noArguments),
	}
	asJSON := c.Flags().Bool("json", false, "print a JSON object with the field names of /api/status")
	c.RunE = func(c *cobra.Command, _ []string) error {
		v := versions()
		if *asJSON {
			return json.NewEncoder(c.OutOrStdout()).Encode(v)
		}
		_, err := fmt.Fprintf(c.OutOrStdout(), "fragwall %s\ngo %s\ngvisor %s\n", v.Version, v.Go, v.GVisor)
		return err
	}
	return c
}
