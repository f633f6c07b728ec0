package box

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fragwall/cmd/fragwall/internal/events"
	"fragwall/packet/verdict"
	"fragwall/tun/netdev"
)

// Watch tracks the devices of both sides. It joins a removed NIC again when it returns, repairs
// a junction that another program removed, follows the MTU of a NIC, records link changes as
// events, and propagates them if configured.
type Watch struct {
	*Box
	Events    *events.Recorder // may be nil
	Propagate bool             // take a side's link down while the other side has none
	// SharedMTU says that both sides use the outside NIC's MTU, as in a sidecar.
	SharedMTU bool
	// Rejoined is called after a NIC that returned was joined. It may be nil.
	Rejoined func(netdev.Link)
}

// riseTime is the maximum time that a NIC may need to get its link back after it was held: the
// time of a slow autonegotiation (IEEE 802.3, clause 28).
const riseTime = 10 * time.Second

// Run tracks the devices until ctx is done.
func (w *Watch) Run(ctx context.Context) {
	w.resumeRises()
	w.kernel.Follow(ctx, w.log, func(messages []syscall.NetlinkMessage) {
		if messages == nil || w.concern(messages) {
			w.look()
		}
	}, unix.RTNLGRP_LINK, unix.RTNLGRP_TC)
}

// concern reports whether messages may concern the devices of the box. Messages about links and
// about classifiers have the interface index at the same offset (struct ifinfomsg, struct
// tcmsg).
func (w *Watch) concern(messages []syscall.NetlinkMessage) bool {
	w.joining.Lock()
	defer w.joining.Unlock()
	for _, m := range messages {
		if len(m.Data) < 8 {
			continue
		}
		index := int(binary.NativeEndian.Uint32(m.Data[4:]))
		for side := range w.ends {
			e := &w.ends[side]
			if e.config.NIC != "" && !e.joined || index == e.link.Index || index == w.ports[side].Index() ||
				e.junction != nil && slices.Contains(e.junction.Devices(), index) {
				return true
			}
		}
	}
	return false
}

// look reads the state of all devices and reacts to changes.
func (w *Watch) look() {
	w.joining.Lock()
	defer w.joining.Unlock()
	if w.closed {
		return
	}
	for side := range verdict.Side(verdict.Sides) {
		e := &w.ends[side]
		had, device := e.hasLink(), cmp.Or(e.down, e.link.Name)
		if e.config.NIC == "" {
			if link, err := w.kernel.ReadLink(w.ports[side].Index()); err == nil {
				e.link = link
			}
		} else {
			w.lookAtNIC(side)
		}
		if e.hasLink() {
			e.rising = false
		}
		if w.fast.on {
			w.fast.path.SetEgress(side, e.hasLink())
		}
		if had != e.hasLink() && !e.held {
			w.record(side, device)
		}
	}
	if w.Propagate {
		w.propagateLinks()
	}
}

// lookAtNIC reads the state of a side's NIC. If the NIC is not joined, it tries to join it.
func (w *Watch) lookAtNIC(side verdict.Side) {
	e := &w.ends[side]
	if e.joined {
		link, err := w.kernel.ReadLink(e.nic)
		switch {
		case errors.Is(err, netdev.ErrMissing):
			w.log.Warn("nic removed; it is joined again when it returns", "side", side.String(), "nic", e.config.NIC)
			e.joined, e.link = false, netdev.Link{}
			w.unhook(side)
		case err != nil:
			w.log.Warn("cannot read the state of a nic", "side", side.String(), "error", err)
			return
		default:
			e.link = link
			w.repair(side)
			w.lookAtJunction(side)
			w.followMTU(side)
			return
		}
	}
	w.rejoin(side)
}

// lookAtJunction checks whether the devices between NIC and wire are up.
func (w *Watch) lookAtJunction(side verdict.Side) {
	e := &w.ends[side]
	e.down = ""
	for _, index := range e.junction.Devices() {
		if device, err := w.kernel.ReadLink(index); err == nil && !device.Up {
			e.down = device.Name
			return
		}
	}
}

// repair joins a NIC again if another program has removed its redirect or bridge.
func (w *Watch) repair(side verdict.Side) {
	e := &w.ends[side]
	intact, err := e.junction.Intact()
	if err != nil || intact {
		return // a missing device is detected elsewhere
	}
	w.log.Warn("another program removed the join of a nic to its tap; joining it again", "side", side.String(), "nic", e.link.Name, "tap", e.config.TAP)
	if e.junction.Redirected() {
		err = e.junction.Repair()
	} else {
		err = errors.Join(e.junction.Close(), w.joinTo(side, e.link.Name, e.link.MTU))
	}
	if err != nil {
		w.log.Error("cannot join the nic again", "side", side.String(), "error", err)
	}
}

// rejoin joins a NIC that has returned.
func (w *Watch) rejoin(side verdict.Side) {
	e := &w.ends[side]
	link, err := w.kernel.FindLink(e.config.NIC)
	if err != nil {
		return // it has not returned yet
	}
	mtu := e.config.MTU
	if mtu == 0 {
		mtu = link.MTU
	}
	if e.junction != nil {
		err = e.junction.Close()
	}
	if err = errors.Join(err, w.joinTo(side, e.config.NIC, mtu)); err != nil {
		w.log.Error("nic returned, but cannot be joined", "side", side.String(), "error", err)
		return
	}
	w.log.Info("nic returned and is joined again", "side", side.String(), "nic", e.config.NIC)
	w.followMTU(side)
	if w.Rejoined != nil {
		w.Rejoined(e.link)
	}
}

// followMTU adopts the MTU of a side's NIC.
func (w *Watch) followMTU(side verdict.Side) {
	e := &w.ends[side]
	old, mtu := w.MTU(side), e.link.MTU
	if mtu == old || mtu == 0 || mtu == e.refused {
		return
	}
	e.refused = 0
	err := errors.Join(e.junction.SetMTU(mtu), w.setMTU(side, mtu), w.kernel.DisableIPv6(w.ports[side].Index()))
	if w.SharedMTU { // the IPv6 of the inside port belongs to the namespace
		err = errors.Join(err, w.setMTU(side.Other(), mtu))
	}
	if err != nil {
		e.refused = mtu
		w.log.Error("cannot follow the mtu of a nic", "side", side.String(), "nic", e.link.Name, "error", err)
		return
	}
	w.log.Info("mtu of a nic changed", "side", side.String(), "nic", e.link.Name, "before", old, "mtu", mtu)
	if text := MTUsDiffer(w.MTU(verdict.Inside), w.MTU(verdict.Outside)); text != "" {
		w.log.Warn(text)
	}
}

func (b *Box) setMTU(side verdict.Side, mtu int) error {
	if err := b.ports[side].SetMTU(mtu); err != nil {
		return err
	}
	b.SetMTU(side, mtu)
	if b.fast.on {
		b.fast.path.SetMTU(side, mtu)
	}
	return nil
}

// record records that a side's link went down or up. The device is the one whose state changed,
// or else before, the last known one.
func (w *Watch) record(side verdict.Side, before string) {
	e := &w.ends[side]
	device := cmp.Or(e.down, e.link.Name, before)
	if e.hasLink() {
		device = cmp.Or(before, e.link.Name)
	}
	if w.Events != nil {
		w.Events.Link(side.String(), device, e.hasLink(), time.Now())
	}
}

// propagateLinks takes the link of a side down while the other side has none, and brings it up
// again afterwards.
func (w *Watch) propagateLinks() {
	for side := range verdict.Side(verdict.Sides) {
		e, other := &w.ends[side], &w.ends[side.Other()]
		lost := !other.hasLink() && !other.held && !other.rising
		if lost == e.held || e.config.NIC != "" && !e.joined {
			continue
		}
		if err := w.setLink(side, !lost); err != nil {
			w.log.Error("cannot propagate the link state", "side", side.String(), "error", err)
			continue
		}
		if e.held = lost; lost {
			w.log.Warn("link taken down, because the other side has no link", "side", side.String())
			continue
		}
		w.log.Info("link brought up, because the other side has a link again", "side", side.String())
		w.beginRise(side)
	}
}

// beginRise starts the timer for the link of a side that was held. The caller holds joining.
func (w *Watch) beginRise(side verdict.Side) {
	e := &w.ends[side]
	e.rising = true
	e.rise = time.AfterFunc(riseTime, func() { w.endRise(side) })
}

// resumeRises starts the timers for links that the previous process has held.
func (w *Watch) resumeRises() {
	w.joining.Lock()
	defer w.joining.Unlock()
	for side := range verdict.Side(verdict.Sides) {
		if e := &w.ends[side]; e.rising && e.rise == nil {
			w.beginRise(side)
		}
	}
}

// endRise stops waiting for a link that was held.
func (w *Watch) endRise(side verdict.Side) {
	w.joining.Lock()
	w.ends[side].rising = false
	w.joining.Unlock()
	w.look()
}

// setLink brings the link of a side up or down, so that the neighbours notice. For a TAP it sets
// only the carrier: the user of the TAP may control its administrative state. The caller holds
// joining.
func (b *Box) setLink(side verdict.Side, up bool) error {
	e := &b.ends[side]
	if e.config.NIC == "" {
		return b.ports[side].SetCarrier(up)
	}
	if e.link.Index == 0 {
		return nil
	}
	return b.kernel.SetLink(e.link.Index, up)
}
