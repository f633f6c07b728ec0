package lanetest

import (
	"context"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"fragwall/tun/lab"
)

// Main runs a package's tests, and fails where one leaves a goroutine behind. A user
// who may not make network namespaces runs them as root of a user namespace, where
// those are to be had.
func Main(m *testing.M) {
	if rerun, code, err := lab.Enter(context.Background()); rerun && err == nil {
		os.Exit(code)
	}
	// The runtime's poller opens descriptors of its own at its first use, which
	// are none that a test leaves open.
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	_, _ = r.Close(), w.Close()
	goleak.VerifyTestMain(m)
}

// Timeout is how long a test waits for what must come.
const Timeout = 10 * time.Second

// Namespace returns a network namespace for a test's devices. A user who may
// not make one skips the test, but not where CI runs it.
func Namespace(t testing.TB) *lab.Namespace {
	t.Helper()
	n, err := lab.NewNamespace(t.Name())
	Require(t, err)
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// Descriptors returns how many file descriptors the process has.
func Descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// Do runs f in a namespace and fails where it fails.
func Do(t testing.TB, n *lab.Namespace, f func() error) {
	t.Helper()
	if err := n.Do(f); err != nil {
		t.Fatal(err)
	}
}

// Require skips the test for an error that says what this machine does not have, but
// not where CI runs it.
func Require(t testing.TB, err error) {
	t.Helper()
	if err != nil && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}
