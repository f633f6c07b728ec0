package link

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/tun/netdev"
)

// nicState is the part of a NIC's state that joining changes, and of its namespace's.
type nicState struct {
	mtu         int // bytes; 0: joining does not change it
	up          bool
	promiscuous bool
	ipv6        bool // IPv6 is enabled
	lro         bool // large receive offload is on
	netfilter   netfilter
}

// A nicState is stored in a mark of 32 bits: in the filter of a redirect or in the group of a
// bridge, so that it outlives a killed process. The mark has a byte that identifies fragwall, one
// bit for each flag, the sysctls that were set to 0, and the MTU, at most 65535 (ETH_MAX_MTU). One
// more bit marks a bypass.
const (
	markMagic       = 0xf7 << 24
	markMagicMask   = 0xff << 24
	markUp          = 1 << 20
	markPromiscuous = 1 << 21
	markIPv6        = 1 << 22
	markLRO         = 1 << 23
	markBypass      = 1 << 19 // not part of the state: a [Bypass] made the redirect
	markNetfilter   = 16      // the lowest bit
	markMTUMask     = 1<<markNetfilter - 1
)

// mark returns the state as a mark.
func (s nicState) mark() uint32 {
	m := markMagic | uint32(min(s.mtu, markMTUMask)) | uint32(s.netfilter)<<markNetfilter
	for bit, set := range map[uint32]bool{markUp: s.up, markPromiscuous: s.promiscuous, markIPv6: s.ipv6, markLRO: s.lro} {
		if set {
			m |= bit
		}
	}
	return m
}

// stateOf reads a mark. It reports false if the number is not a mark of fragwall.
func stateOf(mark uint32) (nicState, bool) {
	return nicState{
		mtu:         int(mark & markMTUMask),
		up:          mark&markUp != 0,
		promiscuous: mark&markPromiscuous != 0,
		ipv6:        mark&markIPv6 != 0,
		lro:         mark&markLRO != 0,
		netfilter:   netfilter(mark>>markNetfilter) & allNetfilter,
	}, mark&markMagicMask == markMagic
}

// findJoined returns the NIC. If a killed instance or a [Bypass] left the NIC joined, it also
// returns the former state and a function that ends the join; otherwise end is nil.
func findJoined(name string) (nic netlink.Link, before nicState, end func() error, err error) {
	nic, err = netlink.LinkByName(name)
	if err != nil {
		if netdev.Gone(err) {
			return nil, before, nil, fmt.Errorf("nic %q: no such interface", name)
		}
		return nil, before, nil, fmt.Errorf("nic %q: %w", name, err)
	}
	before, end, err = redirected(nic)
	if err == nil && end == nil {
		before, end, err = bridged(nic)
	}
	return nic, before, end, err
}

// adoptNIC returns the NIC and its state, if it may be joined to a TAP. If a killed instance left
// the NIC joined, state is the former state, and end ends that join. Call end only after the state
// is stored elsewhere. Only an addressed NIC may have addresses. Its state omits IPv6 and is up.
func adoptNIC(name string, addressed bool) (nic netlink.Link, state nicState, end func() error, err error) {
	refuse := func(format string, args ...any) (netlink.Link, nicState, func() error, error) {
		return nil, nicState{}, nil, fmt.Errorf("nic %q "+format, append([]any{name}, args...)...)
	}
	nic, state, end, err = findJoined(name)
	if err != nil {
		return nil, nicState{}, nil, err
	}
	switch a := nic.Attrs(); {
	case a.Flags&net.FlagLoopback != 0:
		return refuse("is the loopback interface")
	case a.EncapType != "ether":
		return refuse("is not an Ethernet interface")
	}
	global, err := globalAddresses(nic)
	if err != nil {
		return refuse("read addresses: %w", err)
	}
	if len(global) > 0 && !addressed {
		return refuse("has addresses that would stop working (%s): remove them, or choose a nic without addresses", strings.Join(global, ", "))
	}
	if end == nil {
		state, err = readState(nic)
	}
	state.ipv6 = state.ipv6 && !addressed
	state.up = state.up || addressed // it gets its addresses and routes back
	return nic, state, end, err
}

// globalAddresses returns the NIC's addresses except IPv6 link-local ones, which every interface
// has.
func globalAddresses(nic netlink.Link) ([]string, error) {
	addresses, err := netlink.AddrList(nic, netlink.FAMILY_ALL)
	var global []string
	for _, a := range addresses {
		if !a.IP.IsLinkLocalUnicast() || a.IP.To4() != nil {
			global = append(global, a.IPNet.String())
		}
	}
	return global, err
}

func readState(nic netlink.Link) (nicState, error) {
	a := nic.Attrs()
	off, err := netdev.Sysctl(netdev.IPv6Switch(a.Name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nicState{}, fmt.Errorf("nic %q: %w", a.Name, err)
	}
	lro, err := netdev.LRO(a.Name)
	if err != nil {
		return nicState{}, fmt.Errorf("nic %q: %w", a.Name, err)
	}
	return nicState{
		mtu:         a.MTU,
		up:          a.Flags&net.FlagUp != 0,
		promiscuous: a.RawFlags&unix.IFF_PROMISC != 0,
		ipv6:        off == "0",
		lro:         lro,
	}, nil
}

// prepareNIC prepares a NIC for the wire: it receives frames to all MACs, unmerged, and the kernel
// sends no frames of its own through it.
func prepareNIC(nic netlink.Link, c Config) error {
	name := nic.Attrs().Name
	if c.MTU != 0 && nic.Attrs().MTU != c.MTU {
		if err := netlink.LinkSetMTU(nic, c.MTU); err != nil {
			return fmt.Errorf("nic %q: set mtu %d: %w", name, c.MTU, err)
		}
	}
	if !c.Addressed { // otherwise the caller disables IPv6 when it removes the addresses
		if err := silenceNIC(nic, false); err != nil {
			return err
		}
	}
	if err := netdev.SetLRO(name, false); err != nil {
		return fmt.Errorf("nic %q: %w", name, err)
	}
	if err := netlink.SetPromiscOn(nic); err != nil {
		return fmt.Errorf("nic %q: make promiscuous: %w", name, err)
	}
	if err := netlink.LinkSetUp(nic); err != nil {
		return fmt.Errorf("nic %q: bring up: %w", name, err)
	}
	return nil
}

// silenceNIC disables IPv6 on a NIC. If the NIC is addressed, it only stops the kernel from
// generating IPv6 addresses.
func silenceNIC(nic netlink.Link, addressed bool) error {
	name := nic.Attrs().Name
	var err error
	if addressed {
		err = netdev.DisableIPv6Addresses(nic)
	} else {
		_, err = netdev.SwapSysctl(netdev.IPv6Switch(name), "1")
	}
	if err != nil {
		return fmt.Errorf("nic %q: %w", name, err)
	}
	return nil
}

// restore restores a NIC, whatever its current name. set is the MTU that joining set, in bytes, or
// 0 if it is unknown. If the NIC now has a different MTU, that was set later, and restore keeps it.
// It is not an error if the NIC is gone.
func (s nicState) restore(nic netlink.Link, set int) error {
	nic, err := netlink.LinkByIndex(nic.Attrs().Index)
	if err != nil {
		if netdev.Gone(err) {
			return nil
		}
		return fmt.Errorf("restore a nic: %w", err)
	}
	name := nic.Attrs().Name
	var errs []error
	if !s.up {
		errs = append(errs, netlink.LinkSetDown(nic))
	}
	if !s.promiscuous {
		errs = append(errs, netlink.SetPromiscOff(nic))
	}
	if s.lro {
		errs = append(errs, netdev.SetLRO(name, true))
	}
	if s.ipv6 {
		_, err := netdev.SwapSysctl(netdev.IPv6Switch(name), "0")
		errs = append(errs, err)
	}
	if s.mtu != 0 && (set == 0 || nic.Attrs().MTU == set) {
		errs = append(errs, netlink.LinkSetMTU(nic, s.mtu))
	}
	for i, err := range errs {
		if err != nil && netdev.Gone(err) {
			errs[i] = nil
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("nic %q: restore: %w", name, err)
	}
	return nil
}

// NICMTU returns the MTU of a NIC in bytes. If a killed instance left the NIC joined, it returns
// the former MTU.
func NICMTU(name string) (int, error) {
	nic, before, _, err := findJoined(name)
	switch {
	case nic == nil:
		return 0, err
	case err == nil && before.mtu != 0:
		return before.mtu, nil
	}
	return nic.Attrs().MTU, nil // also if a running instance has the NIC
}
