package trunk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/songgao/water"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/packet"
	"fragwall/tun/lab"
)

// Trunk carries the VLANs of a host over its interface. It also works on kernels without VLAN
// interfaces (CONFIG_VLAN_8021Q).
//
//	host's IP ── TAP ──► add tags ──► TAP ── bridge ──► interface
//	host's IP ── TAP ◄── remove tags ◄── packet socket ◄── interface
//
// Frames are sent through a bridge in the host's namespace. For forwarded frames, the kernel treats
// the outer tag as one that the interface inserts, so that a frame with two tags may carry a packet
// of the full MTU.
type Trunk struct {
	host   *lab.Host
	egress *os.File // the TAP in the bridge
	tap    *lab.Tap
	done   sync.WaitGroup

	// mu guards the fields below.
	mu    sync.Mutex
	vlans []vlan
}

// vlan is a host's interface in a VLAN.
type vlan struct {
	tags []byte // encoded as in a frame
	file *os.File
}

const (
	macs    = 12 // bytes of the MAC addresses before the tags
	tagSize = 4
)

// Open makes a host's interface a trunk until [Trunk.Close]. During that time the host is reachable
// only in its VLANs.
func Open(h *lab.Host) (t *Trunk, err error) {
	t = &Trunk{host: h}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make interface %q a trunk: %w", h.NIC, err), t.Close())
		}
	}()
	if t.tap, err = h.OpenTap(h.NIC); err != nil {
		return t, err
	}
	if err = h.Do(t.bridge); err != nil {
		return t, err
	}
	t.done.Go(t.distribute)
	return t, nil
}

// bridge connects a new TAP to the host's interface by a bridge, so that the interface sends frames
// that are written to the TAP.
func (t *Trunk) bridge() (err error) {
	const tap, bridge = "trunk", "trunk-br"
	if t.egress, err = newTAP(tap); err != nil {
		return err
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name = bridge
	snooping := false
	b := &netlink.Bridge{LinkAttrs: attributes, MulticastSnooping: &snooping}
	if err := netlink.LinkAdd(b); err != nil {
		return fmt.Errorf("make bridge %q: %w", bridge, err)
	}
	for _, port := range []string{tap, t.host.NIC} {
		link, err := netlink.LinkByName(port)
		if err != nil {
			return err
		}
		if err := errors.Join(netlink.LinkSetMaster(link, b), netlink.LinkSetLearning(link, false)); err != nil {
			return fmt.Errorf("join %q to bridge %q: %w", port, bridge, err)
		}
	}
	return errors.Join(noIPv6(tap), noIPv6(bridge), lab.Up(tap), lab.Up(bridge))
}

// VLAN gives the host an interface in the VLAN with the given tags, outermost first. It returns the
// host with its addresses in that VLAN, in 10.0.VID.0/24 and 2001:db8:0:VID::/64. The innermost VID
// must be 1 to 255.
func (t *Trunk) VLAN(tags ...packet.Tag) (*lab.Host, error) {
	var v vlan
	for _, tag := range tags {
		v.tags = binary.BigEndian.AppendUint16(v.tags, tag.TPID)
		v.tags = binary.BigEndian.AppendUint16(v.tags, tag.TCI)
	}
	vid := byte(tags[len(tags)-1].VID())
	ipv4, ipv6 := t.host.IPv4.As4(), t.host.IPv6.As16()
	ipv4[2], ipv6[7] = vid, vid
	h := &lab.Host{
		Namespace: t.host.Namespace,
		NIC:       fmt.Sprintf("vlan%d", vid),
		IPv4:      netip.AddrFrom4(ipv4),
		IPv6:      netip.AddrFrom16(ipv6),
	}
	err := h.Do(func() (err error) {
		if v.file, err = newTAP(h.NIC); err != nil {
			return err
		}
		link, err := netlink.LinkByName(h.NIC)
		if err == nil {
			err = netlink.LinkSetHardwareAddr(link, t.host.MAC)
		}
		if err == nil {
			err = h.Configure()
		}
		if err != nil {
			err = errors.Join(err, v.file.Close())
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make vlan interface %q: %w", h.NIC, err)
	}
	t.mu.Lock()
	t.vlans = append(t.vlans, v)
	t.mu.Unlock()
	t.done.Go(func() { t.collect(v) })
	return h, nil
}

// Send sends frames, which include their tags, through the host's interface.
func (t *Trunk) Send(frames ...[]byte) error {
	for _, f := range frames {
		if _, err := t.egress.Write(f); err != nil {
			return fmt.Errorf("send frame of %d bytes: %w", len(f), err)
		}
	}
	return nil
}

// collect adds the tags to the frames that the host sends through a VLAN's interface, and sends them.
func (t *Trunk) collect(v vlan) {
	frame := make([]byte, 1<<16)
	for {
		n, err := v.file.Read(frame[len(v.tags):])
		if err != nil {
			return // closed
		}
		copy(frame, frame[len(v.tags):][:macs])
		copy(frame[macs:], v.tags)
		if err := t.Send(frame[:len(v.tags)+n]); err != nil {
			return
		}
	}
}

// distribute removes the tags of received frames and passes them to the interfaces of their VLANs.
func (t *Trunk) distribute() {
	for {
		frame, err := t.tap.Receive(time.Time{})
		if err != nil {
			return // closed
		}
		t.mu.Lock()
		for _, v := range t.vlans {
			rest, ok := bytes.CutPrefix(frame[macs:], v.tags)
			if ok && !tagged(rest) {
				// A frame that the interface refuses is lost, as on a physical link.
				_, _ = v.file.Write(append(frame[:macs:macs], rest...))
			}
		}
		t.mu.Unlock()
	}
}

// tagged reports whether b, which follows the MAC addresses, begins with a VLAN tag.
func tagged(b []byte) bool {
	if len(b) < tagSize {
		return false
	}
	tpid := binary.BigEndian.Uint16(b)
	return tpid == unix.ETH_P_8021Q || tpid == unix.ETH_P_8021AD
}

// Close closes the trunk and removes its TAPs.
func (t *Trunk) Close() error {
	var errs []error
	if t.tap != nil {
		errs = append(errs, t.tap.Close())
	}
	if t.egress != nil {
		errs = append(errs, t.egress.Close())
	}
	t.mu.Lock()
	for _, v := range t.vlans {
		errs = append(errs, v.file.Close())
	}
	t.mu.Unlock()
	t.done.Wait()
	return errors.Join(errs...)
}

// newTAP makes a TAP in the namespace of the calling thread. The kernel removes the TAP when the file
// is closed.
func newTAP(name string) (*os.File, error) {
	device, err := water.New(water.Config{
		DeviceType:             water.TAP,
		PlatformSpecificParams: water.PlatformSpecificParams{Name: name},
	})
	if err != nil {
		return nil, fmt.Errorf("make tap %q: %w", name, err)
	}
	return device.ReadWriteCloser.(*os.File), nil
}

// noIPv6 disables IPv6 on an interface.
func noIPv6(nic string) error {
	return lab.Sysctl(map[string]string{"net/ipv6/conf/" + nic + "/disable_ipv6": "1"})
}
