package tun

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// JoinConfig names what to join. The TAP and the NIC exist; the bridge does
// not, or is what a killed fragwall left.
type JoinConfig struct {
	TAP, NIC, Bridge string
	MTU              int // bytes, of all three
}

// Junction is a TAP and a NIC made one wire by a bridge.
type Junction struct {
	undo undoStack
}

// bridgeAlias marks a bridge as fragwall's (/sys/class/net/DEVICE/ifalias).
const bridgeAlias = "fragwall"

// Join makes a TAP and a NIC one wire: whatever comes in by one leaves by the
// other, unlearned and unfiltered, as far as the kernel's bridge lets it (see
// [groupForward]). The box neither sends a frame of its own there nor takes
// one for itself.
//
// On an error all is as it was. [Junction.Close] removes what Join made, and
// sets back what it changed.
func Join(c JoinConfig) (*Junction, error) {
	j := &Junction{}
	if err := j.join(c); err != nil {
		return nil, errors.Join(fmt.Errorf("join %q to %q: %w", c.NIC, c.TAP, err), j.Close())
	}
	return j, nil
}

// Close takes the wire apart. What vanished in the meantime, as a NIC that was
// unplugged, is no error. Closing again does nothing.
func (j *Junction) Close() error {
	return j.undo.run()
}

func (j *Junction) join(c JoinConfig) error {
	if err := removeLeftover(c.Bridge); err != nil { // which may hold the NIC
		return err
	}
	nic, err := findNIC(c.NIC)
	if err != nil {
		return err
	}
	tap, err := netlink.LinkByName(c.TAP)
	if err != nil {
		return fmt.Errorf("tap %q: %w", c.TAP, err)
	}
	if err := j.bypassNetfilter(); err != nil {
		return err
	}
	bridge, err := j.addBridge(c)
	if err != nil {
		return fmt.Errorf("bridge %q: %w", c.Bridge, err)
	}
	if err := j.setMTU(nic, c.MTU); err != nil {
		return err
	}
	for _, port := range []netlink.Link{nic, tap} {
		if err := j.addPort(bridge, port); err != nil {
			return fmt.Errorf("bridge %q, port %q: %w", c.Bridge, port.Attrs().Name, err)
		}
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("bridge %q: bring up: %w", c.Bridge, err)
	}
	return j.bringUp(nic)
}

// findNIC returns the NIC if it may become a port of a bridge.
func findNIC(name string) (netlink.Link, error) {
	nic, err := netlink.LinkByName(name)
	if err != nil {
		var missing netlink.LinkNotFoundError
		if errors.As(err, &missing) {
			return nil, fmt.Errorf("nic %q: no such interface", name)
		}
		return nil, fmt.Errorf("nic %q: %w", name, err)
	}
	a := nic.Attrs()
	switch {
	case a.Flags&net.FlagLoopback != 0:
		return nil, fmt.Errorf("nic %q is the loopback interface", name)
	case a.MasterIndex != 0:
		return nil, fmt.Errorf("nic %q belongs to another bridge or bond already: take it out first", name)
	case a.EncapType != "ether":
		return nil, fmt.Errorf("nic %q is no Ethernet interface", name)
	}
	addresses, err := netlink.AddrList(nic, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("nic %q: read addresses: %w", name, err)
	}
	var global []string
	for _, address := range addresses {
		if !address.IP.IsLinkLocalUnicast() || address.IP.To4() != nil {
			global = append(global, address.IPNet.String())
		}
	}
	if len(global) > 0 {
		return nil, fmt.Errorf("nic %q has addresses that would stop working (%s): remove them, or choose a nic without", name, strings.Join(global, ", "))
	}
	return nic, nil
}

// removeLeftover removes a bridge of that name if a killed fragwall left it:
// its alias says so, and its TAP went with the process.
func removeLeftover(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil // the usual case; what else is wrong shows when it is made
	}
	exists := fmt.Errorf("bridge %q: %w and is not fragwall's: remove it or choose another name", name, ErrExists)
	if link.Type() != "bridge" || link.Attrs().Alias != bridgeAlias {
		return exists
	}
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		if l.Attrs().MasterIndex == link.Attrs().Index && l.Type() == "tuntap" {
			return fmt.Errorf("bridge %q: %w and serves another fragwall", name, ErrExists)
		}
	}
	if err := netlink.LinkDel(link); err != nil {
		return fmt.Errorf("bridge %q: remove what a killed fragwall left: %w", name, err)
	}
	return nil
}

// groupForward are the link-local group addresses 01:80:c2:00:00:00 to 0f that
// the bridge forwards, a bit each (IEEE 802.1Q table 8-1). The kernel refuses
// the three lowest for a bridge as a whole, and for a port only that of MAC
// pause frames, which no bridge forwards (net/bridge/br_private.h,
// BR_GROUPFWD_RESTRICTED and BR_GROUPFWD_MACPAUSE).
const (
	groupForward     = uint16(0xfff8)
	groupForwardPort = uint16(0xfffd)
)

// addBridge makes the bridge: a new one has no STP and filters no VLANs; it
// gets no snooping and keeps quiet.
func (j *Junction) addBridge(c JoinConfig) (netlink.Link, error) {
	attributes := netlink.NewLinkAttrs()
	attributes.Name = c.Bridge
	attributes.MTU = c.MTU
	snooping, forward := false, groupForward
	bridge := &netlink.Bridge{
		LinkAttrs:         attributes,
		MulticastSnooping: &snooping,
		GroupFwdMask:      &forward,
	}
	if err := netlink.LinkAdd(bridge); err != nil {
		return nil, err
	}
	j.undo.push(func() error { return netlink.LinkDel(bridge) })
	if err := netlink.LinkSetAlias(bridge, bridgeAlias); err != nil {
		return nil, fmt.Errorf("set alias: %w", err)
	}
	if err := netlink.LinkSetARPOff(bridge); err != nil {
		return nil, fmt.Errorf("turn arp off: %w", err)
	}
	// No route leads back over a bridge without addresses, so that with strict
	// filtering no IPv4 packet that is addressed to the bridge's MAC gets in.
	if err := j.setSysctl("net/ipv4/conf/"+c.Bridge+"/rp_filter", "1"); err != nil {
		return nil, err
	}
	return bridge, j.silence(c.Bridge)
}

// silence keeps a device from speaking IPv6: no router solicitation, no
// listener report, no duplicate address detection.
func (j *Junction) silence(device string) error {
	return j.setSysctl(ipv6Switch(device), "1")
}

func (j *Junction) setMTU(nic netlink.Link, mtu int) error {
	old := nic.Attrs().MTU
	if old == mtu {
		return nil
	}
	if err := netlink.LinkSetMTU(nic, mtu); err != nil {
		return fmt.Errorf("nic %q: set mtu %d: %w", nic.Attrs().Name, mtu, err)
	}
	j.undo.push(func() error { return netlink.LinkSetMTU(nic, old) })
	return nil
}

// addPort puts a device into the bridge, as a port that learns nothing and
// lets everything pass.
func (j *Junction) addPort(bridge, port netlink.Link) error {
	if err := j.silence(port.Attrs().Name); err != nil {
		return err
	}
	if err := netlink.LinkSetMaster(port, bridge); err != nil {
		return err
	}
	j.undo.push(func() error { return netlink.LinkSetNoMaster(port) })
	if err := netlink.LinkSetLearning(port, false); err != nil {
		return fmt.Errorf("turn learning off: %w", err)
	}
	if err := netlink.LinkSetBRSlaveGroupFwdMask(port, groupForwardPort); err != nil {
		return fmt.Errorf("forward link-local groups: %w", err)
	}
	return nil
}

func (j *Junction) bringUp(nic netlink.Link) error {
	if nic.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	if err := netlink.LinkSetUp(nic); err != nil {
		return fmt.Errorf("nic %q: bring up: %w", nic.Attrs().Name, err)
	}
	j.undo.push(func() error { return netlink.LinkSetDown(nic) })
	return nil
}

// undoStack is what there is to do to get back, latest last.
type undoStack []func() error

func (u *undoStack) push(f func() error) { *u = append(*u, f) }

// run does all of it, latest first, and forgets it.
func (u *undoStack) run() error {
	var errs []error
	for i := len(*u) - 1; i >= 0; i-- {
		if err := (*u)[i](); err != nil && !gone(err) {
			errs = append(errs, err)
		}
	}
	*u = nil
	return errors.Join(errs...)
}

// gone reports whether an error says that the thing is not there any more.
func gone(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT)
}
