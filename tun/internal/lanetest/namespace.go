package lanetest

import (
	"context"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"fragwall/tun/lab"
)

// Main runs a package's tests, and fails if one leaves a goroutine running. For users who may not
// make network namespaces, it runs the tests as root of a user namespace, if the kernel allows
// that.
func Main(m *testing.M) {
	if rerun, code, err := lab.Enter(context.Background()); rerun && err == nil {
		os.Exit(code)
	}
	// At its first use, the runtime's poller opens descriptors, which are not leaks of a test.
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	_, _ = r.Close(), w.Close()
	goleak.VerifyTestMain(m)
}

// Timeout is how long a test waits for an event that must happen.
const Timeout = 10 * time.Second

// Namespace returns a network namespace for a test's devices. If the user may not make one, it
// skips the test, or fails it in CI.
func Namespace(t testing.TB) *lab.Namespace {
	t.Helper()
	n, err := lab.NewNamespace(t.Name())
	Require(t, err)
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// Descriptors returns the number of open file descriptors of the process.
func Descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// Do runs f in a namespace, and fails the test if f returns an error.
func Do(t testing.TB, n *lab.Namespace, f func() error) {
	t.Helper()
	if err := n.Do(f); err != nil {
		t.Fatal(err)
	}
}

// Require skips the test if err says that the machine lacks a feature. In CI it fails the test.
func Require(t testing.TB, err error) {
	t.Helper()
	if err != nil && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}
