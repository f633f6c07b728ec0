package handover

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/packet/checksum"
	"fragwall/tun/netdev"
)

// A default route that the kernel learnt from a router's advertisement cannot be made by
// hand: such a route replaces the learnt one, and because of it the kernel ignores the
// router's advertisements (net/ipv6/ndisc.c, ndisc_router_discovery, which returns if it
// cannot add the route), so that addresses would no longer be renewed. So the device gets
// the router's advertisement again, with the rest of the lifetime.

// advertiserName is the name of the device that sends such an advertisement. It exists
// only for a moment.
const advertiserName = "fw-advertiser"

// learnDelay is how long the kernel may take to process it.
const learnDelay = 200 * time.Millisecond

// isAdvertised reports whether the kernel learnt a default route from a router.
func isAdvertised(m message) bool {
	return m.family() == unix.AF_INET6 && m.header[rtmProtocol] == unix.RTPROT_RA && m.header[1] == 0 &&
		len(m.get(unix.RTA_GATEWAY)) == net.IPv6len && m.get(unix.RTA_OIF) != nil
}

// advertisements are sent to a device so that it learns default routes.
type advertisements struct {
	index   int
	frames  [][]byte
	missing map[string]bool // the routes that are not learnt yet, by [advertisedKey]
	to      io.Writer       // nil if there is nothing to learn
}

// advertisements prepares a device to learn those of the routes that were learnt from a router,
// and returns a function that reverts the preparation. If the NIC does not process router
// advertisements, a program made the routes, and there is nothing to learn.
func (t *transfer) advertisements(index int, routes []message) (a *advertisements, end func()) {
	a = &advertisements{index: index, missing: make(map[string]bool)}
	if t.setting("ipv6", t.nic.Attrs().Name, "accept_ra") == "0" {
		return a, func() {}
	}
	for _, m := range routes {
		if isAdvertised(m) {
			a.frames = append(a.frames, advertisement(m, t.routerMAC(m)))
			a.missing[advertisedKey(m)] = true
		}
	}
	if len(a.frames) == 0 {
		return a, func() {}
	}
	w, end, err := t.advertiser(index)
	if err == nil {
		a.to = w
	}
	return a, end
}

// advertisedKey identifies a learnt route. The kernel stores a router's MTU with the
// route only if the device had another one.
func advertisedKey(m message) string {
	m = m.clone()
	m.remove(unix.RTA_METRICS)
	return routeKey(m)
}

// send lets the device learn the routes. [addRoutes] makes those that it does not learn,
// for instance if it accepts no default routes, and completes the others.
func (a *advertisements) send(k kernel) error {
	if a.to == nil {
		return nil
	}
	for _, f := range a.frames {
		if _, err := a.to.Write(f); err != nil {
			return fmt.Errorf("write to %q: %w", advertiserName, err)
		}
	}
	for deadline := time.Now().Add(learnDelay); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		now, err := readRoutes(k, a.index)
		if err != nil {
			return err
		}
		for _, m := range now {
			delete(a.missing, advertisedKey(m))
		}
		if len(a.missing) == 0 {
			break
		}
	}
	return nil
}

// routerMAC returns the MAC of a route's gateway, or nil if it is unknown.
func (s *State) routerMAC(route message) net.HardwareAddr {
	for _, n := range s.Neighbors {
		if string(n.get(unix.NDA_DST)) == string(route.get(unix.RTA_GATEWAY)) {
			return n.get(unix.NDA_LLADDR)
		}
	}
	return nil
}

// Types of messages and options of neighbour discovery (RFC 4861 §4).
const (
	routerAdvertisement = 134
	sourceAddressOption = 1
	mtuOption           = 5
)

// Metrics of a route (RTA_METRICS).
const (
	metricMTU      = 2  // RTAX_MTU
	metricHopLimit = 10 // RTAX_HOPLIMIT
)

// advertisement returns the frame with which a router announces a default route (RFC 4861
// §4.2, preference by RFC 4191 §2.2).
func advertisement(route message, router net.HardwareAddr) []byte {
	metrics, _ := parseAttributes(route.get(unix.RTA_METRICS))
	metric := func(kind uint16) uint32 {
		if v := find(metrics, kind); len(v) == 4 {
			return binary.NativeEndian.Uint32(v)
		}
		return 0
	}
	var preference byte
	if p := route.get(unix.RTA_PREF); len(p) == 1 {
		preference = p[0] & 3 << 3
	}
	lifetime, _ := expiry(route)
	body := []byte{routerAdvertisement, 0, 0, 0, byte(metric(metricHopLimit)), preference}
	body = binary.BigEndian.AppendUint16(body, uint16(min(lifetime, 0xffff)))
	body = append(body, make([]byte, 8)...) // no timers
	if len(router) == 6 {
		body = append(append(body, sourceAddressOption, 1), router...)
	}
	if mtu := metric(metricMTU); mtu != 0 {
		body = binary.BigEndian.AppendUint32(append(body, mtuOption, 1, 0, 0), mtu)
	}
	src, dst := route.get(unix.RTA_GATEWAY), net.IPv6linklocalallnodes
	pseudo := checksum.Sum(dst, checksum.Sum(src, checksum.Add(uint16(len(body)), unix.IPPROTO_ICMPV6))) // RFC 8200 §8.1
	checksum.Put(body, 2, pseudo)

	frame := []byte("\x33\x33\x00\x00\x00\x01\x02\x00\x00\x00\x00\x01\x86\xdd")
	frame = binary.BigEndian.AppendUint32(frame, 6<<28)
	frame = binary.BigEndian.AppendUint16(frame, uint16(len(body)))
	frame = append(frame, unix.IPPROTO_ICMPV6, 255) // no router has forwarded it
	return append(append(append(frame, src...), dst...), body...)
}

// advertiser makes a TAP whose frames are redirected to the ingress of a device, whatever
// is at the other end of that device. end removes it.
func (k rtnetlink) advertiser(index int) (w io.Writer, end func(), err error) {
	attributes := netlink.NewLinkAttrs()
	attributes.Name = advertiserName
	link := &netlink.Tuntap{
		LinkAttrs: attributes, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_NO_PI, NonPersist: true, Queues: 1,
		Owner: uint32(os.Getuid()), Group: uint32(os.Getgid()),
	}
	err = netlink.LinkAdd(link)
	end = func() {
		for _, f := range link.Fds {
			_ = f.Close() // the device is removed with it
		}
	}
	if err != nil {
		return nil, end, fmt.Errorf("make %q: %w", advertiserName, err)
	}
	tap := link.Attrs().Index
	redirect := netdev.Redirect{From: tap, To: index, Receive: true, Priority: 1}
	return link.Fds[0], end, inOrder(
		func() error { return setGenMode(k, tap, genModeNone) },
		func() error { return netdev.AddClassifier(tap) },
		redirect.Add,
		func() error { return netlink.LinkSetUp(link) },
	)
}
