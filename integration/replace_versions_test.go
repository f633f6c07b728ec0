package integration_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fragwall/integration/meter"
)

// TestReplaceAcrossVersions hands over from a build of the previous commit, and back to it.
func TestReplaceAcrossVersions(t *testing.T) {
	before := buildBefore(t)
	n := newNetwork(t)
	b := &box{Network: n, file: configure(t, devices+stateful)}
	b.process = launchBinary(t, before, n.Middle, nil, "run", "-c", b.file)
	b.ready(t)
	idle := b.acquaint(t, 20)
	l := handoverScale().load
	b.underLoad(t, l, func(m *meter.Meter) {
		for _, binary := range []string{program, before, program} {
			b.replaceBy(t, binary)
			flows(t, m, l, 200*time.Millisecond)
		}
		idle.talk(t)
	})
	b.settle(t)
	b.stop(t)
}

// buildBefore builds the program of the commit before this one. A clone without history does
// not have that commit: there the test is skipped, and says so.
func buildBefore(t *testing.T) (binary string) {
	t.Helper()
	run := func(dir, command string) string {
		t.Helper()
		c := exec.Command("sh", "-c", command)
		c.Dir = dir
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if shallow := run("..", "git rev-parse --is-shallow-repository"); shallow == "true" {
		t.Skip("the clone is shallow: there is no commit before this one to build")
	}
	dir := t.TempDir()
	run("..", fmt.Sprintf("git archive HEAD~1 | tar -x -C %s", dir))
	binary = filepath.Join(t.TempDir(), "fragwall")
	run(dir, strings.Join(append([]string{"go"}, buildFlags...), " ")+" -trimpath -buildvcs=false -o "+binary+" ./cmd/fragwall")
	return binary
}
