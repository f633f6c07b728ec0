package handover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/packet/packettest"
	"fragwall/tun/netdev"
)

// fake is a kernel in memory: two devices, and their addresses, routes and neighbours. It adds the
// subnet's route together with an IPv4 address, and removes it together with the address.
type fake struct {
	t       *testing.T
	devices []*netlink.Dummy
	objects []message
	values  map[string]string // sysctls, by family/device/name

	advertisements [][]byte // frames received
	learns         *message // the NIC's route that a device learns from each; nil: none

	changes int    // changes so far, including failed ones
	failAt  int    // the number of the change that fails; 0: none
	failed  string // the change that failed; it fails again
	after   int    // changes after the failure, except other routes that are added with it
	// check is called after each change.
	check func()
}

var errFake = errors.New("refused by the test")

// The devices.
const (
	nicIndex = 2
	tapIndex = 9
)

func newFake(t *testing.T, objects ...message) *fake {
	f := &fake{t: t, values: make(map[string]string), check: func() {}}
	for index, name := range map[int]string{nicIndex: "eth0", tapIndex: "fw-in"} {
		a := netlink.NewLinkAttrs()
		a.Name, a.Index, a.MTU, a.EncapType = name, index, 1500, "ether"
		a.HardwareAddr = net.HardwareAddr{2, 0, 0, 0, 0, byte(index)}
		f.devices = append(f.devices, &netlink.Dummy{LinkAttrs: a})
	}
	for _, m := range objects {
		if err := f.send(int(m.kind), unix.NLM_F_CREATE, m); err != nil {
			t.Fatal(err)
		}
	}
	f.changes = 0
	return f
}

func (f *fake) device(found func(*netlink.LinkAttrs) bool) (netlink.Link, error) {
	for _, d := range f.devices {
		if found(d.Attrs()) {
			return d, nil
		}
	}
	return nil, netdev.ErrMissing
}

func (f *fake) linkByName(name string) (netlink.Link, error) {
	return f.device(func(a *netlink.LinkAttrs) bool { return a.Name == name })
}

func (f *fake) linkByIndex(index int) (netlink.Link, error) {
	return f.device(func(a *netlink.LinkAttrs) bool { return a.Index == index })
}

func (f *fake) links() (list []netlink.Link, err error) {
	for _, d := range f.devices {
		list = append(list, d)
	}
	return list, nil
}

// change counts a change, and reports whether it fails.
func (f *fake) change(what string) error {
	f.changes++
	switch {
	case f.changes == f.failAt:
		f.failed = what
		return errFake
	case f.failed == what:
		return errFake
	case f.failed != "" && !(strings.HasPrefix(what, addsRoute) && strings.HasPrefix(f.failed, addsRoute)):
		f.after++
	}
	return nil
}

// addsRoute is the prefix of changes that add a route.
const addsRoute = "24 "

// repair makes changes succeed again.
func (f *fake) repair() { f.failAt, f.failed, f.after = 0, "", 0 }

func (f *fake) setMAC(index int, mac net.HardwareAddr) error {
	if err := f.change("mac"); err != nil {
		return err
	}
	link, err := f.linkByIndex(index)
	if err == nil {
		link.Attrs().HardwareAddr = mac
	}
	return err
}

func (f *fake) families(int) (families, error) {
	return families{ipv4: make([]byte, 40), ipv6: true}, nil
}

func (f *fake) dump(kind uint16, header []byte) (list []message, err error) {
	for _, m := range f.objects {
		if m.kind != kind || header[0] != 0 && m.family() != header[0] {
			continue
		}
		if kind == unix.RTM_NEWNEIGH && (m.header[ndmFlags]^header[ndmFlags])&unix.NTF_PROXY != 0 {
			continue
		}
		list = append(list, m.clone())
	}
	return list, nil
}

// identity identifies an object among those of its kind.
func identity(m message) string {
	switch m.kind {
	case unix.RTM_NEWADDR:
		return fmt.Sprint(m.kind, addressIndex(m), addressKey(m))
	case unix.RTM_NEWNEIGH:
		return fmt.Sprint(m.kind, neighborIndex(m), m.header[ndmFlags]&unix.NTF_PROXY, m.get(unix.NDA_DST))
	default:
		return fmt.Sprint(m.kind, routeKey(m))
	}
}

func (f *fake) find(m message) int {
	return slices.IndexFunc(f.objects, func(o message) bool { return o.kind == m.kind && identity(o) == identity(m) })
}

func (f *fake) send(operation, flags int, m message) error {
	if err := f.change(fmt.Sprint(operation, " ", m.key())); err != nil {
		return err
	}
	defer f.check()
	m = m.clone()
	m.kind = uint16(operation)
	switch operation {
	case unix.RTM_NEWADDR, unix.RTM_NEWROUTE, unix.RTM_NEWNEIGH:
		return f.make(flags, m)
	case unix.RTM_DELADDR, unix.RTM_DELROUTE, unix.RTM_DELNEIGH:
		m.kind--
		return f.remove(m)
	}
	return nil // a link
}

func (f *fake) make(flags int, m message) error {
	switch i := f.find(m); {
	case i < 0:
		f.objects = append(f.objects, m)
		if route, ok := subnetRoute(m); ok && f.find(route) < 0 {
			f.objects = append(f.objects, route)
		}
	case flags&unix.NLM_F_REPLACE == 0:
		return unix.EEXIST
	default:
		f.objects[i] = m
	}
	return nil
}

func (f *fake) remove(m message) error {
	i := f.find(m)
	if i < 0 {
		return unix.ESRCH
	}
	f.objects = slices.Delete(f.objects, i, i+1)
	if route, ok := subnetRoute(m); ok {
		if i := f.find(route); i >= 0 {
			f.objects = slices.Delete(f.objects, i, i+1)
		}
	}
	return nil
}

func (f *fake) settings(string, string) ([]string, error) { return nil, nil }

func (f *fake) setting(family, device, name string) string {
	return f.values[family+"/"+device+"/"+name]
}

func (f *fake) setSetting(family, device, name, value string) error {
	if err := f.change("setting " + name); err != nil {
		return err
	}
	f.values[family+"/"+device+"/"+name] = value
	return nil
}

func (f *fake) advertiser(index int) (io.Writer, func(), error) {
	return advertised{f, index}, func() {}, nil
}

// advertised is the writer to which a device's advertisements are sent.
type advertised struct {
	*fake
	index int
}

// Write makes the device learn the route that the fake's devices learn.
func (a advertised) Write(frame []byte) (int, error) {
	a.advertisements = append(a.advertisements, frame)
	if a.learns == nil {
		return len(frame), nil
	}
	m, _ := routeFor(*a.learns, nicIndex, a.index, 0)
	return len(frame), a.make(0, m)
}

// has returns the addresses, routes and neighbours of a device, sorted.
func (f *fake) has(index int) (list []string) {
	s := &State{Index: index}
	if err := s.readDevice(f, index); err != nil {
		f.t.Fatal(err)
	}
	list = s.words()
	slices.Sort(list)
	return list
}

// address returns an address of a device, such as 192.0.2.1/24.
func address(index int, prefix string) message {
	p := netip.MustParsePrefix(prefix)
	m := message{kind: unix.RTM_NEWADDR, header: make([]byte, unix.SizeofIfAddrmsg)}
	m.header[0], m.header[1] = family(p.Addr()), byte(p.Bits())
	binary.NativeEndian.PutUint32(m.header[4:], uint32(index))
	m.set(unix.IFA_ADDRESS, p.Addr().AsSlice())
	if p.Addr().Is4() {
		m.set(unix.IFA_LOCAL, p.Addr().AsSlice())
	}
	m.setNumber(unix.IFA_FLAGS, unix.IFA_F_PERMANENT)
	return m
}

// subnetRoute returns the route that the kernel adds with an IPv4 address.
func subnetRoute(m message) (message, bool) {
	if m.kind != unix.RTM_NEWADDR || m.family() != unix.AF_INET {
		return message{}, false
	}
	local, _ := netip.AddrFromSlice(m.get(unix.IFA_LOCAL))
	r := route(addressIndex(m), netip.PrefixFrom(local, int(m.header[1])).Masked().String(), "", unix.RT_TABLE_MAIN)
	r.header[rtmProtocol], r.header[rtmScope] = unix.RTPROT_KERNEL, unix.RT_SCOPE_LINK
	return r, true
}

// route returns a route to a prefix through a device, and through a gateway if one is given.
func route(index int, to, gateway string, table uint32) message {
	p := netip.MustParsePrefix(to)
	m := message{kind: unix.RTM_NEWROUTE, header: make([]byte, unix.SizeofRtMsg)}
	m.header[0], m.header[1] = family(p.Addr()), byte(p.Bits())
	m.header[rtmTable], m.header[rtmProtocol], m.header[rtmType] = byte(table), unix.RTPROT_BOOT, unix.RTN_UNICAST
	m.setNumber(unix.RTA_TABLE, table)
	if p.Bits() > 0 {
		m.set(unix.RTA_DST, p.Addr().AsSlice())
	}
	if gateway != "" {
		m.set(unix.RTA_GATEWAY, netip.MustParseAddr(gateway).AsSlice())
	}
	m.setNumber(unix.RTA_OIF, uint32(index))
	return m
}

// neighbor returns a neighbour of a device.
func neighbor(index int, ip string, mac string, state uint16) message {
	a := netip.MustParseAddr(ip)
	m := message{kind: unix.RTM_NEWNEIGH, header: make([]byte, unix.SizeofNdMsg)}
	m.header[0] = family(a)
	binary.NativeEndian.PutUint32(m.header[ndmIndex:], uint32(index))
	binary.NativeEndian.PutUint16(m.header[ndmState:], state)
	m.set(unix.NDA_DST, a.AsSlice())
	hardware, err := net.ParseMAC(mac)
	if err != nil {
		panic(err)
	}
	m.set(unix.NDA_LLADDR, hardware)
	return m
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// lines joins a list for comparison.
func lines(list []string) string { return strings.Join(list, "\n") }

// parse reads a message from annotated hex ([packettest.Hex]). Numbers are little-endian, like
// the machines on which the tests run.
func parse(t testing.TB, kind uint16, annotated string) message {
	t.Helper()
	m, err := parseMessage(kind, packettest.Hex(annotated))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// slaac is 2001:db8:3::5/64, learnt from a router.
const slaac = `
	0a 40 00 00 02000000          # AF_INET6, /64, no flags, universe, device 2
	1400 0100 20010db8000300000000000000000005  # IFA_ADDRESS
	1400 0600 08070000 100e0000 01000000 02000000  # IFA_CACHEINFO: preferred 1800, valid 3600
	0800 0800 00010000            # IFA_FLAGS: mngtmpaddr
	0500 0b00 02000000            # IFA_PROTO: from a router`

// peer is 192.0.2.9, the peer of 192.0.2.10.
const peer = `
	02 20 80 fd 02000000          # AF_INET, /32, permanent, link, device 2
	0800 0100 c000020a            # IFA_ADDRESS
	0800 0200 c0000209            # IFA_LOCAL`

// learntDefault is a default route from a router's advertisement.
const learntDefault = `
	0a 00 00 00 fe 09 00 01 00000000  # AF_INET6, table 254, proto ra, universe, unicast
	0800 0f00 fe000000            # RTA_TABLE
	1400 0500 fe800000000000000000000000000001  # RTA_GATEWAY
	0800 0400 02000000            # RTA_OIF: device 2
	0800 0600 00040000            # RTA_PRIORITY: 1024
	1400 0800 0800 0a00 40000000 0800 0200 dc050000  # RTA_METRICS: hoplimit 64, mtu 1500
	2400 0c00 00000000 00000000 20bf0200 00000000 00000000 00000000 00000000 00000000  # RTA_CACHEINFO: expires in 1800 s
	0500 1400 01000000            # RTA_PREF: high`

// shared is a route through devices 2 and 1.
const shared = `
	02 18 00 00 fe 03 00 01 00000000  # AF_INET, /24, table 254, proto boot, unicast
	0800 0f00 fe000000            # RTA_TABLE
	0800 0100 cb007100            # RTA_DST 203.0.113.0
	2400 0900                     # RTA_MULTIPATH
	1000 10 01 02000000  0800 0500 0af40101  # linkdown, weight 2, device 2, via 10.244.1.1
	1000 04 00 01000000  0800 0500 0af40106  # onlink, weight 1, device 1, via 10.244.1.6`
