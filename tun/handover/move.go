package handover

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/tun/netdev"
)

// transfer is a state that is being moved from one device to the other.
type transfer struct {
	kernel
	*State
	nic netlink.Link
}

// transfer finds the NIC of the state: by its index, which does not change with its name,
// or otherwise by its name and MAC, for instance after its driver was loaded again. If
// there is neither, the error wraps [netdev.ErrMissing].
func (s *State) transfer(k kernel) (*transfer, error) {
	nic, err := k.linkByIndex(s.Index)
	if err == nil {
		s.relabel(nic.Attrs().Name)
		return &transfer{k, s, nic}, nil
	}
	if !errors.Is(err, netdev.ErrMissing) {
		return nil, err
	}
	nic, err = k.linkByName(s.NIC)
	if err != nil {
		return nil, err
	}
	if mac := nic.Attrs().HardwareAddr.String(); mac != s.MAC {
		return nil, fmt.Errorf("%w: another nic, with mac %s, has its name", netdev.ErrMissing, mac)
	}
	s.rename(nic.Attrs().Index)
	return &transfer{k, s, nic}, nil
}

// relabel replaces the old name of a NIC in the labels of its addresses.
func (s *State) relabel(name string) {
	for i, m := range s.Addresses {
		if label := m.get(unix.IFA_LABEL); name != s.NIC && unix.ByteSliceToString(label) == s.NIC {
			s.Addresses[i] = m.clone()
			s.Addresses[i].remove(unix.IFA_LABEL)
		}
	}
}

// Device returns the current name of the NIC. For its error see [State.Return].
func (s *State) Device() (name string, err error) {
	t, err := s.transfer(rtnetlink{})
	if err != nil {
		return "", fmt.Errorf("nic %q: %w", s.NIC, err)
	}
	return t.nic.Attrs().Name, nil
}

// Move gives the state to a TAP, and removes it from the NIC. It calls join, which joins the
// NIC and the TAP into a wire. These steps are carried out in order, and lose no packet:
//
//  1. The TAP gets the MAC, the addresses, the neighbours, and the IPv6 routes for replies
//     that the kernel sends through the device of the request.
//  2. join; from here on the TAP receives.
//  3. Each route is moved to the TAP; the TAP learns advertised routes from an advertisement.
//     From here on the TAP sends.
//  4. The NIC loses what the TAP has, and the TAP gets the NIC's settings.
//
// It returns the settings that could not be copied. Nothing is removed from the NIC before the
// TAP has it. After an error, [State.Return] restores the NIC.
func (s *State) Move(tap string, join func() error) (kept []string, err error) {
	return s.move(rtnetlink{}, tap, join)
}

func (s *State) move(k kernel, name string, join func() error) (kept []string, err error) {
	t, err := s.transfer(k)
	if err == nil {
		kept, err = t.move(name, join)
	}
	if err != nil {
		return nil, fmt.Errorf("move %q to %q: %w", s.NIC, name, err)
	}
	return kept, nil
}

func (t *transfer) move(name string, join func() error) (kept []string, err error) {
	tap, err := t.linkByName(name)
	if err != nil {
		return nil, err
	}
	index := tap.Attrs().Index
	fallback, routes := t.fallbackRoutes(index), t.routesFor(index)
	err = inOrder(
		// 1
		func() error { return t.prepareTAP(tap) },
		func() error { return addRoutes(t, fallback) },
		// 2
		join,
		// 3
		t.stopAddressGeneration,
		func() error {
			advertisements, end := t.advertisements(index, routes)
			defer end()
			return advertisements.send(t)
		},
		func() error { return addRoutes(t, routes) },
		// 4
		func() error { return dropRoutes(t, t.routesFor(t.Index)) },
		func() error { return dropRoutes(t, fallback) },
		func() error { return t.dropSurplus(index) },
		t.clearNIC,
	)
	if err != nil {
		return nil, err
	}
	t.moved = true
	return t.copySettings(t.nic, tap)
}

// inOrder carries out steps, until one fails.
func inOrder(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// stopAddressGeneration stops the NIC from generating IPv6 addresses.
func (t *transfer) stopAddressGeneration() error {
	if !t.IPv6 {
		return nil
	}
	return setGenMode(t, t.Index, genModeNone)
}

// prepareTAP gives the TAP everything but the routes.
func (t *transfer) prepareTAP(tap netlink.Link) error {
	index := tap.Attrs().Index
	if err := t.setMAC(index, t.nic.Attrs().HardwareAddr); err != nil {
		return fmt.Errorf("set mac %s: %w", t.nic.Attrs().HardwareAddr, err)
	}
	if t.IPv6 {
		if err := setGenMode(t, index, genModeNone); err != nil {
			return err
		}
		if t.setting("ipv6", tap.Attrs().Name, "disable_ipv6") != "0" {
			if err := t.setSetting("ipv6", tap.Attrs().Name, "disable_ipv6", "0"); err != nil {
				return fmt.Errorf("turn ipv6 on: %w", err)
			}
		}
	}
	return inOrder(
		// The TAP accepts packets while the return paths still use the NIC.
		func() error { return loosen(t, index) },
		func() error { return t.addAddresses(index, unix.NLM_F_EXCL) },
		func() error { return dropTemporary(t, index, t.Addresses) },
		func() error { return addNeighbors(t, t.neighborsFor(index)) },
	)
}

// fallbackRoutes are the IPv6 routes through a device, with the highest metric. They
// matter only if the kernel considers no other device: it answers some packets, such as
// echo requests, through the device that they arrived on.
func (s *State) fallbackRoutes(index int) (list []message) {
	for _, m := range s.routesFor(index) {
		if m.family() == unix.AF_INET6 && m.header[rtmType] == unix.RTN_UNICAST {
			m.setNumber(unix.RTA_PRIORITY, lastPriority)
			list = append(list, m)
		}
	}
	return list
}

func (t *transfer) addAddresses(index, flag int) error {
	age := t.age()
	for _, a := range t.Addresses {
		m, alive := addressFor(a, index, age)
		if !alive {
			continue
		}
		if err := addAddress(t, m, flag); err != nil {
			return fmt.Errorf("add address %q: %w", prefixText(a), err)
		}
	}
	return nil
}

// dropSurplus removes routes that the kernel made with a device's addresses, and that had
// been removed from the NIC.
func (t *transfer) dropSurplus(index int) error {
	wanted := make(map[string]bool)
	for _, m := range t.routesFor(index) {
		wanted[routeKey(m)] = true
	}
	made, err := readRoutes(t, index)
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
	return dropRoutes(t, surplus)
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

// partition splits routes in two lists, in their order.
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

// clearNIC takes addresses and neighbours from the NIC, latest first, so that a killed
// process leaves the rest in order.
func (t *transfer) clearNIC() error {
	for i := len(t.Addresses) - 1; i >= 0; i-- {
		if err := dropAddress(t, t.Addresses[i]); err != nil {
			return fmt.Errorf("remove address %q: %w", prefixText(t.Addresses[i]), err)
		}
	}
	return dropNeighbors(t, t.neighborsFor(t.Index))
}
