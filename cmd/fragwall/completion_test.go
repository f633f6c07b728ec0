package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestCompleteRules offers the names of the rules in the file that the command
// line names, whatever command has a flag for one.
func TestCompleteRules(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.toml")
	writeFile(t, file, validFile+"[[rule]]\nname = \"door\"\naction = \"drop\"\n[[rule]]\nname = \"web\"\naction = \"drop\"\n")
	for arguments, want := range map[string]string{
		"-c " + file + " --rule d": "dns\ndoor\n:4\n", "--rule d": ":4\n", "-c " + file + "x --rule d": ":4\n",
	} {
		c := &cobra.Command{Use: "c", Run: func(*cobra.Command, []string) {}}
		c.Flags().String("rule", "", "")
		configFlag(c)
		root := &cobra.Command{Use: "fragwall"}
		root.AddCommand(c)
		addCompletions(root)
		var stdout strings.Builder
		root.SetOut(&stdout)
		root.SetErr(&strings.Builder{})
		root.SetArgs(append([]string{"__complete", "c"}, strings.Fields(arguments)...))
		if err := root.Execute(); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(stdout.String(), want) {
			t.Errorf("%s: %q, want %q", arguments, stdout.String(), want)
		}
	}
}
