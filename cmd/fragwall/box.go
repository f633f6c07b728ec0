package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"fragwall/cmd/fragwall/internal/datapath"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/tun"
	"fragwall/tun/device"
	"fragwall/tun/link"
	"fragwall/tun/netdev"
	"fragwall/wire"
)

// box is the wire with its devices.
type box struct {
	*wire.Bump
	ports [verdict.Sides]tun.Port
	lanes [verdict.Sides][]tun.Lane // by the side that they read from

	joining sync.Mutex
	// joining guards:
	ends   [verdict.Sides]end
	closed bool // no NIC is to be joined any more
}

// openBox makes the devices of both sides, and the lanes between them. On an
// error it leaves nothing of what it made. It and [box.close] belong on a
// thread in the network namespace where the devices are to be.
func openBox(c *rules.Config, log *slog.Logger, observer wire.Observer) (*box, error) {
	inside, outside := portConfig(c.Inside), portConfig(c.Outside)
	if err := checkDescriptors(inside.QueueCount() + outside.QueueCount()); err != nil {
		return nil, err
	}
	// The TAPs of a killed fragwall go in the kernel's own time. Until then what it
	// left on the NICs looks like another's.
	for side, i := range [verdict.Sides]rules.Interface{verdict.Inside: c.Inside, verdict.Outside: c.Outside} {
		if err := netdev.Vacant(i.TAP); err != nil {
			return nil, fmt.Errorf("%s: %w", verdict.Side(side), err)
		}
	}
	c, err := withMTUs(c)
	if err != nil {
		return nil, err
	}
	if text := mtusDiffer(c.Inside.MTU, c.Outside.MTU); text != "" {
		log.Warn(text)
	}
	b := &box{}
	// A frame that is left to be cut into segments needs a TAP that takes it.
	offload := c.Inside.Offload && c.Outside.Offload
	for side, i := range [verdict.Sides]rules.Interface{verdict.Inside: c.Inside, verdict.Outside: c.Outside} {
		if err := b.openSide(verdict.Side(side), i, offload); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", verdict.Side(side), err), b.close())
		}
	}
	if err := b.connect(); err != nil {
		return nil, errors.Join(err, b.close())
	}
	b.logFallbacks(log)
	config := datapath.Config(c)
	config.Observer = observer
	for side, lanes := range b.lanes {
		config.Sides[side].Lanes = lanes
	}
	b.Bump = wire.New(config)
	return b, nil
}

// portConfig returns what the port of a side is to be.
func portConfig(i rules.Interface) tun.Config {
	return tun.Config{Name: i.TAP, MTU: i.MTU, Queues: i.Queues}
}

func (b *box) openSide(side verdict.Side, i rules.Interface, offload bool) (err error) {
	config := portConfig(i)
	config.Offload = offload
	if b.ports[side], err = device.Open(config); err != nil {
		return err
	}
	if i.NIC != "" {
		return b.join(side, i, false)
	}
	b.ends[side].config = i
	b.ends[side].link, err = netdev.ReadLink(b.ports[side].Index())
	return err
}

// connect makes the lanes between the ports.
func (b *box) connect() (err error) {
	for side := range verdict.Side(verdict.Sides) {
		if b.lanes[side], err = b.ports[side].Lanes(b.ports[side.Other()]); err != nil {
			return err
		}
	}
	return nil
}

// logFallbacks says once what the ports do without.
func (b *box) logFallbacks(log *slog.Logger) {
	var all []tun.Fallback
	for _, p := range b.ports {
		for _, f := range p.Fallbacks() {
			i := slices.IndexFunc(all, func(other tun.Fallback) bool { return other.Message == f.Message })
			if i < 0 {
				all = append(all, f)
				continue
			}
			all[i].Level = max(all[i].Level, f.Level)
		}
	}
	for _, f := range all {
		log.Log(context.Background(), f.Level, f.Message, "error", f.Err)
	}
}

// missed returns how many frames of each side the kernel dropped before the box
// read them, as long as its devices are there.
func (b *box) missed() map[verdict.Side]uint64 {
	missed := make(map[verdict.Side]uint64)
	for side, p := range b.ports {
		if n, err := p.Missed(); err == nil {
			missed[verdict.Side(side)] = n
		}
	}
	return missed
}

func (b *box) closeLanes() error {
	var errs []error
	for side, lanes := range b.lanes {
		for _, l := range lanes {
			errs = append(errs, l.Close())
		}
		b.lanes[side] = nil
	}
	return errors.Join(errs...)
}

// close removes what openBox made, in reverse order.
func (b *box) close() error {
	errs := []error{b.closeLanes(), b.part((*link.Junction).Close)}
	for side := verdict.Sides - 1; side >= 0; side-- {
		if p := b.ports[side]; p != nil {
			errs = append(errs, p.Close())
		}
	}
	return errors.Join(errs...)
}

// serve makes the devices, calls ready when frames begin to flow, forwards
// until ctx is done, and removes what it made; then, where on_exit says so, it
// leaves the NICs joined to one another. The observer may be nil.
func serve(ctx context.Context, c *rules.Config, log *slog.Logger, observer wire.Observer, ready func(*box)) (err error) {
	b, err := openBox(c, log, observer)
	if err != nil {
		return err
	}
	defer func() {
		ends := b.bypassEnds(c)
		err = errors.Join(err, b.close())
		if err == nil && c.OnExit == rules.ExitBypass {
			err = bypass(ends)
		}
	}()
	defer relax(len(b.lanes[verdict.Inside]) + len(b.lanes[verdict.Outside]))()
	ready(b)
	return b.Run(ctx)
}
