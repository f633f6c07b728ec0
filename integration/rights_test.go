package integration_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLeastRights checks the capabilities and the seccomp mode of each thread of the running program,
// and that the program can still reload replaced files. The tests of package confine check what a
// process with the same restrictions cannot do.
func TestLeastRights(t *testing.T) {
	b := start(t, newNetwork(t), "[sets]\nall = [\"0.0.0.0/0\"]\n[[rule]]\nname = \"r\"\naction = \"accept\"\nsrc = \"@all\"\n")
	if said := b.stderr.String(); strings.Contains(said, "keeps rights") {
		t.Error(said)
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", b.Pid))
	must(t, err)
	netAdmin := fmt.Sprintf("%016x", 1<<unix.CAP_NET_ADMIN)
	for _, thread := range threads {
		status, err := os.ReadFile(thread)
		if err != nil {
			continue // the thread has ended
		}
		for name, want := range map[string]string{
			"CapEff": netAdmin, "CapPrm": netAdmin, "CapInh": "0000000000000000", "CapAmb": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2",
		} {
			found := regexp.MustCompile(name + `:\s+(\w+)`).FindSubmatch(status)
			if found == nil || string(found[1]) != want {
				t.Errorf("%s: %s is %s, want %s", thread, name, found, want)
			}
		}
	}

	// Replace the file, as editors do.
	text, err := os.ReadFile(b.file)
	must(t, err)
	must(t, os.WriteFile(b.file+".new", append(text, "[[rule]]\nname = \"second\"\naction = \"accept\"\n"...), 0o600))
	must(t, os.Rename(b.file+".new", b.file))
	b.signal(t, unix.SIGHUP)
	b.stderr.await(t, b.process, 0, `msg=reloaded .*policy="2 rules`)

	// Use a set file in a directory that the configuration did not name at the start.
	set := filepath.Join(t.TempDir(), "set.txt")
	must(t, os.WriteFile(set, []byte("10.0.0.0/8\n"), 0o600))
	must(t, os.WriteFile(b.file, fmt.Appendf(nil, "%s[sets]\nnew = { file = %q }\n", devices, set), 0o600))
	mark := len(b.stderr.String())
	b.signal(t, unix.SIGHUP)
	said := b.stderr.await(t, b.process, mark, `move the file there, or restart`)
	if !strings.Contains(said, ": permission denied\"") || strings.Count(said, set) != 1 {
		t.Error(said)
	}
}
