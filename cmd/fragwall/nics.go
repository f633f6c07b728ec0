package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"fragwall/packet"
	"fragwall/rules"
	"fragwall/tun"
)

// joinNIC makes a side's NIC a part of the wire, once more where it was before.
func (b *box) joinNIC(side packet.Side, i rules.Interface) error {
	b.joining.Lock()
	defer b.joining.Unlock()
	if b.closed {
		return nil
	}
	if j := b.junctions[side]; j != nil {
		if err := j.Close(); err != nil {
			return err
		}
	}
	return b.joinTo(side, tun.JoinConfig{TAP: i.TAP, NIC: i.NIC, Bridge: i.Bridge, MTU: i.MTU})
}

// joinTo joins a NIC to a side. The caller holds joining.
func (b *box) joinTo(side packet.Side, c tun.JoinConfig) error {
	b.joined[side].Store(0)
	j, err := tun.Join(c)
	if err != nil {
		return err
	}
	b.junctions[side] = j
	b.joined[side].Store(int64(j.NIC))
	return nil
}

// joinedNICs says of each side with a NIC whether that is in the wire.
func (b *box) joinedNICs() map[packet.Side]bool {
	joined := make(map[packet.Side]bool)
	b.joining.Lock()
	defer b.joining.Unlock()
	for side, j := range b.junctions {
		if j != nil {
			joined[packet.Side(side)] = b.joined[side].Load() != 0
		}
	}
	return joined
}

// part takes the NICs out of the wire, for good, by what ends a junction, or a
// part of it.
func (b *box) part(end func(*tun.Junction) error) error {
	b.joining.Lock()
	defer b.joining.Unlock()
	b.closed = true
	var errs []error
	for side := packet.Sides - 1; side >= 0; side-- {
		if j := b.junctions[side]; j != nil {
			errs = append(errs, end(j))
		}
	}
	return errors.Join(errs...)
}

// nicWatch joins a NIC again that was removed and comes back, as one on a bus
// that is reset.
type nicWatch struct {
	box   *box
	sides [packet.Sides]rules.Interface
	log   *slog.Logger
}

// watchNICs watches both sides' NICs until ctx is done.
func (b *box) watchNICs(ctx context.Context, c *rules.Config, log *slog.Logger) {
	w := &nicWatch{b, [packet.Sides]rules.Interface{packet.Inside: c.Inside, packet.Outside: c.Outside}, log}
	if err := w.run(ctx); err != nil {
		log.Warn("a nic that is removed and comes back won't be joined again", "error", err)
	}
}

func (w *nicWatch) run(ctx context.Context) error {
	links, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
	if err != nil {
		return err
	}
	closed := context.AfterFunc(ctx, links.Close)
	defer func() {
		if closed() {
			links.Close()
		}
	}()
	w.lookAll() // what changed before
	for {
		switch changes, _, err := links.Receive(); {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // there were more than the socket holds
			w.lookAll()
		case err != nil:
			return err
		default:
			w.take(changes)
		}
	}
}

// take takes in changes of links.
func (w *nicWatch) take(changes []syscall.NetlinkMessage) {
	for _, m := range changes {
		if m.Header.Type != unix.RTM_NEWLINK && m.Header.Type != unix.RTM_DELLINK {
			continue
		}
		link, err := netlink.LinkDeserialize((*unix.NlMsghdr)(&m.Header), m.Data)
		if err != nil {
			continue // none that a wire could have
		}
		for side, i := range w.sides {
			side, joined := packet.Side(side), w.box.joined[side].Load()
			switch {
			case m.Header.Type == unix.RTM_DELLINK && joined == int64(link.Attrs().Index):
				w.lose(side)
				w.look(side)
			case m.Header.Type == unix.RTM_NEWLINK && joined == 0 && i.NIC == link.Attrs().Name:
				w.look(side)
			}
		}
	}
}

// lookAll finds out what changed unseen.
func (w *nicWatch) lookAll() {
	for side := range packet.Side(packet.Sides) {
		if joined := w.box.joined[side].Load(); joined != 0 {
			if _, err := netlink.LinkByIndex(int(joined)); !isMissing(err) {
				continue
			}
			w.lose(side)
		}
		w.look(side)
	}
}

func (w *nicWatch) lose(side packet.Side) {
	w.box.joined[side].Store(0)
	w.log.Warn("a nic was removed: it is joined again when it comes back", "side", side.String(), "nic", w.sides[side].NIC)
}

// look joins a side's NIC where it is there, and not in the wire.
func (w *nicWatch) look(side packet.Side) {
	i := w.sides[side]
	if i.NIC == "" {
		return
	}
	if _, err := netlink.LinkByName(i.NIC); isMissing(err) {
		return
	}
	if err := w.box.joinNIC(side, i); err != nil {
		w.log.Error("a nic came back, and can't be joined", "side", side.String(), "error", err)
		return
	}
	w.log.Info("a nic came back and is joined again", "side", side.String(), "nic", i.NIC)
}

func isMissing(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing)
}

// bypass leaves the two NICs joined to one another.
func bypass(c *rules.Config) error {
	if c.Inside.NIC == "" || c.Outside.NIC == "" {
		return nil // whose configuration has a note on that
	}
	err := tun.Bypass(tun.End{NIC: c.Inside.NIC, MTU: c.Inside.MTU}, tun.End{NIC: c.Outside.NIC, MTU: c.Outside.MTU})
	if err != nil {
		return fmt.Errorf("bypass: %w", err)
	}
	return nil
}
