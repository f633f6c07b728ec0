package tun

import (
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"fragwall/integration/lab"
)

func TestMain(m *testing.M) {
	// The runtime's poller opens descriptors of its own at its first use, which
	// are none that a test leaves open.
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	_, _ = r.Close(), w.Close()
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

// namespace returns a network namespace for a test's devices. A user who may
// not make one skips the test, but not where CI runs it.
func namespace(t testing.TB) *lab.Namespace {
	t.Helper()
	n, err := lab.NewNamespace(t.Name())
	if err != nil && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// descriptors returns how many file descriptors the process has.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// do runs f in a namespace and fails where it fails.
func do(t testing.TB, n *lab.Namespace, f func() error) {
	t.Helper()
	if err := n.Do(f); err != nil {
		t.Fatal(err)
	}
}
