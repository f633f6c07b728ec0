package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/vishvananda/netlink"
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
	j, err := tun.Join(tun.JoinConfig{TAP: i.TAP, NIC: i.NIC, Bridge: i.Bridge, MTU: i.MTU})
	if err == nil {
		b.junctions[side] = j
	}
	b.joined[side].Store(err == nil)
	return err
}

// joinedNICs says of each side with a NIC whether that is in the wire.
func (b *box) joinedNICs() map[packet.Side]bool {
	joined := make(map[packet.Side]bool)
	b.joining.Lock()
	defer b.joining.Unlock()
	for side, j := range b.junctions {
		if j != nil {
			joined[packet.Side(side)] = b.joined[side].Load()
		}
	}
	return joined
}

// partNICs takes the NICs out of the wire, for good.
func (b *box) partNICs() error {
	b.joining.Lock()
	defer b.joining.Unlock()
	b.closed = true
	var errs []error
	for side := packet.Sides - 1; side >= 0; side-- {
		if j := b.junctions[side]; j != nil {
			errs = append(errs, j.Close())
		}
	}
	return errors.Join(errs...)
}

// watchNICs joins a NIC again that was removed and comes back, as one on a bus
// that is reset, until ctx is done.
func (b *box) watchNICs(ctx context.Context, c *rules.Config, log *slog.Logger) {
	sides := map[string]packet.Side{}
	interfaces := [packet.Sides]rules.Interface{packet.Inside: c.Inside, packet.Outside: c.Outside}
	for side, i := range interfaces {
		if i.NIC != "" {
			sides[i.NIC] = packet.Side(side)
		}
	}
	if len(sides) == 0 {
		return
	}
	changes := make(chan netlink.LinkUpdate)
	err := netlink.LinkSubscribeWithOptions(changes, ctx.Done(), netlink.LinkSubscribeOptions{
		ErrorCallback: func(err error) {
			if ctx.Err() == nil {
				log.Warn("a change of the links was missed", "error", err)
			}
		},
	})
	if err != nil {
		log.Warn("a nic that is removed and comes back won't be joined again", "error", err)
		return
	}
	for change := range changes {
		name := change.Attrs().Name
		side, ours := sides[name]
		if !ours {
			continue
		}
		switch joined := b.joined[side].Load(); {
		case change.Header.Type == unix.RTM_DELLINK && joined:
			b.joined[side].Store(false)
			log.Warn("a nic was removed: it is joined again when it comes back", "side", side.String(), "nic", name)
		case change.Header.Type == unix.RTM_NEWLINK && !joined:
			if err := b.joinNIC(side, interfaces[side]); err != nil {
				log.Error("a nic came back, and can't be joined", "side", side.String(), "error", err)
				continue
			}
			log.Info("a nic came back and is joined again", "side", side.String(), "nic", name)
		}
	}
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
