package box

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"fragwall/cmd/fragwall/internal/datapath"
	"fragwall/fastpath"
	"fragwall/packet"
	"fragwall/packet/verdict"
	"fragwall/rules"
	"fragwall/tun"
	"fragwall/wire"
)

// Box is the wire with its devices.
type Box struct {
	*wire.Bump
	kernel  *Kernel
	log     *slog.Logger
	sidecar bool // see [Setup]
	ports   [verdict.Sides]tun.Port
	lanes   [verdict.Sides][]tun.Lane // by the side that they read from

	joining sync.Mutex
	// joining guards:
	ends   [verdict.Sides]end
	closed bool // no further NIC may be joined
	left   bool // another process owns the devices
	fast   fastState
}

// Setup is the input of Open.
type Setup struct {
	Config   *rules.Config
	Log      *slog.Logger
	Observer wire.Observer // may be nil
	// Sidecar says that the inside port is a device of the namespace itself, and that the
	// outside NIC is joined later.
	Sidecar bool
	// FastPath is the fast path of the process from which the box is taken over, or nil. The
	// caller keeps the descriptors.
	FastPath *fastpath.Exported
}

// Open creates the devices of both sides and the lanes between them. On an error it removes
// what it created.
func Open(kernel *Kernel, s Setup) (*Box, error) {
	c := s.Config
	if err := checkDescriptors(queues(&s, c)); err != nil {
		return nil, err
	}
	// The kernel removes the TAPs of a killed fragwall asynchronously. Until then, what that
	// process left on the NICs looks like another program's.
	for side := range verdict.Side(verdict.Sides) {
		if err := kernel.Vacant(c.Side(side).TAP); err != nil {
			return nil, fmt.Errorf("%s: %w", side, err)
		}
	}
	c, err := kernel.WithMTUs(c)
	if err != nil {
		return nil, err
	}
	if text := MTUsDiffer(c.Inside.MTU, c.Outside.MTU); text != "" {
		s.Log.Warn(text)
	}
	b := &Box{kernel: kernel, log: s.Log, sidecar: s.Sidecar}
	for side, config := range portConfigs(&s, c) {
		if err := b.openSide(verdict.Side(side), c.Side(verdict.Side(side)), config); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", verdict.Side(side), err), b.Close())
		}
	}
	if err := b.makeWire(&s, c); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// makeWire creates the lanes between the ports, the fast path and the wire.
func (b *Box) makeWire(s *Setup, c *rules.Config) error {
	if err := b.connect(); err != nil {
		return err
	}
	b.logFallbacks()
	b.openFastPath(s, c)
	config := datapath.Config(c)
	config.Observer = s.Observer
	if b.fast.on {
		config.FastPath = b.fast.path
	}
	for side, lanes := range b.lanes {
		config.Sides[side].Lanes = lanes
	}
	b.Bump = wire.New(config)
	return nil
}

// portConfigs returns the configurations of the ports. Frames may be left unsegmented only if
// the TAPs of both sides accept such frames.
func portConfigs(s *Setup, c *rules.Config) (configs [verdict.Sides]tun.Config) {
	for side := range verdict.Side(verdict.Sides) {
		i := c.Side(side)
		configs[side] = tun.Config{
			Name: i.TAP, MTU: i.MTU, Queues: i.Queues, Offload: c.Inside.Offload && c.Outside.Offload, Fragments: ringSize(s, c, side),
		}
	}
	return configs
}

// Number of fragments that fit into the ring of a side, 1,600 bytes each. The memory of a
// sidecar is charged to its pod.
const (
	ringFragments        = 8192
	sidecarRingFragments = 1024
)

// ringSize returns the number of fragments that the ring of a side holds, or 0 for no ring. A
// ring needs the fast path and a NIC on that side, and a fragment mode in which all fragments
// go through the process.
func ringSize(s *Setup, c *rules.Config, side verdict.Side) int {
	switch {
	case c.FastPath == rules.FastPathOff || c.Fragments.Mode != packet.ModeReassemble || c.Inside.Bridge != "" || c.Outside.Bridge != "":
		return 0
	case !s.Sidecar && c.Inside.NIC != "" && c.Outside.NIC != "":
		return ringFragments
	case s.Sidecar && side == verdict.Outside:
		return sidecarRingFragments
	}
	return 0
}

func (b *Box) openSide(side verdict.Side, i rules.Interface, config tun.Config) (err error) {
	if b.ports[side], err = b.kernel.OpenPort(config); err != nil {
		return err
	}
	if i.NIC != "" {
		return b.Join(side, i, false)
	}
	b.ends[side].config = i
	b.ends[side].link, err = b.kernel.ReadLink(b.ports[side].Index())
	return err
}

// queues returns the number of queues of both sides together.
func queues(s *Setup, c *rules.Config) (n int) {
	for _, config := range portConfigs(s, c) {
		n += config.QueueCount()
	}
	return n
}

// connect creates the lanes between the ports.
func (b *Box) connect() (err error) {
	for side := range verdict.Side(verdict.Sides) {
		if b.lanes[side], err = b.ports[side].Lanes(b.ports[side.Other()]); err != nil {
			return err
		}
	}
	return nil
}

// logFallbacks logs once which features the ports do without.
func (b *Box) logFallbacks() {
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
		b.log.Log(context.Background(), f.Level, f.Message, "error", f.Err)
	}
}

// Missed returns the number of frames that the kernel dropped before the box read them, by
// side. It omits a side whose device is gone.
func (b *Box) Missed() map[verdict.Side]uint64 {
	missed := make(map[verdict.Side]uint64)
	for side, p := range b.ports {
		if n, err := p.Missed(); err == nil {
			missed[verdict.Side(side)] = n
		}
	}
	return missed
}

// Lanes returns the number of lanes of both directions.
func (b *Box) Lanes() int { return len(b.lanes[verdict.Inside]) + len(b.lanes[verdict.Outside]) }

func (b *Box) closeLanes() error {
	var errs []error
	for side, lanes := range b.lanes {
		for _, l := range lanes {
			errs = append(errs, l.Close())
		}
		b.lanes[side] = nil
	}
	return errors.Join(errs...)
}

// Close removes what Open and Join created, in reverse order. If the box was left to another
// process, Close only closes descriptors and changes no device.
func (b *Box) Close() error {
	errs := []error{b.closeLanes(), b.Part(Junction.Close)}
	for side := verdict.Sides - 1; side >= 0; side-- {
		if p := b.ports[side]; p != nil {
			errs = append(errs, p.Close())
		}
	}
	return errors.Join(errs...)
}
