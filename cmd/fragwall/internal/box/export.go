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

// Another process takes a box over in two steps. The ports stay what they are, and are
// exported while the box forwards ([Box.Export], [Import]). What is joined to them may
// change at any time, and is handed over while nothing is to change it ([Box.Suspend],
// [Box.Adopt]), until the box is resumed or left.

// Port is a port as another process can go on with it.
type Port struct {
	tun.Exported
	MTU int `json:"mtu"`           // of the side, in bytes
	NIC int `json:"nic,omitempty"` // index of the NIC that is joined to it; 0: none is
}

// End is what is joined to a port, as another process can go on with it.
type End struct {
	MTU       int            `json:"mtu"` // of the side, in bytes
	Addressed bool           `json:"addressed,omitempty"`
	Junction  *link.Exported `json:"junction,omitempty"` // null where no NIC was joined yet
	NIC       int            `json:"nic,omitempty"`      // its index, where it is joined
	Joined    bool           `json:"joined,omitempty"`
	Held      bool           `json:"held,omitempty"`
	Rising    bool           `json:"rising,omitempty"`
	Refused   int            `json:"refused,omitempty"` // MTU in bytes
	Link      netdev.Link    `json:"link"`              // of the NIC, or of the port if none is configured
}

// Ends are those of both sides, and what the fast path between them has done.
type Ends struct {
	Sides    [verdict.Sides]End `json:"sides"`
	FastPath fastpath.Stats     `json:"fast_path"`
}

// Export returns the ports, whose descriptors stay the box's, and the fast path, whose descriptors
// are the caller's; nil if it is off.
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

// Import returns a box with the ports that another process has exported, which is a
// box of the same devices. It owns the descriptors. Nothing is joined to the ports
// until [Box.Adopt]; until then, to close the box changes no device.
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

// Suspend makes the fast path pass up all frames, and returns what is joined to the ports. Nobody
// changes or reads any of that until [Box.Resume] or [Box.Leave].
func (b *Box) Suspend() Ends {
	b.joining.Lock()
	if b.fast.on {
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

// Resume ends what Suspend began: the box continues as before. The lanes must still be held.
func (b *Box) Resume() {
	if b.fast.on {
		b.fast.path.Resume()
	}
	b.joining.Unlock()
}

// Leave ends what Suspend began: the devices are another process's.
func (b *Box) Leave() {
	b.closed, b.left = true, true
	b.joining.Unlock()
}

// Disown undoes [Box.Adopt]: the devices are the other process's again.
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

// Adopt makes what another process has joined to the ports the box's own. On an error the other
// process still owns it. Adopt asks the kernel nothing, as the wire is held: a request to
// rtnetlink(7) waits for those of all other processes.
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
