package handover

import (
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Move gives the state to a TAP, and takes it from the NIC. In between, when
// the TAP is ready for the NIC's frames, it calls join, which is to make the
// NIC the other end of the wire that begins at the TAP. The order lets no
// packet get lost:
//
//  1. The TAP gets the MAC, the addresses and the neighbours.
//  2. join; from here on the TAP receives.
//  3. Each route leads over the TAP; from here on it sends.
//  4. The NIC loses what the TAP has.
//
// It returns the settings that could not be copied. On an error,
// [State.Return] brings back what there was.
func (s *State) Move(tap string, join func() error) (kept []string, err error) {
	kept, err = s.move(tap, join)
	if err != nil {
		return nil, fmt.Errorf("move %q to %q: %w", s.NIC, tap, err)
	}
	return kept, nil
}

func (s *State) move(name string, join func() error) (kept []string, err error) {
	nic, err := s.link()
	if err != nil {
		return nil, err
	}
	tap, err := linkByName(name)
	if err != nil {
		return nil, err
	}
	if err := s.furnish(tap, nic); err != nil {
		return nil, err
	}
	standIns := s.standIns(tap.Attrs().Index)
	if err := errors.Join(addRoutes(standIns), join()); err != nil {
		return nil, err
	}
	if s.IPv6 {
		if err := setGenMode(s.Index, genModeNone); err != nil {
			return nil, err
		}
	}
	index := tap.Attrs().Index
	routes := s.routesFor(index)
	lesson, end := s.lesson(index, routes)
	defer end()
	if err := errors.Join(lesson.learn(), addRoutes(routes)); err != nil {
		return nil, err
	}
	if err := errors.Join(dropRoutes(s.routesFor(s.Index)), dropRoutes(standIns), s.dropSurplus(index), s.strip()); err != nil {
		return nil, err
	}
	return s.copySettings(nic, tap)
}

// link returns the NIC, if it is still the one that the state is of.
func (s *State) link() (netlink.Link, error) {
	link, err := linkByName(s.NIC)
	if err != nil {
		return nil, err
	}
	if link.Attrs().Index != s.Index {
		return nil, fmt.Errorf("%w: another one has its name", ErrMissing)
	}
	return link, nil
}

// furnish gives a device all but the routes.
func (s *State) furnish(tap, nic netlink.Link) error {
	index := tap.Attrs().Index
	if err := netlink.LinkSetHardwareAddr(tap, nic.Attrs().HardwareAddr); err != nil {
		return fmt.Errorf("set mac %s: %w", s.MAC, err)
	}
	if s.IPv6 {
		if err := setGenMode(index, genModeNone); err != nil {
			return err
		}
		if readSetting("ipv6", tap.Attrs().Name, "disable_ipv6") != "0" {
			if err := writeSetting("ipv6", tap.Attrs().Name, "disable_ipv6", "0"); err != nil {
				return fmt.Errorf("turn ipv6 on: %w", err)
			}
		}
	}
	// What comes by the TAP is taken while the ways back still lead over the NIC.
	if err := loosen(index); err != nil {
		return err
	}
	if err := s.addAddresses(index); err != nil {
		return err
	}
	return addNeighbors(s.neighborsFor(index))
}

// standIns are IPv6 routes over a device that count only where another device
// is out of the question: the kernel answers some packets, as echo requests, by
// the device that they came by.
func (s *State) standIns(index int) (list []message) {
	for _, m := range s.routesFor(index) {
		if m.family() == unix.AF_INET6 && m.header[rtmType] == unix.RTN_UNICAST {
			m.setNumber(unix.RTA_PRIORITY, lastPriority)
			list = append(list, m)
		}
	}
	return list
}

func (s *State) addAddresses(index int) error {
	age := s.age()
	for _, a := range s.Addresses {
		m, alive := addressFor(a, index, age)
		if !alive {
			continue
		}
		if err := addAddress(m); err != nil {
			return fmt.Errorf("add address %q: %w", prefixText(a), err)
		}
	}
	return dropTemporary(index, s.Addresses)
}

// dropSurplus takes back the routes that the kernel made with a device's
// addresses, and that had been removed from the NIC.
func (s *State) dropSurplus(index int) error {
	wanted := make(map[string]bool)
	for _, m := range s.routesFor(index) {
		wanted[routeKey(m)] = true
	}
	made, err := readRoutes(index)
	if err != nil {
		return err
	}
	var surplus []message
	for _, m := range made {
		if isKernels(m) && !wanted[routeKey(m)] {
			m, _ = routeFor(m, index, index, 0)
			surplus = append(surplus, m)
		}
	}
	return dropRoutes(surplus)
}

func (s *State) routesFor(index int) (list []message) {
	age := s.age()
	for _, r := range s.Routes {
		if m, alive := routeFor(r, s.Index, index, age); alive {
			list = append(list, m)
		}
	}
	return list
}

func (s *State) neighborsFor(index int) (list []message) {
	for _, n := range s.Neighbors {
		list = append(list, neighborFor(n, index))
	}
	return list
}

// partition splits routes in two, which keep their order.
func partition(list []message, in func(message) bool) (yes, no []message) {
	for _, m := range list {
		if in(m) {
			yes = append(yes, m)
		} else {
			no = append(no, m)
		}
	}
	return yes, no
}

// strip takes addresses and neighbours from the NIC, latest first: what a
// killed process leaves keeps its order.
func (s *State) strip() error {
	var errs []error
	for i := len(s.Addresses) - 1; i >= 0; i-- {
		if err := dropAddress(s.Addresses[i]); err != nil {
			errs = append(errs, fmt.Errorf("remove address %q: %w", prefixText(s.Addresses[i]), err))
		}
	}
	return errors.Join(append(errs, dropNeighbors(s.neighborsFor(s.Index)))...)
}

// Return gives the NIC back what it had, from the TAP if it is still there. In
// between it calls part, which is to take the NIC out of the wire. Lifetimes are
// what is left of them, or what the TAP has learnt since; the neighbours are as
// the TAP knows them. It adds only what is missing, and may be repeated. Where
// the NIC is gone, the error wraps [ErrMissing].
func (s *State) Return(tap string, part func() error) error {
	if err := s.giveBack(tap, part); err != nil {
		return fmt.Errorf("return to %q what it had: %w", s.NIC, err)
	}
	return nil
}

func (s *State) giveBack(name string, part func() error) error {
	nic, err := s.link()
	if err != nil {
		return err
	}
	live := &State{Index: s.Index, Taken: sinceBoot()}
	tap, err := linkByName(name)
	switch {
	case err == nil:
		live.Index = tap.Attrs().Index
		if err := errors.Join(loosen(live.Index), live.readDevice(live.Index)); err != nil {
			return err
		}
	case !errors.Is(err, ErrMissing):
		return err
	}
	now := s.since(live)
	if nic.Attrs().MTU != s.MTU {
		if err := netlink.LinkSetMTU(nic, s.MTU); err != nil {
			return fmt.Errorf("set mtu %d: %w", s.MTU, err)
		}
	}
	if err := now.addAddresses(s.Index); err != nil {
		return err
	}
	if err := addNeighbors(now.neighborsFor(s.Index)); err != nil {
		return err
	}
	if s.IPv6 { // before the first of a router's advertisements can come by the NIC
		if err := setGenMode(s.Index, s.GenMode); err != nil {
			return err
		}
	}
	// What is learnt comes by the NIC itself, as soon as it is out of the wire.
	learnt, others := partition(now.routesFor(s.Index), isAdvertised)
	learntLive, othersLive := partition(live.routesFor(live.Index), isAdvertised)
	lesson, end := now.lesson(s.Index, learnt)
	defer end()
	if err := errors.Join(addRoutes(others), now.dropSurplus(s.Index), dropRoutes(othersLive), part()); err != nil {
		return err
	}
	return errors.Join(lesson.learn(), addRoutes(learnt), dropRoutes(learntLive))
}

// since returns the state as it is by now, after it was another device's, which
// has what is in live.
func (s *State) since(live *State) *State {
	now := *s
	now.Taken = live.Taken
	age := uint32((live.Taken - s.Taken) / time.Second)
	now.Addresses = freshenAddresses(s.Addresses, live.Addresses, age)
	now.Routes = freshenRoutes(s.Routes, live.Routes, s.Index, live.Index, age)
	now.Neighbors = freshenNeighbors(s.Neighbors, live.Neighbors)
	return &now
}
