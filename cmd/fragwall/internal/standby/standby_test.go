package standby

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	systemd "github.com/coreos/go-systemd/v22/daemon"
)

// as is the environment variable that makes the test binary act as a standby.
const as = "FRAGWALL_TEST_STANDBY"

func TestMain(m *testing.M) {
	switch os.Getenv(as) {
	case "":
		os.Exit(m.Run())
	case "fails":
		os.Exit(1)
	}
	for _, name := range []string{"WATCHDOG_USEC", "MAINPID"} {
		if os.Getenv(name) != "" {
			fmt.Fprintln(os.Stderr, name+" is set")
			os.Exit(1)
		}
	}
	for _, state := range []string{systemd.SdNotifyWatchdog, systemd.SdNotifyReady} {
		if sent, err := systemd.SdNotify(false, state); !sent || err != nil {
			fmt.Fprintln(os.Stderr, sent, err)
			os.Exit(1)
		}
	}
}

// manager is a systemd with configurable answers.
type manager struct {
	restarts   bool
	err        error // error of Restarts
	detachErr  error
	scope, pid string // of the detached process
}

func (m *manager) Restarts(_ context.Context, unit string) (bool, error) {
	return m.restarts && unit == "x.service", m.err
}

func (m *manager) Detach(_ context.Context, scope string, pid int) error {
	m.scope, m.pid = scope, fmt.Sprint(pid)
	return m.detachErr
}

func TestRun(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "1")
	t.Setenv("MAINPID", "1")
	t.Setenv("NOTIFY_SOCKET", "/none")
	no := errors.New("no")
	for _, tt := range []struct {
		name, unit, as string
		manager        manager
		want           string // error text; "" for none
		started        bool
	}{
		{"restart", "x.service", "ready", manager{restarts: true}, "", true},
		{"stop", "x.service", "ready", manager{}, "", false},
		{"other unit", "y.service", "ready", manager{restarts: true}, "", false},
		{"no systemd", "x.service", "ready", manager{restarts: true, err: no}, "no", false},
		{"fails", "x.service", "fails", manager{restarts: true}, "the standby did not take over: exit status 1", true},
		{"no scope", "x.service", "ready", manager{restarts: true, detachErr: no}, "no", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv(as, tt.as)
			var stderr strings.Builder
			err := Run(t.Context(), &tt.manager, tt.unit, Command{Path: os.Args[0], Stderr: &stderr})
			if (err == nil) != (tt.want == "") || err != nil && err.Error() != tt.want {
				t.Errorf("got %v, want %q\n%s", err, tt.want, &stderr)
			}
			if m := tt.manager; (m.scope == "fragwall-standby-"+m.pid+".scope") != tt.started {
				t.Errorf("scope %q of process %s", m.scope, m.pid)
			}
		})
	}
}

func TestRunEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := Run(ctx, &manager{restarts: true}, "x.service", Command{Path: "/bin/sleep", Args: []string{"0.01"}})
	if err == nil {
		t.Error("Run succeeded, although the standby did not report that it is ready")
	}
}

// TestAwaitReadyThenEnded awaits a standby that has already reported that it is ready, and has
// already ended.
func TestAwaitReadyThenEnded(t *testing.T) {
	for range 100 {
		ready, err := listen()
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("NOTIFY_SOCKET", ready.LocalAddr().String())
		if _, err := systemd.SdNotify(false, systemd.SdNotifyReady); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		ended <- nil
		if err := await(t.Context(), ready, ended); err != nil {
			t.Fatal(err)
		}
		if err := ready.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
