package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newManCommand returns a command for those who make packages.
func newManCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIRECTORY",
		Short:  "Write the manual pages of all commands into a directory",
		Args:   usageArgs(cobra.ExactArgs(1)),
		Hidden: true,
		RunE: func(c *cobra.Command, args []string) error {
			root := c.Root()
			root.DisableAutoGenTag = true
			epoch := time.Unix(0, 0) // so that the pages of one release are the same
			header := &doc.GenManHeader{Title: "FRAGWALL", Section: "1", Source: "fragwall " + version, Date: &epoch}
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("manual pages: %w", err)
			}
			if err := doc.GenManTree(root, header, filepath.Clean(args[0])); err != nil {
				return fmt.Errorf("manual pages: %w", err)
			}
			return nil
		},
	}
}
