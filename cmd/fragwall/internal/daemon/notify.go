package daemon

import (
	"context"
	"log/slog"
	"net"
	"os"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
)

// notifier reports the state of the process to the service manager (sd_notify(3)). [systemd.SdNotify] opens a socket for each state: this one is opened once,
// at the start, before the process gives up the right to open any. Where no manager
// asked for it, it does nothing.
type notifier struct {
	socket   *net.UnixConn // nil where no manager asked for it
	interval time.Duration // within which the watchdog wants to hear; 0: it does not
}

// openNotifier returns what the environment asks for.
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

// send sends a state. A manager that does not listen is no reason to stop.
func (n *notifier) send(state string) {
	if n.socket != nil {
		_, _ = n.socket.Write([]byte(state))
	}
}

// reloading reports that a reload begins, of which the manager wants to know when.
func (n *notifier) reloading() {
	n.send(systemd.SdNotifyReloading + "\n" + systemd.SdNotifyMonotonicUsec())
}

// watch keeps the watchdog quiet, as long as the datapath is alive, until ctx
// is done.
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
