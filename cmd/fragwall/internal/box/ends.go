package box

import (
	"errors"
	"fmt"
	"time"

	"fragwall/cmd/fragwall/internal/report"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/tun/link"
	"fragwall/tun/netdev"
)

// end is the state of one side's devices.
type end struct {
	config    rules.Interface
	addressed bool        // the NIC has addresses, which are being moved to the inside TAP
	junction  Junction    // nil until a NIC is joined
	nic       int         // interface index while it is joined
	joined    bool        // the NIC is joined to the port
	link      netdev.Link // state of the NIC, or of the TAP if there is no NIC; zero while it is gone
	down      string      // name of a port or bridge between NIC and wire that is down; "" if all are up
	refused   int         // last MTU of the NIC, in bytes, that could not be followed; 0: none
	held      bool        // its link is kept down because the other side has none
	rising    bool        // it is no longer held, but its link is not up yet
	rise      *time.Timer // ends rising
}

// hasLink reports whether frames can pass the end's device.
func (e *end) hasLink() bool {
	if e.config.NIC == "" {
		return e.link.Up // the box itself sets the carrier of a TAP
	}
	return e.joined && e.link.Carrier && e.down == ""
}

// WithMTUs returns a configuration with an MTU for each side: the configured one, or that of
// the NIC.
func (k *Kernel) WithMTUs(c *rules.Config) (*rules.Config, error) {
	own := *c
	for _, i := range []*rules.Interface{&own.Inside, &own.Outside} {
		if i.MTU != 0 {
			continue
		}
		var err error
		if i.MTU, err = k.NICMTU(i.NIC); err != nil {
			return nil, err
		}
	}
	return &own, nil
}

// MTUsDiffer returns the consequence of different MTUs, or "" if they are equal.
func MTUsDiffer(inside, outside int) string {
	if inside == outside {
		return ""
	}
	return fmt.Sprintf("inside has mtu %d and outside has mtu %d: packets longer than the egress mtu are dropped (exceeds_mtu)", inside, outside)
}

// joinTo joins the NIC of a side to its TAP. nic and mtu are its current name and MTU. The
// caller holds joining.
func (b *Box) joinTo(side verdict.Side, nic string, mtu int) error {
	e := &b.ends[side]
	e.joined = false
	j, index, err := b.kernel.Join(link.Config{TAP: e.config.TAP, NIC: nic, Bridge: e.config.Bridge, MTU: mtu, Addressed: e.addressed})
	if err != nil {
		return err
	}
	e.junction, e.nic, e.joined, e.down = j, index, true, ""
	e.link, err = b.kernel.ReadLink(index)
	b.ports[side].SetJoined(err == nil && !e.link.Relays)
	if err != nil {
		return err
	}
	b.hook(side)
	return nil
}

// Join joins the NIC of a side to its port. addressed says that the NIC has addresses, which
// are being moved to the inside.
func (b *Box) Join(side verdict.Side, i rules.Interface, addressed bool) error {
	b.joining.Lock()
	defer b.joining.Unlock()
	b.ends[side].config, b.ends[side].addressed = i, addressed
	return b.joinTo(side, i.NIC, i.MTU)
}

// Links returns the state of both sides' devices.
func (b *Box) Links() [verdict.Sides]report.Link {
	var links [verdict.Sides]report.Link
	b.joining.Lock()
	defer b.joining.Unlock()
	for side := range b.ends {
		e := &b.ends[side]
		links[side] = report.Link{NIC: e.config.NIC, Joined: e.joined, Up: e.hasLink(), MTU: b.MTU(verdict.Side(side)), Speed: e.link.Speed}
		if e.config.NIC != "" && e.link.Name != "" {
			links[side].NIC = e.link.Name // the name may have changed
		}
	}
	return links
}

// Part permanently separates the NICs from the wire. finish ends a junction, or a part of it.
// Links that were held are brought up.
func (b *Box) Part(finish func(Junction) error) error {
	b.joining.Lock()
	defer b.joining.Unlock()
	b.closed = true
	errs := []error{b.closeFastPath()}
	for i := verdict.Sides - 1; i >= 0; i-- {
		side := verdict.Side(i)
		e := &b.ends[side]
		if e.rise != nil {
			e.rise.Stop()
		}
		if b.left {
			continue
		}
		if e.held {
			errs = append(errs, b.setLink(side, true))
			e.held = false
		}
		if e.junction != nil {
			errs = append(errs, finish(e.junction))
		}
	}
	return errors.Join(errs...)
}

// bypassEnds returns the ends of a bypass, with the current names of the NICs.
func (b *Box) bypassEnds(c *rules.Config) (ends [verdict.Sides]link.NIC) {
	b.joining.Lock()
	defer b.joining.Unlock()
	for side, i := range [verdict.Sides]rules.Interface{verdict.Inside: c.Inside, verdict.Outside: c.Outside} {
		ends[side] = link.NIC{Name: i.NIC, MTU: i.MTU}
		if name := b.ends[side].link.Name; i.NIC != "" && name != "" {
			ends[side].Name = name
		}
	}
	return ends
}

// CloseAndBypass closes the box. If on_exit is bypass and nothing failed, it then joins the two
// NICs to each other.
func (b *Box) CloseAndBypass(c *rules.Config) error {
	ends := b.bypassEnds(c)
	if err := b.Close(); err != nil || c.OnExit != rules.ExitBypass || b.isLeft() {
		return err
	}
	if ends[verdict.Inside].Name == "" || ends[verdict.Outside].Name == "" {
		return nil // the configuration has a note about it
	}
	if err := b.kernel.Bypass(ends[verdict.Inside], ends[verdict.Outside]); err != nil {
		return fmt.Errorf("bypass: %w", err)
	}
	return nil
}
