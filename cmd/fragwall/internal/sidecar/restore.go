package sidecar

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"fragwall/tun/handover"
	"fragwall/tun/link"
	"fragwall/tun/netdev"
)

// lockNIC prevents a second sidecar at the same NIC: abstract socket names are unique per
// network namespace, and the socket ends with the process (unix(7)).
func lockNIC(nic string) (unlock func(), err error) {
	l, err := net.Listen("unix", "@fragwall/sidecar/"+nic)
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("nic %q: another sidecar uses it", nic)
	}
	if err != nil {
		return nil, fmt.Errorf("lock nic %q: %w", nic, err)
	}
	return func() { _ = l.Close() }, nil
}

// putBackLeft restores what a killed sidecar left of a NIC, and reports whether there was
// anything.
func putBackLeft(store *handover.Store, log *slog.Logger) (done bool, err error) {
	state, err := store.Load()
	if err != nil {
		return false, err
	}
	if state == nil {
		return false, store.Remove() // an incomplete one, or that of a namespace that no longer exists
	}
	if err := awaitEnd(state.TAPs); err != nil {
		return false, err
	}
	nic, err := state.Device()
	if err != nil {
		return false, fmt.Errorf("%w: its state is kept in %q", err, store.Path())
	}
	if err := state.Return(state.TAPs[0], func() error { return link.Release(nic, state.Bridge) }); err != nil {
		return false, err
	}
	log.Info("restored the state that a killed sidecar left", "nic", nic, "returned", state.Summary())
	return true, store.Remove()
}

// replaceLeft is [putBackLeft] for a start: state that a killed sidecar left for a NIC that is
// gone does not prevent a start at another NIC of the same name.
func replaceLeft(nic string, store *handover.Store, log *slog.Logger) error {
	_, err := putBackLeft(store, log)
	if !errors.Is(err, netdev.ErrMissing) {
		return err
	}
	if _, readErr := readNIC(nic, store); readErr != nil {
		return err
	}
	path, asideErr := store.SetAside()
	if asideErr != nil {
		return asideErr
	}
	log.Warn("the nic of a killed sidecar is gone and another nic has its name: its state is kept", "nic", nic, "file", path, "error", err)
	return nil
}

// endDelay is how long the kernel may take to remove the devices of a killed process: it frees
// their rings asynchronously.
const endDelay = 10 * time.Second

// awaitEnd waits until a killed sidecar's devices are gone.
func awaitEnd(taps []string) error {
	deadline := time.Now().Add(endDelay)
	for _, name := range taps {
		for {
			if _, err := net.InterfaceByName(name); err != nil {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("tap %q still exists: end the process that uses it", name)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

// Restore restores what a killed sidecar left, and does nothing else.
func Restore(nic string, store *handover.Store, log *slog.Logger) error {
	unlock, err := lockNIC(nic)
	if err != nil {
		return err
	}
	defer unlock()
	done, err := putBackLeft(store, log)
	if err == nil && !done {
		log.Info("nothing to restore: no killed sidecar left any state", "nic", nic, "file", store.Path())
	}
	return err
}
