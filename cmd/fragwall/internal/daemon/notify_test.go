package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestNotify receives notifications as a service manager does.
func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	hear := func() string {
		b := make([]byte, 256)
		_ = manager.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := manager.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "2000")
	n := openNotifier(slog.New(slog.DiscardHandler))
	n.send("READY=1")
	if got := hear(); got != "READY=1" {
		t.Errorf("%q", got)
	}
	n.reloading()
	if got := hear(); !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") {
		t.Errorf("%q", got)
	}

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	asked := make(chan struct{})
	go func() {
		defer close(ended)
		n.watch(ctx, func(context.Context) error {
			select {
			case asked <- struct{}{}:
				return nil
			case <-ctx.Done():
				return errors.New("stuck")
			}
		})
	}()
	for range 3 {
		<-asked
		if got := hear(); got != "WATCHDOG=1" {
			t.Errorf("%q", got)
		}
	}
	cancel()
	<-ended
}

// TestNotifyWithoutManager checks that the notifier does nothing without a service manager.
func TestNotifyWithoutManager(t *testing.T) {
	for _, path := range []string{"", filepath.Join(t.TempDir(), "none")} {
		t.Setenv("NOTIFY_SOCKET", path)
		n := openNotifier(slog.New(slog.DiscardHandler))
		n.send("READY=1")
		n.watch(t.Context(), nil)
	}
}
