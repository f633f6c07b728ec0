package main

import (
	"context"
	"errors"
	"fmt"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/rules"
	"fragwall/stack"
	"fragwall/tun"
	"fragwall/wire"
)

// box is the wire with its devices.
type box struct {
	*wire.Bump
	taps      [packet.Sides]*tun.TAP
	junctions [packet.Sides]*tun.Junction // nil where no NIC is joined
}

// openBox makes the devices of both sides. On an error it leaves nothing of
// what it made. It and [box.close] belong on a thread in the network namespace
// where the devices are to be.
func openBox(c *rules.Config, matched matchFunc) (*box, error) {
	b := &box{}
	config := wireConfig(c)
	config.Matched = matched
	for side, i := range [packet.Sides]rules.Interface{packet.Inside: c.Inside, packet.Outside: c.Outside} {
		if err := b.openSide(packet.Side(side), i); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", packet.Side(side), err), b.close())
		}
		config.Ends[side].Port = b.taps[side]
	}
	b.Bump = wire.New(config)
	return b, nil
}

func (b *box) openSide(side packet.Side, i rules.Interface) (err error) {
	if b.taps[side], err = tun.OpenTAP(i.TAP, i.MTU); err != nil {
		return err
	}
	if i.NIC != "" {
		b.junctions[side], err = tun.Join(tun.JoinConfig{TAP: i.TAP, NIC: i.NIC, Bridge: i.Bridge, MTU: i.MTU})
	}
	return err
}

// close removes what openBox made, in reverse order.
func (b *box) close() error {
	var errs []error
	for side := packet.Sides - 1; side >= 0; side-- {
		if j := b.junctions[side]; j != nil {
			errs = append(errs, j.Close())
		}
		if t := b.taps[side]; t != nil {
			errs = append(errs, t.Close())
		}
	}
	return errors.Join(errs...)
}

// matchFunc hears of what rules with log = true decide on; it may be nil.
type matchFunc = func(*filter.Datagram, filter.Verdict)

// serve makes the devices, calls ready when frames begin to flow, forwards
// until ctx is done, and removes what it made.
func serve(ctx context.Context, c *rules.Config, matched matchFunc, ready func(*box)) (err error) {
	b, err := openBox(c, matched)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	ready(b)
	return b.Run(ctx)
}

// wireConfig returns what the wire does, its ports still to come.
func wireConfig(c *rules.Config) wire.Config {
	return wire.Config{
		Ends:      [packet.Sides]wire.End{packet.Inside: {MTU: c.Inside.MTU}, packet.Outside: {MTU: c.Outside.MTU}},
		Policy:    c.Policy,
		Mode:      c.Fragments.Mode,
		Emit:      c.Fragments.Emit,
		Fragments: fragmentOptions(&c.Fragments),
	}
}

// fragmentOptions returns the limits of what waits.
func fragmentOptions(f *rules.Fragments) stack.Options {
	return stack.Options{
		TimeoutIPv4:  f.TimeoutIPv4,
		TimeoutIPv6:  f.TimeoutIPv6,
		Memory:       f.Memory,
		MaxFragments: f.MaxFragments,
		MaxDatagrams: f.MaxDatagrams,
	}
}
