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
	closed bool // no NIC is to be joined any more
	left   bool // the devices are another process's
	fast   fastState
}

// Setup is what a box is made of.
type Setup struct {
	Config   *rules.Config
	Log      *slog.Logger
	Observer wire.Observer // may be nil
	// Sidecar says that the inside port is a device of the namespace itself, and
	// that the outside NIC is joined later.
	Sidecar bool
	// FastPath is that of the process that the box is taken over from; nil if there is none. Its
	// descriptors stay the caller's.
	FastPath *fastpath.Exported
}

// Open makes the devices of both sides, and the lanes between them. On an error it
// leaves nothing of what it made.
func Open(kernel *Kernel, s Setup) (*Box, error) {
	c := s.Config
	if err := checkDescriptors(queues(&s, c)); err != nil {
		return nil, err
	}
	// The TAPs of a killed fragwall go in the kernel's own time. Until then what it
	// left on the NICs looks like another's.
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

// makeWire makes the lanes between the ports, the fast path, and the wire of both.
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

// portConfigs returns what the ports are to be. A frame that is left to be cut into
// segments needs a TAP that takes it.
func portConfigs(s *Setup, c *rules.Config) (configs [verdict.Sides]tun.Config) {
	for side := range verdict.Side(verdict.Sides) {
		i := c.Side(side)
		configs[side] = tun.Config{
			Name: i.TAP, MTU: i.MTU, Queues: i.Queues, Offload: c.Inside.Offload && c.Outside.Offload, Fragments: ringSize(s, c, side),
		}
	}
	return configs
}

// Fragments that can wait in memory for the lanes of a side, 1,600 bytes each; those of
// a sidecar are charged to its pod.
const (
	ringFragments        = 8192
	sidecarRingFragments = 1024
)

// ringSize returns how many fragments can wait in memory for the lanes of a side: where
// there is to be a fast path, from a NIC, and all fragments go through the process.
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

// queues returns how many queues both sides have together.
func queues(s *Setup, c *rules.Config) (n int) {
	for _, config := range portConfigs(s, c) {
		n += config.QueueCount()
	}
	return n
}

// connect makes the lanes between the ports.
func (b *Box) connect() (err error) {
	for side := range verdict.Side(verdict.Sides) {
		if b.lanes[side], err = b.ports[side].Lanes(b.ports[side.Other()]); err != nil {
			return err
		}
	}
	return nil
}

// logFallbacks says once what the ports do without.
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

// Missed returns how many frames of each side the kernel dropped before the box
// read them, as long as its devices are there.
func (b *Box) Missed() map[verdict.Side]uint64 {
	missed := make(map[verdict.Side]uint64)
	for side, p := range b.ports {
		if n, err := p.Missed(); err == nil {
			missed[verdict.Side(side)] = n
		}
	}
	return missed
}

// Lanes returns how many lanes there are, of both directions.
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

// Close removes what Open made, in reverse order, and what Join did; where the box was
// left, it closes what it has open, and changes nothing.
func (b *Box) Close() error {
	errs := []error{b.closeLanes(), b.Part(Junction.Close)}
	for side := verdict.Sides - 1; side >= 0; side-- {
		if p := b.ports[side]; p != nil {
			errs = append(errs, p.Close())
		}
	}
	return errors.Join(errs...)
}
