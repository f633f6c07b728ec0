package link

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/tun/netdev"
)

// redirect sends what comes in by the NIC out by the TAP, and the other way:
// a filter on the ingress of each, before any bridge, firewall or protocol
// sees the frame (tc-mirred(8)). The NIC's filter carries its former state.
func (j *Junction) redirect(nic, tap netlink.Link, before nicState) error {
	for _, way := range []struct {
		from, to netlink.Link
		mark     uint32
	}{{tap, nic, 0}, {nic, tap, before.mark()}} {
		j.kept = len(j.undo) // of the last: the NIC's
		if err := j.redirectTo(way.from, way.to, way.mark); err != nil {
			return fmt.Errorf("redirect %q to %q: %w", way.from.Attrs().Name, way.to.Attrs().Name, err)
		}
	}
	return nil
}

func (j *Junction) redirectTo(from, to netlink.Link, mark uint32) error {
	left := leftRedirects(from)
	if len(left) == 0 {
		if err := netdev.AddClassifier(from.Attrs().Index); err != nil {
			return explainRedirect(err)
		}
	}
	j.undo.push(func() error { return removeClassifier(from) })
	r := netdev.Redirect{From: from.Attrs().Index, To: to.Attrs().Index, Mark: mark, Priority: unusedPriority(left)}
	if err := r.Add(); err != nil {
		return explainRedirect(err)
	}
	for _, r := range left { // which carried the NIC's former state until now
		if err := r.Remove(); err != nil {
			return fmt.Errorf("remove the filter that a killed fragwall left: %w", err)
		}
	}
	return nil
}

// leftRedirects returns those of a killed fragwall.
func leftRedirects(from netlink.Link) []netdev.Redirect {
	all, err := netdev.Redirects(from)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(all, func(r netdev.Redirect) bool {
		_, ours := stateOf(r.Mark)
		return !ours
	})
}

// unusedPriority returns one that no redirect among those has.
func unusedPriority(redirects []netdev.Redirect) uint16 {
	for p := uint16(1); ; p++ {
		if !slices.ContainsFunc(redirects, func(r netdev.Redirect) bool { return r.Priority == p }) {
			return p
		}
	}
}

// removeClassifier takes a classifier away. One of a NIC that was in another
// namespace for a while is gone already: for the kernel its handle is wrong.
func removeClassifier(device netlink.Link) error {
	if err := netdev.RemoveClassifier(device.Attrs().Index); !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}

// explainRedirect adds what an operator can do.
func explainRedirect(err error) error {
	switch {
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf(`%w: the interface has a classifier of its own (see "tc qdisc"): remove it, or join by a bridge`, err)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: load the kernel's modules sch_ingress, cls_u32 and act_mirred, or join by a bridge", err)
	}
	return err
}

// redirects reports whether what comes in by a device is redirected to the one
// of an index.
func redirects(from netlink.Link, to int) (bool, error) {
	all, err := netdev.Redirects(from)
	return slices.ContainsFunc(all, func(r netdev.Redirect) bool { return r.To == to }), err
}

// redirected returns the state of a NIC from before a killed fragwall's redirect,
// or a bypass, that it was left with, and what ends that. There is no end where
// there is no redirect of fragwall's.
func redirected(nic netlink.Link) (before nicState, end func() error, err error) {
	for _, r := range leftRedirects(nic) {
		state, _ := stateOf(r.Mark)
		// The kernel forgets the target when the TAP goes, with its process.
		if target, err := netlink.LinkByIndex(r.To); r.To != 0 && err == nil && r.Mark&markBypass == 0 {
			return nicState{}, nil, fmt.Errorf("nic %q is joined to %q already, by another fragwall", nic.Attrs().Name, target.Attrs().Name)
		}
		return state, func() error {
			if err := netdev.RemoveClassifier(nic.Attrs().Index); err != nil {
				return fmt.Errorf("nic %q: end the redirect that a killed fragwall left: %w", nic.Attrs().Name, err)
			}
			return nil
		}, nil
	}
	return nicState{}, nil, nil
}
