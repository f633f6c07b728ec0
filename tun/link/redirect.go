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
	r := netdev.Redirect{From: from.Attrs().Index, To: to.Attrs().Index, Mark: mark}
	j.later(step{Kind: stepRedirects, Device: r.From, Name: from.Attrs().Name})
	j.redirects = append(j.redirects, r)
	if err := addRedirect(from, r); err != nil {
		return err
	}
	for _, r := range left { // which carried the NIC's former state until now
		if err := r.Remove(); err != nil {
			return fmt.Errorf("remove the filter that a killed fragwall left: %w", err)
		}
	}
	return nil
}

// addRedirect makes a redirect of a device that has a classifier.
func addRedirect(from netlink.Link, r netdev.Redirect) error {
	var err error
	if r.Priority, err = netdev.UnusedPriority(from); err != nil {
		return err
	}
	if err := r.Add(); err != nil {
		return explainRedirect(err)
	}
	return nil
}

// Redirected reports whether it is a redirect that makes the wire.
func (j *Junction) Redirected() bool { return j.master == 0 }

// Repair makes again what somebody removed of a redirect. The NIC stays up, and what
// others have in its classifier by now stays.
func (j *Junction) Repair() error {
	for _, r := range j.redirects {
		from, err := netlink.LinkByIndex(r.From)
		if err != nil {
			return fmt.Errorf("interface of index %d: %w", r.From, err)
		}
		whole, err := redirects(from, r.To)
		if err != nil {
			return err
		}
		if whole {
			continue
		}
		if err := netdev.AddClassifier(r.From); err != nil && !errors.Is(err, unix.EEXIST) {
			return explainRedirect(err)
		}
		if err := addRedirect(from, r); err != nil {
			return err
		}
	}
	return nil
}

// redirectsOf returns the redirects of a device that are the junction's.
func (j *Junction) redirectsOf(index int) []netdev.Redirect {
	from := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
	all, err := netdev.Redirects(from)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(all, func(r netdev.Redirect) bool {
		return !slices.ContainsFunc(j.redirects, func(own netdev.Redirect) bool {
			return r.Mark == own.Mark && (r.To == own.To || r.To == 0) // 0: that is gone
		})
	})
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

// endRedirects removes redirects of a device, and its classifier where nobody else
// has a filter there. The kernel takes both away from a NIC that goes to another
// namespace, and says then that the numbers are wrong.
func endRedirects(device netlink.Link, list []netdev.Redirect) error {
	for _, r := range list {
		if err := r.Remove(); err != nil && !netdev.Gone(err) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("remove the redirect of %q: %w", device.Attrs().Name, err)
		}
	}
	if !netdev.IdleClassifier(device) {
		return nil
	}
	return netdev.RemoveClassifier(device.Attrs().Index)
}

// explainRedirect adds what an operator can do.
func explainRedirect(err error) error {
	switch {
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf(`%w: the interface has a classifier of another program (see "tc qdisc"): remove it, or set join = "bridge"`, err)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: load the kernel modules sch_ingress, cls_u32 and act_mirred, or set join = \"bridge\"", err)
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
	left := leftRedirects(nic)
	if len(left) == 0 {
		return nicState{}, nil, nil
	}
	r := left[0]
	// The kernel forgets the target when the TAP goes, with its process.
	if target, err := netlink.LinkByIndex(r.To); r.To != 0 && err == nil && r.Mark&markBypass == 0 {
		return nicState{}, nil, fmt.Errorf("nic %q is already joined to %q by another fragwall", nic.Attrs().Name, target.Attrs().Name)
	}
	before, _ = stateOf(r.Mark)
	return before, func() error {
		if err := endRedirects(nic, leftRedirects(nic)); err != nil {
			return fmt.Errorf("remove the bypass of a killed fragwall: %w", err)
		}
		return nil
	}, nil
}
