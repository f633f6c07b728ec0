package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestCompleteRules checks that --rule is completed with the rule names of the file that -c
// names.
func TestCompleteRules(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.toml")
	writeFile(t, file, validFile+"[[rule]]\nname = \"door\"\naction = \"drop\"\n[[rule]]\nname = \"web\"\naction = \"drop\"\n")
	for arguments, want := range map[string]string{
		"-c " + file + " --rule d": "dns\ndoor\n:4\n", "--rule d": ":4\n", "-c " + file + "x --rule d": ":4\n",
	} {
		if stdout, _, code := runCommand(t, append([]string{"__complete", "status"}, strings.Fields(arguments)...)...); stdout != want || code != 0 {
			t.Errorf("%s: exit %d: %q, want %q", arguments, code, stdout, want)
		}
	}
}
