package tun

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
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
	classifier, left := clsact(from), leftFilters(from)
	if len(left) == 0 {
		if err := netlink.QdiscAdd(classifier); err != nil {
			return fmt.Errorf("add clsact: %w", explainRedirect(err))
		}
	}
	j.undo.push(func() error { return removeClassifier(classifier) })
	action := netlink.NewMirredAction(to.Attrs().Index)
	err := netlink.FilterAdd(&netlink.U32{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: from.Attrs().Index,
			Parent:    netlink.HANDLE_MIN_INGRESS,
			Priority:  vacantPriority(left),
			Protocol:  unix.ETH_P_ALL,
		},
		// No key: every frame matches, however short.
		Sel:     &netlink.TcU32Sel{Flags: nl.TC_U32_TERMINAL},
		ClassId: mark,
		Actions: []netlink.Action{action},
	})
	if err != nil {
		return fmt.Errorf("add filter: %w", explainRedirect(err))
	}
	for _, f := range left { // which carried the NIC's former state until now
		if err := netlink.FilterDel(f); err != nil {
			return fmt.Errorf("remove the filter that a killed fragwall left: %w", err)
		}
	}
	return nil
}

// leftFilters returns the filters of a killed fragwall's redirect.
func leftFilters(from netlink.Link) (left []netlink.Filter) {
	filters, err := netlink.FilterList(from, netlink.HANDLE_MIN_INGRESS)
	if err != nil {
		return nil // no classifier
	}
	for _, f := range filters {
		if u32, ok := f.(*netlink.U32); ok && len(u32.Actions) > 0 {
			if _, ours := stateOf(u32.ClassId); ours {
				left = append(left, &netlink.U32{FilterAttrs: netlink.FilterAttrs{
					LinkIndex: u32.LinkIndex, Parent: u32.Parent, Priority: u32.Priority, Protocol: u32.Protocol,
				}})
			}
		}
	}
	return left
}

// vacantPriority returns one that no filter among those has.
func vacantPriority(filters []netlink.Filter) uint16 {
	for p := uint16(1); ; p++ {
		if !slices.ContainsFunc(filters, func(f netlink.Filter) bool { return f.Attrs().Priority == p }) {
			return p
		}
	}
}

// clsact returns the place for filters on an interface (tc-bpf(8)).
func clsact(link netlink.Link) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: link.Attrs().Index,
		Handle:    netlink.MakeHandle(0xffff, 0),
		Parent:    netlink.HANDLE_CLSACT,
	}}
}

// removeClassifier takes a classifier away. One of a NIC that was in another
// namespace for a while is gone already: for the kernel its handle is wrong.
func removeClassifier(c *netlink.Clsact) error {
	if err := netlink.QdiscDel(c); !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}

// isIdle reports whether a device has a classifier without filters.
func isIdle(device netlink.Link) bool {
	all, err := netlink.QdiscList(device)
	if err != nil || !slices.ContainsFunc(all, func(q netlink.Qdisc) bool { return q.Type() == "clsact" }) {
		return false
	}
	for _, hook := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		if filters, err := netlink.FilterList(device, hook); err != nil || len(filters) > 0 {
			return false
		}
	}
	return true
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
	filters, err := netlink.FilterList(from, netlink.HANDLE_MIN_INGRESS)
	if err != nil {
		if errors.Is(err, unix.EINVAL) || gone(err) {
			return false, nil // no classifier
		}
		return false, fmt.Errorf("list filters of %q: %w", from.Attrs().Name, err)
	}
	return slices.ContainsFunc(filters, func(f netlink.Filter) bool {
		u32, ok := f.(*netlink.U32)
		return ok && u32.RedirIndex == to
	}), nil
}

// redirected returns the state of a NIC from before a killed fragwall's redirect,
// or a bypass, that it was left with, and what ends that. There is no end where
// there is no redirect of fragwall's.
func redirected(nic netlink.Link) (before nicState, end func() error, err error) {
	filters, err := netlink.FilterList(nic, netlink.HANDLE_MIN_INGRESS)
	if err != nil {
		return nicState{}, nil, nil // no classifier
	}
	for _, f := range filters {
		u32, ok := f.(*netlink.U32)
		if !ok || len(u32.Actions) == 0 {
			continue
		}
		state, ours := stateOf(u32.ClassId)
		if !ours {
			continue
		}
		// The kernel forgets the target when the TAP goes, with its process.
		if target, err := netlink.LinkByIndex(u32.RedirIndex); u32.RedirIndex != 0 && err == nil && u32.ClassId&markBypass == 0 {
			return nicState{}, nil, fmt.Errorf("nic %q is joined to %q already, by another fragwall", nic.Attrs().Name, target.Attrs().Name)
		}
		return state, func() error {
			if err := netlink.QdiscDel(clsact(nic)); err != nil {
				return fmt.Errorf("nic %q: end the redirect that a killed fragwall left: %w", nic.Attrs().Name, err)
			}
			return nil
		}, nil
	}
	return nicState{}, nil, nil
}
