package main

import (
	"fmt"
	"net/netip"
	"strings"

	"fragwall/integration/middle"
	"fragwall/packet/verdict"
	"fragwall/tun/lab"
)

// Ports of the outside host's services.
const (
	datagramPort = 5000
	streamPort   = 5201
	deniedPort   = 5999 // no rule accepts it
)

// spot is a middle that is set up between its own hosts.
type spot struct {
	name    string
	network *lab.Network
	box     *middle.Box // nil if the middle is not fragwall
}

// spec describes a middle.
type spec struct {
	name     string
	mode     string // fragwall's fragment mode; "" means without fragwall
	rules    int
	stateful bool // fragwall's policy is stateful
	slow     bool // fragwall runs without the fast path
	pod      bool // a cable connects the hosts; fragwall, if any, is a sidecar of the inside host
}

// The middles. The last rules of each policy accept the workloads.
var (
	kernel10   = spec{name: "kernel, 10 rules", rules: 10}
	kernel1000 = spec{name: "kernel, 1,000 rules", rules: 1000}
	box10      = spec{name: "fragwall, 10 rules", mode: "reassemble", rules: 10}
	box1000    = spec{name: "fragwall, 1,000 rules", mode: "reassemble", rules: 1000}
	box100000  = spec{name: "fragwall, 100,000 rules", mode: "reassemble", rules: 100_000}
	validate10 = spec{name: "fragwall, 10 rules, validate", mode: "validate", rules: 10}

	slow10       = spec{name: "fragwall, 10 rules, fast path off", mode: "reassemble", rules: 10, slow: true}
	slowValid10  = spec{name: "fragwall, 10 rules, validate, fast path off", mode: "validate", rules: 10, slow: true}
	stateful10   = spec{name: "fragwall, 10 rules, stateful", mode: "reassemble", rules: 10, stateful: true}
	statefulVa10 = spec{name: "fragwall, 10 rules, validate, stateful", mode: "validate", rules: 10, stateful: true}

	pod        = spec{name: "a pod", pod: true}
	podSidecar = spec{name: "a pod with a sidecar", mode: "reassemble", rules: 10, pod: true}
	podSlow    = spec{name: "a pod with a sidecar, fast path off", mode: "reassemble", rules: 10, pod: true, slow: true}
)

// up sets up a middle between two new hosts.
func (s spec) up(program string) (_ *spot, err error) {
	p := &spot{name: s.name}
	connect := lab.New
	if s.pod {
		connect = lab.NewDirect
	}
	if p.network, err = connect(); err != nil {
		return nil, err
	}
	for _, h := range p.network.Hosts {
		if err := h.Do(configure); err != nil {
			return nil, err
		}
	}
	switch inside := p.network.Hosts[verdict.Inside]; {
	case s.pod && s.mode != "":
		p.box, err = middle.NewSidecar(inside, program, s.boxConfig(middle.SidecarSides, p.network.Hosts))
	case s.mode != "":
		p.box, err = middle.NewBox(p.network, program, s.boxConfig(middle.Sides, p.network.Hosts))
	case !s.pod:
		_, err = middle.NewBridge(p.network, bridgeRules(p.network.Hosts, s.rules))
	}
	if err != nil {
		p.network.Close()
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return p, nil
}

// down removes the middle, and returns its output.
func (p *spot) down() (says string, err error) {
	defer p.network.Close()
	if p.box == nil {
		return "", nil
	}
	return p.box.Down()
}

// configure raises a host's kernel limits for fragments so far that no workload reaches them. Then
// only the middle is tested.
func configure() error {
	return lab.Sysctl(map[string]string{
		"net/ipv4/ipfrag_high_thresh":  "536870912",
		"net/ipv4/ipfrag_time":         "3",
		"net/ipv6/ip6frag_high_thresh": "536870912",
		"net/ipv6/ip6frag_time":        "3",
	})
}

// unmatched returns the fields of the i-th rule. These rules match no frame of the workloads.
func unmatched(i int) (src netip.Addr, protocol string, port int) {
	protocol, port = "udp", 1000+i%64000
	if i%2 == 1 {
		return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 12: 1, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)}), "tcp", port
	}
	return netip.AddrFrom4([4]byte{198, 18 + byte(i>>16), byte(i >> 8), byte(i)}), protocol, port
}

// bridgeRules returns an nftables ruleset with n rules after those for connection tracking. The last
// two accept the workloads, one per address family.
func bridgeRules(hosts [verdict.Sides]*lab.Host, n int) string {
	var b strings.Builder
	b.WriteString("table inet bench {\n\tchain forward {\n\t\ttype filter hook forward priority 0; policy drop;\n")
	b.WriteString("\t\tct state established,related accept\n\t\tct state invalid drop\n")
	rule := func(src, dst netip.Addr, rest string) {
		family := map[bool]string{true: "ip6", false: "ip"}[src.Is6()]
		fmt.Fprintf(&b, "\t\t%s saddr %s %s daddr %s %s accept\n", family, src, family, dst, rest)
	}
	in, out := hosts[verdict.Inside], hosts[verdict.Outside]
	for i := range n - 2 {
		src, protocol, port := unmatched(i)
		rule(src, out.Addr(src.Is6()), fmt.Sprintf("%s dport %d", protocol, port))
	}
	for _, ipv6 := range []bool{false, true} {
		rule(in.Addr(ipv6), out.Addr(ipv6), fmt.Sprintf("meta l4proto { tcp, udp } th dport { %d, %d }", datagramPort, streamPort))
	}
	b.WriteString("\t\tmeta l4proto ipv6-icmp accept\n\t}\n}\n")
	return b.String()
}

// boxConfig returns a configuration that begins with sides and has the same policy as bridgeRules.
// The last two rules accept the workloads, one per direction.
func (s spec) boxConfig(sides string, hosts [verdict.Sides]*lab.Host) string {
	var b strings.Builder
	path := map[bool]string{true: "off", false: "auto"}[s.slow]
	fmt.Fprintf(&b, "fast_path = %q\n%s[fragments]\nmode = %q\n[policy]\nstateful = %v\n", path, sides, s.mode, s.stateful)
	in, out := hosts[verdict.Inside], hosts[verdict.Outside]
	for i := range s.rules - 2 {
		src, protocol, port := unmatched(i)
		fmt.Fprintf(&b, "[[rule]]\nname = \"unmatched %d\"\naction = \"accept\"\nprotocol = %q\nsrc = %q\ndst = %q\ndst_port = %d\n",
			i, protocol, src, out.Addr(src.Is6()), port)
	}
	for _, way := range []struct {
		name, port string
		src, dst   *lab.Host
	}{{"there", "dst_port", in, out}, {"back", "src_port", out, in}} {
		fmt.Fprintf(&b, "[[rule]]\nname = %q\naction = \"accept\"\nprotocol = [\"tcp\", \"udp\"]\nsrc = [%q, %q]\ndst = [%q, %q]\n%s = [%d, %d]\n",
			way.name, way.src.IPv4, way.src.IPv6, way.dst.IPv4, way.dst.IPv6, way.port, datagramPort, streamPort)
	}
	if s.pod {
		b.WriteString("[[rule]]\nname = \"ping\"\naction = \"accept\"\nprotocol = \"icmp\"\n")
	}
	return b.String()
}
