package integration_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"fragwall/tun/lab"
)

var (
	program    string // path of the binary under test
	buildFlags = []string{"build"}
)

// waitTimeout is the time limit for events that normally happen at once.
const waitTimeout = 20 * time.Second

func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	rerun, code, err := lab.Enter(ctx)
	stop()
	if err == nil && !rerun {
		code, err = runTests(m)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "integration tests cannot run here:", err)
		if code = 0; os.Getenv("CI") != "" {
			code = 1 // CI must not skip the tests
		}
	}
	os.Exit(code)
}

// runTests builds the program and runs the tests. It returns an error if a requirement is missing.
func runTests(m *testing.M) (code int, err error) {
	tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	if err := tun.Close(); err != nil {
		return 0, err
	}
	for _, tool := range []string{"ping", "ip", "nft", "conntrack"} {
		if _, err := exec.LookPath(tool); err != nil {
			return 0, err
		}
	}
	dir, err := os.MkdirTemp("", "fragwall-integration")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "fragwall")
	build := exec.Command("go", append(buildFlags, "-o", program, "fragwall/cmd/fragwall")...)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build fragwall:", err)
		return 1, nil
	}
	return m.Run(), nil
}
