package link

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/tun/netdev"
)

// redirect makes the frames that arrive on the NIC leave through the TAP, and the reverse, by a
// filter on the ingress of each, before any bridge, firewall or protocol sees the frame
// (tc-mirred(8)). The NIC's filter stores the NIC's former state.
func (j *Junction) redirect(nic, tap netlink.Link, before nicState) error {
	for _, way := range []struct {
		from, to netlink.Link
		mark     uint32
	}{{tap, nic, 0}, {nic, tap, before.mark()}} {
		j.kept = len(j.undo) // at the end: the steps before the NIC's redirect
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
	for _, r := range left { // these stored the NIC's former state until now
		if err := r.Remove(); err != nil {
			return fmt.Errorf("remove the filter that a killed fragwall left: %w", err)
		}
	}
	return nil
}

// addRedirect adds a redirect to a device that has a classifier.
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

// Redirected reports whether redirects, and not a bridge, join the devices.
func (j *Junction) Redirected() bool { return j.master == 0 }

// Repair adds the redirects that were removed, for instance by another program. The NIC stays up,
// and filters of other programs stay in its classifier.
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

// redirectsOf returns the redirects of a device that belong to the junction.
func (j *Junction) redirectsOf(index int) []netdev.Redirect {
	from := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
	all, err := netdev.Redirects(from)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(all, func(r netdev.Redirect) bool {
		return !slices.ContainsFunc(j.redirects, func(own netdev.Redirect) bool {
			return r.Mark == own.Mark && (r.To == own.To || r.To == 0) // 0: the target is gone
		})
	})
}

// leftRedirects returns the redirects of a device that fragwall made.
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

// endRedirects removes redirects of a device, and its classifier if that has no other filters.
// When a NIC moves to another namespace, the kernel removes both, and then answers EINVAL.
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

// explainRedirect adds to an error what an operator can do.
func explainRedirect(err error) error {
	switch {
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf(`%w: the interface has a classifier of another program (see "tc qdisc"): remove it, or set join = "bridge"`, err)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: load the kernel modules sch_ingress, cls_u32 and act_mirred, or set join = \"bridge\"", err)
	}
	return err
}

// redirects reports whether a device has a redirect to the device with an index.
func redirects(from netlink.Link, to int) (bool, error) {
	all, err := netdev.Redirects(from)
	return slices.ContainsFunc(all, func(r netdev.Redirect) bool { return r.To == to }), err
}

// redirected returns the former state of a NIC that has a redirect of a killed instance or of a
// bypass, and a function that removes that redirect. The function is nil if there is none. If a
// running instance has the NIC, redirected returns an error.
func redirected(nic netlink.Link) (before nicState, end func() error, err error) {
	left := leftRedirects(nic)
	if len(left) == 0 {
		return nicState{}, nil, nil
	}
	r := left[0]
	// The target is 0 if the TAP was removed, because its process ended.
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
