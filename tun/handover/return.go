package handover

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"fragwall/tun/netdev"
)

// Moved reports whether the TAP has the whole state, after [State.Move].
func (s *State) Moved() bool { return s.moved }

// Refresh reads the current state of the TAP, which [State.Return] will give to the NIC:
// addresses, routes and neighbours can change there. Call it after a [State.Move] that
// succeeded.
func (s *State) Refresh(tap string) error {
	if err := s.refresh(rtnetlink{}, tap); err != nil {
		return fmt.Errorf("read from %q the configuration of %q: %w", tap, s.NIC, err)
	}
	return nil
}

func (s *State) refresh(k kernel, name string) error {
	tap, err := k.linkByName(name)
	if err != nil {
		return err
	}
	live := &State{Index: tap.Attrs().Index, Taken: sinceBoot()}
	if err := live.readDevice(k, live.Index); err != nil {
		return err
	}
	labels := make(map[string][]byte)
	for _, m := range s.Addresses {
		labels[addressKey(m)] = m.get(unix.IFA_LABEL)
	}
	// Temporary addresses that the kernel made on the TAP (RFC 8981) stay there: it makes
	// others on the NIC.
	live.Addresses = slices.DeleteFunc(live.Addresses, func(m message) bool {
		_, known := labels[addressKey(m)]
		return isTemporary(m) && !known
	})
	live.rename(s.Index)
	for i, m := range live.Addresses {
		// A label that equals the NIC's name is from the kernel, which knows the current
		// name.
		if label := labels[addressKey(m)]; label != nil && unix.ByteSliceToString(label) != s.NIC {
			live.Addresses[i].set(unix.IFA_LABEL, label)
		}
	}
	s.Taken, s.Addresses, s.Routes, s.Neighbors = live.Taken, live.Addresses, live.Routes, live.Neighbors
	return nil
}

// rename changes the index of the state's device.
func (s *State) rename(index int) {
	for i, m := range s.Addresses {
		s.Addresses[i], _ = addressFor(m, index, 0)
	}
	for i, m := range s.Neighbors {
		s.Neighbors[i] = neighborFor(m, index)
	}
	var routes []message
	for _, m := range s.Routes {
		if m, alive := routeFor(m, s.Index, index, 0); alive {
			routes = append(routes, m)
		}
	}
	s.Routes, s.Index = routes, index
}

// Return gives the NIC, whatever its current name, what the TAP has or, if the TAP is gone or
// never had the whole state, what the state contains, with the rest of the lifetimes. It calls
// detach, which removes the NIC from the wire. These steps are carried out in order:
//
//  1. The NIC gets the addresses and the neighbours, and generates IPv6 addresses again.
//  2. Each route except the advertised ones is moved to the NIC; from here on it sends.
//  3. detach; from here on the NIC receives.
//  4. The NIC learns the advertised routes, which is possible from here on, and the TAP loses
//     its last routes.
//
// It adds only what is missing, and may be repeated. If the NIC is gone, the error wraps
// [netdev.ErrMissing].
func (s *State) Return(tap string, detach func() error) error {
	return s.restore(rtnetlink{}, tap, detach)
}

func (s *State) restore(k kernel, tap string, detach func() error) error {
	t, err := s.transfer(k)
	if err == nil {
		err = t.restore(tap, detach)
	}
	if err != nil {
		return fmt.Errorf("restore %q: %w", s.NIC, err)
	}
	return nil
}

func (t *transfer) restore(name string, detach func() error) error {
	var over []message // routes through the TAP
	tap, err := t.linkByName(name)
	switch {
	case err == nil:
		if over, err = t.takeFrom(tap.Attrs().Index, name); err != nil {
			return err
		}
	case !errors.Is(err, netdev.ErrMissing):
		return err
	default:
		t.markStale()
	}
	// Learnt routes arrive through the NIC itself, as soon as it is out of the wire.
	learnt, others := partition(t.routesFor(t.Index), isAdvertised)
	learntOver, othersOver := partition(over, isAdvertised)
	advertisements, end := t.advertisements(t.Index, learnt)
	defer end()
	return inOrder(
		// 1
		func() error { return t.addAddresses(t.Index, unix.NLM_F_EXCL) },
		func() error { return dropTemporary(t, t.Index, t.Addresses) },
		func() error { return addNeighbors(t, t.neighborsFor(t.Index)) },
		t.restoreAddressGeneration, // before the first router advertisement can arrive at the NIC
		// 2
		func() error { return addRoutes(t, others) },
		func() error { return t.dropSurplus(t.Index) },
		func() error { return dropRoutes(t, othersOver) },
		// 3
		detach,
		// 4
		func() error { return advertisements.send(t) },
		func() error { return addRoutes(t, learnt) },
		func() error { return dropRoutes(t, learntOver) },
	)
}

// takeFrom prepares the removal of what the TAP has. It returns the routes through it.
func (t *transfer) takeFrom(index int, name string) ([]message, error) {
	if t.moved {
		if err := t.refresh(t, name); err != nil {
			return nil, err
		}
	}
	if err := loosen(t, index); err != nil {
		return nil, err
	}
	return readRoutes(t, index)
}

// restoreAddressGeneration lets the NIC generate IPv6 addresses as before.
func (t *transfer) restoreAddressGeneration() error {
	if !t.IPv6 {
		return nil
	}
	return setGenMode(t, t.Index, t.GenMode)
}

// markStale makes neighbours that are not permanent stale: nothing has confirmed them
// since they were read.
func (s *State) markStale() {
	for i, m := range s.Neighbors {
		if isLearnt(m) {
			s.Neighbors[i] = staleNeighbor(m)
		}
	}
}

// Adopt moves to the TAP what the NIC was given since [State.Move], for instance by a
// program that uses the NIC's name: addresses, routes and permanent neighbours. It
// returns them in the syntax of ip(8).
func (s *State) Adopt(tap string) (adopted []string, err error) {
	return s.adopt(rtnetlink{}, tap)
}

func (s *State) adopt(k kernel, name string) (adopted []string, err error) {
	late := &State{NIC: s.NIC, MAC: s.MAC, Index: s.Index, Taken: sinceBoot()}
	t, err := late.transfer(k)
	if err == nil {
		adopted, err = t.adopt(name)
	}
	if err != nil {
		return nil, fmt.Errorf("move to %q what was added to %q: %w", name, s.NIC, err)
	}
	return adopted, nil
}

func (t *transfer) adopt(name string) (adopted []string, err error) {
	tap, err := t.linkByName(name)
	if err != nil {
		return nil, err
	}
	if err := t.readDevice(t, t.Index); err != nil {
		return nil, err
	}
	own := t.routesFor(t.Index)
	t.Routes = slices.DeleteFunc(t.Routes, isKernels)
	t.Neighbors = slices.DeleteFunc(t.Neighbors, isLearnt)
	adopted = t.words()
	if len(adopted) == 0 {
		return nil, nil
	}
	index := tap.Attrs().Index
	return adopted, inOrder(
		func() error { return t.addAddresses(index, unix.NLM_F_REPLACE) }, // it may have been renewed
		func() error { return addNeighbors(t, t.neighborsFor(index)) },
		func() error { return addRoutes(t, t.routesFor(index)) },
		func() error { return dropRoutes(t, t.routesFor(t.Index)) },
		t.clearNIC,
		// If an IPv6 address has a lifetime, the kernel keeps the route to its subnet,
		// through which packets would bypass the box.
		func() error { return dropRoutes(t, own) },
	)
}

// Replace assigns the state to a NIC, given by name, that replaces one that is gone: the TAP
// gets its MAC, and the NIC stops generating IPv6 addresses.
func (s *State) Replace(nic, tap string) error {
	if err := s.replace(rtnetlink{}, nic, tap); err != nil {
		return fmt.Errorf("take over %q: %w", nic, err)
	}
	return nil
}

func (s *State) replace(k kernel, nic, tap string) error {
	link, err := k.linkByName(nic)
	if err != nil {
		return err
	}
	to, err := k.linkByName(tap)
	if err != nil {
		return err
	}
	a := link.Attrs()
	s.rename(a.Index)
	s.NIC, s.MAC = a.Name, a.HardwareAddr.String()
	t := &transfer{k, s, link}
	if to.Attrs().HardwareAddr.String() != s.MAC {
		if err := k.setMAC(to.Attrs().Index, a.HardwareAddr); err != nil {
			return err
		}
	}
	return t.stopAddressGeneration()
}
