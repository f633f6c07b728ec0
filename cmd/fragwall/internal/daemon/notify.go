package daemon

import (
	"context"
	"log/slog"
	"net"
	"os"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
)

// notifier reports the state of the process to the service manager (sd_notify(3)). Unlike
// [systemd.SdNotify], which opens a socket for each message, it opens one socket at the start,
// before the process drops the right to open sockets. Without a service manager, it does
// nothing.
type notifier struct {
	socket   *net.UnixConn // nil without a service manager
	interval time.Duration // timeout of the watchdog; 0 without a watchdog
}

// openNotifier returns a notifier according to the environment.
func openNotifier(log *slog.Logger) *notifier {
	n := &notifier{}
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return n
	}
	socket, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		log.Warn("cannot notify the service manager", "error", err)
		return n
	}
	n.socket = socket
	if n.interval, err = systemd.SdWatchdogEnabled(false); err != nil {
		log.Warn("cannot notify the service manager's watchdog", "error", err)
	}
	return n
}

// send sends a state. Errors are ignored, because the process runs without the manager as well.
func (n *notifier) send(state string) {
	if n.socket != nil {
		_, _ = n.socket.Write([]byte(state))
	}
}

// reloading reports that a reload begins, with the time, which the manager requires.
func (n *notifier) reloading() {
	n.send(systemd.SdNotifyReloading + "\n" + systemd.SdNotifyMonotonicUsec())
}

// watch notifies the watchdog while the datapath is alive, until ctx is done.
func (n *notifier) watch(ctx context.Context, alive func(context.Context) error) {
	if n.interval == 0 {
		return
	}
	ticker := time.NewTicker(n.interval / 2)
	defer ticker.Stop()
	for {
		probe, cancel := context.WithTimeout(ctx, n.interval/2)
		if alive(probe) == nil {
			n.send(systemd.SdNotifyWatchdog)
		}
		cancel()
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
