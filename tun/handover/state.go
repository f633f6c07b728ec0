package handover

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// State is the network configuration of a NIC, or of a TAP in its place.
type State struct {
	Namespace Namespace
	NIC       string // its name when it was read
	Index     int
	MAC       string
	MTU       int           // bytes
	Taken     time.Duration // on the clock that counts from boot, including suspension
	IPv6      bool          // the NIC uses IPv6
	TAPs      []string      // the inside one first; they are removed with the process
	Bridge    string        // the bridge that joins the NIC; "" for none
	GenMode   uint8         // how the kernel makes its IPv6 addresses (IFLA_INET6_ADDR_GEN_MODE)

	Addresses, Routes, Neighbors []message

	moved bool // the TAP has the whole state, and the NIC nothing
}

// Read reads the state of a NIC. It returns an error if the NIC cannot be part of a wire.
func Read(nic string) (*State, error) {
	s := &State{NIC: nic}
	if err := s.read(rtnetlink{}); err != nil {
		return nil, fmt.Errorf("nic %q: %w", nic, err)
	}
	return s, nil
}

func (s *State) read(k kernel) error {
	link, err := k.linkByName(s.NIC)
	if err != nil {
		return err
	}
	if err := suitable(k, link); err != nil {
		return err
	}
	a := link.Attrs()
	s.Index, s.MAC, s.MTU = a.Index, a.HardwareAddr.String(), a.MTU
	settings, err := k.families(s.Index)
	if err != nil {
		return err
	}
	s.GenMode = settings.genMode
	s.IPv6 = settings.ipv6 && k.setting("ipv6", s.NIC, "disable_ipv6") != "1"
	if s.Namespace, err = CurrentNamespace(); err != nil {
		return err
	}
	s.Taken = sinceBoot()
	return s.readDevice(k, s.Index)
}

// Summary describes what is moved in a few words.
func (s *State) Summary() string {
	return fmt.Sprintf("addresses: %d, routes: %d, neighbours: %d", len(s.Addresses), len(s.Routes), len(s.Neighbors))
}

// readDevice reads the state of a device.
func (s *State) readDevice(k kernel, index int) (err error) {
	if s.Addresses, err = readAddresses(k, index); err != nil {
		return err
	}
	if s.Routes, err = readRoutes(k, index); err != nil {
		return err
	}
	s.Neighbors, err = readNeighbors(k, index)
	return err
}

// suitable returns an error if a NIC cannot become part of a wire, or if something that
// depends on it would stop working.
func suitable(k kernel, nic netlink.Link) error {
	a := nic.Attrs()
	switch {
	case a.Flags&net.FlagLoopback != 0:
		return errors.New("is the loopback interface")
	case a.EncapType != "ether":
		return errors.New("is not an Ethernet interface")
	case a.MasterIndex != 0:
		return errors.New("belongs to a bridge or bond, which has the addresses: name the bridge or bond")
	case strings.HasPrefix(nic.Type(), "ipvlan"):
		return fmt.Errorf("has type %s, which receives only packets for its own addresses: use macvlan or veth", nic.Type())
	}
	links, err := k.links()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		switch l.Type() {
		case "vlan", "macvlan", "macvtap", "ipvlan", "ipvtap":
			if l.Attrs().ParentIndex == a.Index && l.Attrs().NetNsID < 0 {
				return fmt.Errorf("carries %q (%s), which would no longer receive frames: remove it", l.Attrs().Name, l.Type())
			}
		}
	}
	return nil
}

// sinceBoot is a clock that a killed process and its successor share.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err) // available since Linux 2.6.39
	}
	return time.Duration(t.Nano())
}

// age returns the number of seconds since the state was read.
func (s *State) age() uint32 { return uint32((sinceBoot() - s.Taken) / time.Second) }

// ownSettings are sysctls that are specific to a device, or cannot be written.
var ownSettings = []string{"addr_gen_mode", "disable_ipv6", "mc_forwarding"}

// copySettings copies the sysctls of the NIC to a device. It returns the IPv6 ones that
// the process may not write, for instance if /proc/sys is read-only.
func (t *transfer) copySettings(from, to netlink.Link) (kept []string, err error) {
	source, err := t.families(from.Attrs().Index)
	if err != nil {
		return nil, err
	}
	target, err := t.families(to.Attrs().Index)
	if err != nil {
		return nil, err
	}
	var differ []attribute
	for i := 0; i+4 <= min(len(source.ipv4), len(target.ipv4)); i += 4 {
		number := uint16(i/4 + 1)
		if value := source.ipv4[i : i+4]; number != devconfMCForwarding && string(value) != string(target.ipv4[i:i+4]) {
			differ = append(differ, attribute{number, value})
		}
	}
	if len(differ) > 0 {
		if err := setIPv4(t, to.Attrs().Index, differ...); err != nil {
			return nil, fmt.Errorf("copy ipv4 settings: %w", err)
		}
	}
	names, err := t.settings("ipv6", from.Attrs().Name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	for _, name := range names {
		value := t.setting("ipv6", from.Attrs().Name, name)
		if name == "stable_secret" && t.GenMode < genModeStable {
			continue // writing it changes the mode
		}
		if value == "" || slices.Contains(ownSettings, name) || value == t.setting("ipv6", to.Attrs().Name, name) {
			continue
		}
		if t.setSetting("ipv6", to.Attrs().Name, name, value) != nil {
			kept = append(kept, fmt.Sprintf("net.ipv6.conf.%s.%s = %s", to.Attrs().Name, name, value))
		}
	}
	return kept, err
}
