package handover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"fragwall/tun/netdev"
)

// kernel is the package's interface to the kernel. [rtnetlink] implements it; tests have
// one in memory.
type kernel interface {
	// linkByName and linkByIndex return a device. Their errors wrap [netdev.ErrMissing]
	// if there is none.
	linkByName(name string) (netlink.Link, error)
	linkByIndex(index int) (netlink.Link, error)
	links() ([]netlink.Link, error)
	setMAC(index int, mac net.HardwareAddr) error
	// families returns the IPv4 and IPv6 settings of a device.
	families(index int) (families, error)
	// dump returns everything of a kind of message that matches the header.
	dump(kind uint16, header []byte) ([]message, error)
	// send carries out an operation, and waits for its result.
	send(operation, flags int, m message) error
	// settings returns the names of a device's sysctls of a family. setting returns the
	// value of one, or "" if there is none.
	settings(family, device string) ([]string, error)
	setting(family, device, name string) string
	setSetting(family, device, name, value string) error
	// advertiser returns a writer whose frames arrive at a device, and a function that
	// ends this.
	advertiser(index int) (w io.Writer, end func(), err error)
}

// rtnetlink is the running kernel, in the network namespace of the calling thread.
type rtnetlink struct{}

var _ kernel = rtnetlink{}

func (rtnetlink) linkByName(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	return link, netdev.Missing(err)
}

func (rtnetlink) linkByIndex(index int) (netlink.Link, error) {
	link, err := netlink.LinkByIndex(index)
	return link, netdev.Missing(err)
}

func (rtnetlink) links() ([]netlink.Link, error) { return netlink.LinkList() }

func (rtnetlink) setMAC(index int, mac net.HardwareAddr) error {
	return netlink.LinkSetHardwareAddr(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}, mac)
}

// settingsOf is the directory of a device's sysctls of a family.
func settingsOf(family, device string) string { return "net/" + family + "/conf/" + device }

func (rtnetlink) settings(family, device string) (names []string, err error) {
	return netdev.Sysctls(settingsOf(family, device))
}

func (rtnetlink) setting(family, device, name string) string {
	value, err := netdev.Sysctl(settingsOf(family, device) + "/" + name)
	if err != nil {
		return ""
	}
	return value
}

func (rtnetlink) setSetting(family, device, name, value string) error {
	return netdev.SetSysctl(settingsOf(family, device)+"/"+name, value)
}

// dumpTries is the number of attempts to read a list that changes meanwhile.
const dumpTries = 10

func (rtnetlink) dump(kind uint16, header []byte) ([]message, error) {
	get := map[uint16]int{
		unix.RTM_NEWADDR:  unix.RTM_GETADDR,
		unix.RTM_NEWROUTE: unix.RTM_GETROUTE,
		unix.RTM_NEWNEIGH: unix.RTM_GETNEIGH,
	}[kind]
	var bodies [][]byte
	for try := range dumpTries {
		request := nl.NewNetlinkRequest(get, unix.NLM_F_DUMP)
		request.AddRawData(header)
		var err error
		bodies, err = request.Execute(unix.NETLINK_ROUTE, kind)
		if err == nil {
			break
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) || try == dumpTries-1 {
			return nil, err
		}
	}
	messages := make([]message, 0, len(bodies))
	for _, b := range bodies {
		m, err := parseMessage(kind, b)
		if err != nil {
			return nil, err
		}
		messages = append(messages, m)
	}
	return messages, nil
}

func (rtnetlink) send(operation, flags int, m message) error {
	request := nl.NewNetlinkRequest(operation, unix.NLM_F_ACK|flags)
	request.AddRawData(m.body())
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// add makes what a message describes. It is not an error if it exists.
func add(k kernel, m message, flags int) error {
	err := k.send(int(m.kind), unix.NLM_F_CREATE|flags, m)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// drop removes what a message describes. It is not an error if it does not exist.
func drop(k kernel, m message) error {
	err := k.send(int(m.kind)+1, 0, m) // RTM_DEL... follows RTM_NEW...
	switch {
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EADDRNOTAVAIL), errors.Is(err, unix.ENODEV):
		return nil
	}
	return err
}

// Attributes of a link (include/uapi/linux/if_link.h).
const (
	iflaInetConf         = 1 // IFLA_INET_CONF: the settings of net.ipv4.conf, 32 bits each
	devconfMCForwarding  = 2 // of these, mc_forwarding (IPV4_DEVCONF_MC_FORWARDING)
	devconfRPFilter      = 8 // rp_filter (IPV4_DEVCONF_RP_FILTER)
	iflaInet6AddrGenMode = 8 // IFLA_INET6_ADDR_GEN_MODE, 8 bits
)

// families are the IPv4 and IPv6 settings of a link.
type families struct {
	ipv4    []byte // 32 bits each
	genMode uint8  // how IPv6 link-local addresses are made
	ipv6    bool   // the device has IPv6 settings
}

func (rtnetlink) families(index int) (families, error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	request.AddRawData(linkHeader(index))
	bodies, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return families{}, fmt.Errorf("read link: %w", err)
	}
	if len(bodies) != 1 {
		return families{}, errMessage
	}
	link, err := parseMessage(unix.RTM_NEWLINK, bodies[0])
	if err != nil {
		return families{}, err
	}
	byFamily, err := parseAttributes(link.get(unix.IFLA_AF_SPEC))
	if err != nil {
		return families{}, err
	}
	ipv4, err := parseAttributes(find(byFamily, unix.AF_INET))
	if err != nil {
		return families{}, err
	}
	ipv6, err := parseAttributes(find(byFamily, unix.AF_INET6))
	if err != nil {
		return families{}, err
	}
	f := families{ipv4: find(ipv4, iflaInetConf)}
	if mode := find(ipv6, iflaInet6AddrGenMode); len(mode) == 1 {
		f.genMode, f.ipv6 = mode[0], true
	}
	return f, nil
}

// setFamily sets the settings of a family on a link, nested in IFLA_AF_SPEC. Unlike
// sysctls, this works if /proc/sys cannot be written, as in most containers.
func setFamily(k kernel, index int, family uint16, settings ...attribute) error {
	m := message{kind: unix.RTM_SETLINK, header: linkHeader(index)}
	m.set(unix.IFLA_AF_SPEC|unix.NLA_F_NESTED, appendAttributes(nil, []attribute{
		{family | unix.NLA_F_NESTED, appendAttributes(nil, settings)},
	}))
	return k.send(unix.RTM_SETLINK, 0, m)
}

// setIPv4 sets net.ipv4.conf settings of a link, by their numbers, which start at 1.
func setIPv4(k kernel, index int, settings ...attribute) error {
	return setFamily(k, index, unix.AF_INET, attribute{iflaInetConf | unix.NLA_F_NESTED, appendAttributes(nil, settings)})
}

// loosen makes a link accept packets whose return path is through another device, while
// addresses and routes are moved. The larger of the namespace's and the link's setting
// applies; loose is the largest.
func loosen(k kernel, index int) error {
	err := setIPv4(k, index, attribute{devconfRPFilter, binary.NativeEndian.AppendUint32(nil, looseRPFilter)})
	if err != nil {
		return fmt.Errorf("loosen rp_filter: %w", err)
	}
	return nil
}

// looseRPFilter accepts packets if any route leads to their source (RFC 3704 §2.4).
const looseRPFilter = 2

// genModeNone stops an interface from generating IPv6 addresses (IN6_ADDR_GEN_MODE_NONE).
const genModeNone = 1

// genModeStable and larger modes generate addresses by RFC 7217, from a secret
// (IN6_ADDR_GEN_MODE_STABLE_PRIVACY).
const genModeStable = 2

func setGenMode(k kernel, index int, mode uint8) error {
	if err := setFamily(k, index, unix.AF_INET6, attribute{iflaInet6AddrGenMode, []byte{mode}}); err != nil {
		return fmt.Errorf("set ipv6 address generation mode %d: %w", mode, err)
	}
	return nil
}

func linkHeader(index int) []byte {
	h := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	return h
}
