package box

import (
	"errors"
	"fmt"

	"fragwall/fastpath"
	"fragwall/packet/verdict"
	"fragwall/tun"
	"fragwall/tun/link"
	"fragwall/tun/netdev"
)

// Another process takes over a box in two steps. The ports do not change, so they are exported
// while the box forwards ([Box.Export], [Import]). What is joined to them may change at any
// time. It is handed over while nothing may change it ([Box.Suspend], [Box.Adopt]), until the
// box is resumed or left.

// Port is a port in the form in which another process takes it over.
type Port struct {
	tun.Exported
	MTU int `json:"mtu"`           // MTU of the side, in bytes
	NIC int `json:"nic,omitempty"` // interface index of the joined NIC; 0: none
}

// End is what is joined to a port, in the form in which another process takes it over.
type End struct {
	MTU       int            `json:"mtu"` // MTU of the side, in bytes
	Addressed bool           `json:"addressed,omitempty"`
	Junction  *link.Exported `json:"junction,omitempty"` // null until a NIC is joined
	NIC       int            `json:"nic,omitempty"`      // interface index while it is joined
	Joined    bool           `json:"joined,omitempty"`
	Held      bool           `json:"held,omitempty"`
	Rising    bool           `json:"rising,omitempty"`
	Refused   int            `json:"refused,omitempty"` // MTU in bytes
	Link      netdev.Link    `json:"link"`              // state of the NIC, or of the port if no NIC is configured
}

// Ends are the ends of both sides, and the counters of the fast path.
type Ends struct {
	Sides    [verdict.Sides]End `json:"sides"`
	FastPath fastpath.Stats     `json:"fast_path"`
}

// Export returns the ports and the fast path. The box keeps the descriptors of the ports. The
// caller owns those of the fast path, which is nil if it is off.
func (b *Box) Export() (ports [verdict.Sides]Port, fast *fastpath.Exported, err error) {
	for side, p := range b.ports {
		if ports[side].Exported, err = p.Export(); err != nil {
			return ports, nil, fmt.Errorf("%s: %w", verdict.Side(side), err)
		}
		ports[side].MTU = b.MTU(verdict.Side(side))
	}
	b.joining.Lock()
	defer b.joining.Unlock()
	for side := range b.ends {
		if b.ends[side].joined {
			ports[side].NIC = b.ends[side].nic
		}
	}
	if b.fast.on {
		fast, err = b.fast.path.Export()
	}
	return ports, fast, err
}

// Import returns a box with the ports that another process has exported. It owns their
// descriptors. Until [Box.Adopt], nothing is joined to the ports, and closing the box changes
// no device.
func Import(kernel *Kernel, s Setup, ports [verdict.Sides]Port) (*Box, error) {
	c := *s.Config
	c.Inside.MTU, c.Outside.MTU = ports[verdict.Inside].MTU, ports[verdict.Outside].MTU
	b := &Box{kernel: kernel, log: s.Log, sidecar: s.Sidecar, left: true}
	errs := []error{checkDescriptors(queues(&s, &c))}
	for side, config := range portConfigs(&s, &c) {
		b.ends[side].config = s.Config.Side(verdict.Side(side))
		p, err := kernel.ImportPort(config, ports[side].Exported)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", verdict.Side(side), err))
			continue
		}
		b.ports[side] = p
	}
	err := errors.Join(errs...)
	if err == nil {
		err = b.makeWire(&s, &c)
	}
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	for side := range ports {
		b.fast.behind[side] = ports[side].NIC
	}
	return b, nil
}

// Suspend makes the fast path pass up all frames, and returns what is joined to the ports.
// Until [Box.Resume] or [Box.Leave], all calls that change or read this state block.
func (b *Box) Suspend() Ends {
	b.joining.Lock()
	if b.fast.on {
		b.stopCollecting(verdict.Inside, verdict.Outside) // the other process attaches the same program
		b.fast.path.Suspend()
	}
	ends := Ends{FastPath: b.fast.stats()}
	for side := range b.ends {
		e := &b.ends[side]
		ends.Sides[side] = End{
			MTU: b.MTU(verdict.Side(side)), Addressed: e.addressed, NIC: e.nic, Joined: e.joined, Held: e.held, Rising: e.rising, Refused: e.refused, Link: e.link,
		}
		if e.junction != nil {
			j := e.junction.Export()
			ends.Sides[side].Junction = &j
		}
	}
	return ends
}

// Resume ends Suspend: the box continues as before. The lanes must still be held. When they are not
// any more, [Box.AttachFastPath] makes fragments go through the rings again, for which it waits for
// the kernel.
func (b *Box) Resume() {
	if b.fast.on {
		b.fast.path.Resume()
	}
	b.joining.Unlock()
}

// Leave ends Suspend: another process owns the devices. Fragments go through the queues of the
// ports until that process collects them: the same program can be attached only once.
func (b *Box) Leave() {
	b.closed, b.left = true, true
	b.stopCollecting(verdict.Inside, verdict.Outside)
	b.joining.Unlock()
}

// Disown undoes [Box.Adopt]: the other process owns the devices again.
func (b *Box) Disown() {
	b.joining.Lock()
	defer b.joining.Unlock()
	b.left = true
}

func (b *Box) isLeft() bool {
	b.joining.Lock()
	defer b.joining.Unlock()
	return b.left
}

// Adopt takes over what another process has joined to the ports. On an error, the other process
// still owns it. Adopt sends no requests to the kernel, because the wire is held meanwhile, and
// a request to rtnetlink(7) waits for those of all other processes.
func (b *Box) Adopt(ends Ends) error {
	b.joining.Lock()
	defer b.joining.Unlock()
	for side := range verdict.Side(verdict.Sides) {
		if err := b.adoptEnd(side, &ends.Sides[side]); err != nil {
			return fmt.Errorf("%s: %w", side, err)
		}
	}
	b.left, b.fast.before = false, ends.FastPath
	if b.fast.path != nil {
		b.fast.path.ContinueCounts(&b.fast.before)
	}
	return nil
}

func (b *Box) adoptEnd(side verdict.Side, from *End) error {
	e := &b.ends[side]
	e.addressed, e.nic, e.joined, e.held, e.rising, e.refused, e.link = from.Addressed, from.NIC, from.Joined, from.Held, from.Rising, from.Refused, from.Link
	b.SetMTU(side, from.MTU)
	if b.fast.on {
		b.fast.path.SetMTU(side, from.MTU)
	}
	if from.Junction != nil {
		var err error
		if e.junction, err = b.kernel.ImportJunction(*from.Junction); err != nil {
			return err
		}
	}
	b.ports[side].SetJoined(e.joined && !e.link.Relays)
	return nil
}
