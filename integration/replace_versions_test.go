package integration_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"fragwall/integration/meter"
)

// TestReplaceAcrossVersions hands over from a build of the previous commit to this one, and back.
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

// buildBefore builds the program of the previous commit. In CI it fetches the commit if a shallow clone
// does not have it. Without that commit the test is skipped, but fails in CI.
func buildBefore(t *testing.T) (binary string) {
	t.Helper()
	const before = "HEAD~1"
	run := func(dir, name string, args ...string) error {
		c := exec.Command(name, args...)
		c.Dir = dir
		c.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0")
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", c.Args, err, out)
		}
		return nil
	}
	ci := os.Getenv("CI") != ""
	verify := func() error { return run("..", "git", "rev-parse", "--verify", "--quiet", before+"^{commit}") }
	err := verify()
	if err != nil && ci {
		if err = run("..", "git", "fetch", "--deepen=1"); err == nil {
			err = verify()
		}
	}
	if err != nil && !ci {
		t.Skipf("the previous commit is not available: %v", err)
	}
	must(t, err)
	dir := t.TempDir()
	archive := filepath.Join(dir, "before.tar")
	must(t, run("..", "git", "archive", "--output", archive, before))
	must(t, run(dir, "tar", "-xf", archive))
	binary = filepath.Join(dir, "fragwall.before")
	// With the same flags as for this commit, the build cache has most packages.
	must(t, run(dir, "go", append(buildFlags, "-buildvcs=false", "-o", binary, "./cmd/fragwall")...))
	return binary
}
