package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"fragwall/packet/verdict"
)

// MTU of all interfaces, in bytes.
const MTU = 1500

// Interfaces of a host and of the middle.
const (
	HostNIC    = "eth0"
	InsideNIC  = "nic-in"
	OutsideNIC = "nic-out"
)

// Host is one of the two hosts.
type Host struct {
	*Namespace
	NIC        string // the interface with the addresses
	IPv4, IPv6 netip.Addr
	MAC        net.HardwareAddr // of NIC
}

// Addr returns the host's address of a family.
func (h *Host) Addr(ipv6 bool) netip.Addr {
	if ipv6 {
		return h.IPv6
	}
	return h.IPv4
}

// Network is two hosts in one subnet per family, and the middle between them.
type Network struct {
	Hosts [verdict.Sides]*Host // by verdict.Side
	// Middle has an interface on each side. The hosts cannot reach each other until
	// something joins these. It is nil if a cable joins the hosts.
	Middle *Namespace
}

// New makes a network with a middle. [Network.Close] releases it.
func New() (*Network, error) {
	return build(func(n *Network) (err error) {
		if n.Middle, err = NewNamespace("middle"); err != nil {
			return err
		}
		return errors.Join(
			Cable(n.Middle, InsideNIC, n.Hosts[verdict.Inside].Namespace, HostNIC),
			Cable(n.Middle, OutsideNIC, n.Hosts[verdict.Outside].Namespace, HostNIC),
			n.Middle.Do(func() error { return errors.Join(quiet(InsideNIC), Up(InsideNIC), quiet(OutsideNIC), Up(OutsideNIC)) }),
		)
	})
}

// NewDirect makes a network with a cable between the hosts.
func NewDirect() (*Network, error) {
	return build(func(n *Network) error {
		return Cable(n.Hosts[verdict.Inside].Namespace, HostNIC, n.Hosts[verdict.Outside].Namespace, HostNIC)
	})
}

// build makes the hosts, lets connect join them, and configures them.
func build(connect func(*Network) error) (_ *Network, err error) {
	n := &Network{}
	defer func() {
		if err != nil {
			n.Close()
		}
	}()
	for side := range n.Hosts {
		h := &Host{
			NIC:  HostNIC,
			IPv4: netip.AddrFrom4([4]byte{10, 0, 0, byte(side + 1)}),
			IPv6: netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: byte(side + 1)}),
		}
		if h.Namespace, err = NewNamespace(verdict.Side(side).String()); err != nil {
			return nil, err
		}
		n.Hosts[side] = h
	}
	if err = connect(n); err != nil {
		return nil, err
	}
	for _, h := range n.Hosts {
		if err = h.Do(h.Configure); err != nil {
			return nil, fmt.Errorf("configure host %q: %w", h.name, err)
		}
	}
	return n, nil
}

// Replug makes the cable of one side again, after both of its ends were removed.
func (n *Network) Replug(side verdict.Side) error {
	nic := map[verdict.Side]string{verdict.Inside: InsideNIC, verdict.Outside: OutsideNIC}[side]
	h := n.Hosts[side]
	return errors.Join(Cable(n.Middle, nic, h.Namespace, h.NIC), h.Do(h.Configure))
}

// Close releases the namespaces.
func (n *Network) Close() {
	for _, h := range n.Hosts {
		if h != nil && h.Namespace != nil {
			_ = h.Close() // closing the descriptor of a namespace cannot fail
		}
	}
	if n.Middle != nil {
		_ = n.Middle.Close()
	}
}

// Cable makes a veth pair with an end in each of two namespaces.
func Cable(a *Namespace, aNIC string, b *Namespace, bNIC string) error {
	return a.Do(func() error {
		attributes := netlink.NewLinkAttrs()
		attributes.Name, attributes.MTU = aNIC, MTU
		err := netlink.LinkAdd(&netlink.Veth{
			LinkAttrs:     attributes,
			PeerName:      bNIC,
			PeerMTU:       MTU,
			PeerNamespace: netlink.NsFd(b.file.Fd()),
		})
		if err != nil {
			return fmt.Errorf("make veth %q in %q to %q in %q: %w", aNIC, a.name, bNIC, b.name, err)
		}
		return nil
	})
}

// Configure gives the host its addresses, usable at once.
func (h *Host) Configure() error {
	if err := errors.Join(quiet(h.NIC), Up("lo"), Up(h.NIC)); err != nil {
		return err
	}
	link, err := netlink.LinkByName(h.NIC)
	if err != nil {
		return err
	}
	h.MAC = link.Attrs().HardwareAddr
	for _, prefix := range []netip.Prefix{netip.PrefixFrom(h.IPv4, 24), netip.PrefixFrom(h.IPv6, 64)} {
		address := &netlink.Addr{
			IPNet: &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())},
			Flags: unix.IFA_F_NODAD,
		}
		if err := netlink.AddrAdd(link, address); err != nil {
			return fmt.Errorf("add address %q: %w", prefix, err)
		}
	}
	return nil
}

// quiet stops an interface from soliciting routers and from detecting duplicate
// addresses.
func quiet(nic string) error {
	return Sysctl(map[string]string{
		"net/ipv6/conf/" + nic + "/accept_dad":           "0",
		"net/ipv6/conf/" + nic + "/router_solicitations": "0",
	})
}

// Sysctl sets kernel parameters of the namespace of the calling thread.
func Sysctl(values map[string]string) error {
	for name, value := range values {
		if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0); err != nil {
			return fmt.Errorf("set sysctl: %w", err)
		}
	}
	return nil
}

// Up brings an interface of the calling thread's namespace up.
func Up(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("bring %q up: %w", name, err)
	}
	return nil
}
