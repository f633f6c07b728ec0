package link

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"fragwall/tun/netdev"
)

// bridgeState returns the former state of the NIC in a bridge. It is stored as the
// bridge's group (ip-link(8)), which the kernel, unlike an alias, accepts when it creates
// the bridge, so that a killed process never leaves a bridge without its owner. It
// reports false for a bridge that fragwall did not make.
func bridgeState(bridge netlink.Link) (nicState, bool) {
	state, ours := stateOf(bridge.Attrs().Group)
	return state, ours && bridge.Type() == "bridge"
}

// bridge adds the NIC and the TAP to a new bridge. It adds the sysctls that it sets to before.
func (j *Junction) bridge(c Config, nic, tap netlink.Link, before *nicState) error {
	if err := freeName(c.Bridge, nic); err != nil {
		return err
	}
	cleared, err := j.bypassNetfilter()
	if err != nil {
		return err
	}
	before.netfilter |= cleared
	bridge, err := j.addBridge(c, *before)
	if err != nil {
		return fmt.Errorf("bridge %q: %w", c.Bridge, err)
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("bridge %q: bring up: %w", c.Bridge, err)
	}
	// The NIC is added last: from then on its frames use only this path.
	for _, port := range []netlink.Link{tap, nic} {
		j.kept = len(j.undo)
		if err := j.addPort(bridge, port, c.Addressed && port == nic); err != nil {
			return fmt.Errorf("bridge %q, port %q: %w", c.Bridge, port.Attrs().Name, err)
		}
	}
	return nil
}

// bridged returns the former state of a NIC that is in the bridge of a killed instance,
// and a function that removes that bridge. The function is nil if the NIC is in no
// bridge.
func bridged(nic netlink.Link) (before nicState, end func() error, err error) {
	a := nic.Attrs()
	if a.MasterIndex == 0 {
		return nicState{}, nil, nil
	}
	master, err := netlink.LinkByIndex(a.MasterIndex)
	if err != nil {
		return nicState{}, nil, fmt.Errorf("nic %q: its bridge: %w", a.Name, err)
	}
	state, ours := bridgeState(master)
	if !ours {
		return nicState{}, nil, fmt.Errorf("nic %q already belongs to a bridge or bond (%s): remove it from there first", a.Name, master.Attrs().Name)
	}
	if err := unserved(master); err != nil {
		return nicState{}, nil, err
	}
	return state, func() error { return removeLeftover(master) }, nil
}

// freeName makes a bridge name available. It removes a bridge that a killed instance
// left. While the NIC is in that bridge, it is only renamed, because until the NIC is in
// the next one, nothing else stores its state.
func freeName(name string, nic netlink.Link) error {
	old, err := netlink.LinkByName(name)
	if err != nil {
		return nil // the usual case; other errors show when the bridge is made
	}
	if _, ours := bridgeState(old); !ours {
		return fmt.Errorf("bridge %q: %w and does not belong to fragwall: remove it or choose another name", name, netdev.ErrExists)
	}
	if old.Attrs().Index != nic.Attrs().MasterIndex {
		return removeLeftover(old)
	}
	// Before Linux 6.2 a device must be down to be renamed.
	if err := netlink.LinkSetDown(old); err != nil {
		return fmt.Errorf("bridge %q: bring down: %w", name, err)
	}
	if err := netlink.LinkSetName(old, leftoverName); err != nil {
		return fmt.Errorf("bridge %q: rename the bridge of a killed fragwall: %w", name, err)
	}
	return nil
}

// leftoverName is the new name of a leftover bridge whose old name is needed. The kernel chooses
// the number.
const leftoverName = "fw-left%d"

// removeRenamed removes renamed bridges that are empty, which a killed process could not
// remove.
func removeRenamed() error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	prefix := strings.TrimSuffix(leftoverName, "%d")
	for _, bridge := range links {
		_, ours := bridgeState(bridge)
		if !ours || !strings.HasPrefix(bridge.Attrs().Name, prefix) || slices.ContainsFunc(links, func(l netlink.Link) bool {
			return l.Attrs().MasterIndex == bridge.Attrs().Index
		}) {
			continue
		}
		if err := removeLeftover(bridge); err != nil && !netdev.Gone(err) {
			return err
		}
	}
	return nil
}

// removeLeftover removes a bridge that a killed instance left.
func removeLeftover(bridge netlink.Link) error {
	if err := unserved(bridge); err != nil {
		return err
	}
	if err := netlink.LinkDel(bridge); err != nil {
		return fmt.Errorf("bridge %q: remove the bridge of a killed fragwall: %w", bridge.Attrs().Name, err)
	}
	return nil
}

// unserved refuses a bridge of fragwall with a TAP, because that belongs to a living
// process.
func unserved(bridge netlink.Link) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		if l.Attrs().MasterIndex == bridge.Attrs().Index && l.Type() == "tuntap" {
			return fmt.Errorf("bridge %q: %w and is used by another fragwall", bridge.Attrs().Name, netdev.ErrExists)
		}
	}
	return nil
}

// groupForward are the link-local group addresses 01:80:c2:00:00:00 to 0f that the bridge
// forwards, one bit each (IEEE 802.1Q table 8-1). The kernel refuses the three lowest for
// a whole bridge, but for a port only that of MAC pause frames, which no bridge forwards
// (net/bridge/br_private.h, BR_GROUPFWD_RESTRICTED and BR_GROUPFWD_MACPAUSE).
const (
	groupForward     = uint16(0xfff8)
	groupForwardPort = uint16(0xfffd)
)

// addBridge makes the bridge. A new one has neither STP nor VLAN filtering; it gets no
// snooping, and sends nothing.
func (j *Junction) addBridge(c Config, before nicState) (netlink.Link, error) {
	attributes := netlink.NewLinkAttrs()
	attributes.Name = c.Bridge
	attributes.MTU = c.MTU
	attributes.HardwareAddr = ownMAC() // otherwise the kernel uses the MAC of a port
	attributes.Group = before.mark()
	no, forward := false, groupForward
	bridge := &netlink.Bridge{LinkAttrs: attributes, MulticastSnooping: &no, GroupFwdMask: &forward}
	if err := netlink.LinkAdd(bridge); err != nil {
		return nil, err
	}
	j.master = bridge.Attrs().Index
	j.later(step{Kind: stepBridge, Device: j.master})
	if err := netlink.LinkSetARPOff(bridge); err != nil {
		return nil, fmt.Errorf("turn arp off: %w", err)
	}
	// No route leads through a bridge without addresses. So with strict filtering, no
	// IPv4 packet to the bridge's MAC is accepted.
	if err := netdev.StrictReversePath(bridge); err != nil {
		return nil, err
	}
	return bridge, netdev.DisableIPv6(bridge)
}

// addPort adds a device to the bridge, as a port that learns nothing and forwards
// everything, including frames to its own MAC if it is addressed.
func (j *Junction) addPort(bridge, port netlink.Link, addressed bool) error {
	requests := []*nl.NetlinkRequest{enslave(port, bridge)}
	if addressed {
		requests = append(requests, disown(port))
	}
	j.later(step{Kind: stepPort, Device: port.Attrs().Index})
	if err := atOnce(requests); err != nil {
		return err
	}
	if err := netlink.LinkSetLearning(port, false); err != nil {
		return fmt.Errorf("turn learning off: %w", err)
	}
	if err := netlink.LinkSetBRSlaveGroupFwdMask(port, groupForwardPort); err != nil {
		return fmt.Errorf("forward link-local groups: %w", err)
	}
	return nil
}

// enslave returns the request that makes a device a port of the bridge.
func enslave(port, bridge netlink.Link) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	header := nl.NewIfInfomsg(unix.AF_UNSPEC)
	header.Index = int32(port.Attrs().Index)
	r.AddData(header)
	r.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(bridge.Attrs().Index))))
	return r
}

// disown returns the request that makes a bridge forward frames to a port's own MAC. By default
// the bridge delivers them to the box. The device that now has this MAC is behind the TAP.
func disown(port netlink.Link) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(unix.RTM_DELNEIGH, unix.NLM_F_ACK)
	r.AddData(&netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: uint32(port.Attrs().Index), Flags: netlink.NTF_MASTER})
	r.AddData(nl.NewRtAttr(netlink.NDA_LLADDR, port.Attrs().HardwareAddr))
	return r
}

// atOnce sends several requests in one system call, so that the time between them is as
// short as possible.
func atOnce(requests []*nl.NetlinkRequest) error {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer s.Close()
	var batch []byte
	for _, r := range requests {
		batch = append(batch, r.Serialize()...)
	}
	if err := unix.Sendto(s.GetFd(), batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("netlink request: %w", err)
	}
	for done := 0; done < len(requests); {
		answers, _, err := s.Receive()
		if err != nil {
			return fmt.Errorf("netlink answer: %w", err)
		}
		for _, a := range answers {
			if a.Header.Type != unix.NLMSG_ERROR {
				continue
			}
			done++
			if code := int32(binary.NativeEndian.Uint32(a.Data)); code != 0 { // struct nlmsgerr
				return unix.Errno(-code)
			}
		}
	}
	return nil
}

// ownMAC returns a random, locally administered MAC.
func ownMAC() net.HardwareAddr {
	mac := make(net.HardwareAddr, 6)
	_, _ = rand.Read(mac) // cannot fail
	mac[0] = mac[0]&^1 | 2
	return mac
}
