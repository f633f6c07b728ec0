package netdev

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// clsact returns the qdisc that holds the filters of a device (tc-bpf(8)).
func clsact(index int) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index,
		Handle:    netlink.MakeHandle(0xffff, 0),
		Parent:    netlink.HANDLE_CLSACT,
	}}
}

// AddClassifier adds a clsact qdisc to a device. The error wraps [unix.EEXIST] if it has
// one.
func AddClassifier(index int) error {
	if err := netlink.QdiscAdd(clsact(index)); err != nil {
		return fmt.Errorf("add clsact: %w", err)
	}
	return nil
}

// RemoveClassifier removes a device's clsact qdisc with its filters. The error wraps
// [unix.EINVAL] if there is none.
func RemoveClassifier(index int) error { return netlink.QdiscDel(clsact(index)) }

// IdleClassifier reports whether a device has a clsact qdisc without filters.
func IdleClassifier(device netlink.Link) bool {
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

// UnusedPriority returns the first priority that no filter on the ingress of a device
// has, so that a new redirect replaces no filter.
func UnusedPriority(device netlink.Link) (uint16, error) {
	filters, err := netlink.FilterList(device, netlink.HANDLE_MIN_INGRESS)
	if err != nil {
		return 0, fmt.Errorf("list filters of %q: %w", device.Attrs().Name, err)
	}
	for p := uint16(1); ; p++ {
		if !slices.ContainsFunc(filters, func(f netlink.Filter) bool { return f.Attrs().Priority == p }) {
			return p, nil
		}
	}
}

// Redirect is a filter on the ingress of a device with a clsact qdisc. It sends every
// frame that arrives to another device, before any bridge, firewall or protocol sees the
// frame (tc-mirred(8)).
type Redirect struct {
	From, To int // indices; To is 0 if the device is gone
	// Receive makes frames arrive at To; otherwise they leave through it.
	Receive  bool
	Mark     uint32 // stored as the class of the filter
	Priority uint16 // of the filter; at least 1
}

// Add adds the redirect.
func (r *Redirect) Add() error {
	action := netlink.NewMirredAction(r.To)
	if r.Receive {
		action.MirredAction = netlink.TCA_INGRESS_REDIR
	}
	err := netlink.FilterAdd(&netlink.U32{
		FilterAttrs: r.attributes(),
		// No key: every frame matches, however short.
		Sel:     &netlink.TcU32Sel{Flags: nl.TC_U32_TERMINAL},
		ClassId: r.Mark,
		Actions: []netlink.Action{action},
	})
	if err != nil {
		return fmt.Errorf("add filter: %w", err)
	}
	return nil
}

// Remove removes the redirect, but not the qdisc.
func (r *Redirect) Remove() error {
	return netlink.FilterDel(&netlink.U32{FilterAttrs: r.attributes()})
}

func (r *Redirect) attributes() netlink.FilterAttrs {
	return netlink.FilterAttrs{LinkIndex: r.From, Parent: netlink.HANDLE_MIN_INGRESS, Priority: r.Priority, Protocol: unix.ETH_P_ALL}
}

// Redirects returns all redirects of a device, whoever made them. There are none if it
// has no clsact qdisc, or is gone.
func Redirects(from netlink.Link) (list []Redirect, err error) {
	filters, err := netlink.FilterList(from, netlink.HANDLE_MIN_INGRESS)
	if errors.Is(err, unix.EINVAL) || err != nil && Gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list filters of %q: %w", from.Attrs().Name, err)
	}
	for _, f := range filters {
		if u32, ok := f.(*netlink.U32); ok && len(u32.Actions) > 0 {
			list = append(list, Redirect{From: from.Attrs().Index, To: u32.RedirIndex, Mark: u32.ClassId, Priority: u32.Priority})
		}
	}
	return list, nil
}
