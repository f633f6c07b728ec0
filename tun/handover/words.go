package handover

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Plan returns the steps of [State.Move] in the syntax of ip(8), one per line. One of the
// lines joins the NIC.
func (s *State) Plan(tap, join string) (lines []string) {
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	devices := func(device string) func(int) string {
		return func(index int) string {
			if index == s.Index {
				return device
			}
			return "if" + strconv.Itoa(index)
		}
	}
	say("ip link set %s address %s mtu %d", tap, s.MAC, s.MTU)
	for _, m := range s.Addresses {
		say("ip addr add %s dev %s", addressWords(m), tap)
	}
	for _, m := range s.Neighbors {
		say("ip neigh replace %s dev %s", neighborWords(m), tap)
	}
	lines = append(lines, join)
	for _, m := range s.Routes {
		say("ip %sroute append %s", familyOption(m), routeWords(m, devices(tap)))
	}
	for i := len(s.Routes) - 1; i >= 0; i-- {
		say("ip %sroute del %s", familyOption(s.Routes[i]), routeWords(s.Routes[i], devices(s.NIC)))
	}
	for i := len(s.Addresses) - 1; i >= 0; i-- {
		say("ip addr del %s dev %s", hostWords(s.Addresses[i]), s.NIC)
	}
	for _, m := range s.Neighbors {
		if m.header[ndmFlags]&unix.NTF_PROXY != 0 {
			say("ip neigh del proxy %s dev %s", addressText(m.get(unix.NDA_DST)), s.NIC)
			continue
		}
		say("ip neigh del %s dev %s", addressText(m.get(unix.NDA_DST)), s.NIC)
	}
	return lines
}

// words returns the state in the syntax of ip(8).
func (s *State) words() (list []string) {
	for _, m := range s.Addresses {
		list = append(list, "address "+hostWords(m))
	}
	for _, m := range s.Routes {
		list = append(list, "route "+routeWords(m, nil))
	}
	for _, m := range s.Neighbors {
		list = append(list, "neighbour "+neighborWords(m))
	}
	return list
}

func familyOption(m message) string {
	if m.family() == unix.AF_INET6 {
		return "-6 "
	}
	return ""
}

func addressText(b []byte) string {
	a, _ := netip.AddrFromSlice(b)
	return a.String()
}

// prefixText returns an address of a device with its prefix length.
func prefixText(m message) string {
	local := m.get(unix.IFA_LOCAL)
	if local == nil { // in IPv6, if there is no peer
		local = m.get(unix.IFA_ADDRESS)
	}
	return fmt.Sprintf("%s/%d", addressText(local), m.header[1])
}

// hostWords returns an address with its subnet or its peer.
func hostWords(m message) string {
	local, address := m.get(unix.IFA_LOCAL), m.get(unix.IFA_ADDRESS)
	if local == nil || string(local) == string(address) {
		return prefixText(m)
	}
	return fmt.Sprintf("%s peer %s/%d", addressText(local), addressText(address), m.header[1])
}

func addressWords(m message) string {
	w := words{}
	w.add(hostWords(m))
	if b := m.get(unix.IFA_BROADCAST); b != nil {
		w.add("brd", addressText(b))
	}
	if scope := m.header[3]; m.family() == unix.AF_INET && scope != unix.RT_SCOPE_UNIVERSE {
		w.add("scope", scopeName(scope))
	}
	if metric := m.number(unix.IFA_RT_PRIORITY); metric != 0 {
		w.add("metric", fmt.Sprint(metric))
	}
	flags := addressFlags(m)
	for _, f := range []struct {
		bit  uint32
		name string
	}{
		{unix.IFA_F_NODAD, "nodad"}, {unix.IFA_F_HOMEADDRESS, "home"}, {unix.IFA_F_MANAGETEMPADDR, "mngtmpaddr"},
		{unix.IFA_F_NOPREFIXROUTE, "noprefixroute"}, {unix.IFA_F_MCAUTOJOIN, "autojoin"}, {unix.IFA_F_OPTIMISTIC, "optimistic"},
	} {
		if flags&f.bit != 0 {
			w.add(f.name)
		}
	}
	if c := m.get(unix.IFA_CACHEINFO); len(c) >= 8 {
		if valid := binary.NativeEndian.Uint32(c[4:]); valid != forever {
			w.add("valid_lft", fmt.Sprint(valid), "preferred_lft", lifetimeWord(binary.NativeEndian.Uint32(c)))
		}
	}
	return w.String()
}

func lifetimeWord(seconds uint32) string {
	if seconds == forever {
		return "forever"
	}
	return fmt.Sprint(seconds)
}

func neighborWords(m message) string {
	w := words{}
	if m.header[ndmFlags]&unix.NTF_PROXY != 0 {
		w.add("proxy", addressText(m.get(unix.NDA_DST)))
		return w.String()
	}
	w.add(addressText(m.get(unix.NDA_DST)))
	w.add("lladdr", net.HardwareAddr(m.get(unix.NDA_LLADDR)).String())
	state := "stale"
	switch neighborState(m) {
	case unix.NUD_PERMANENT:
		state = "permanent"
	case unix.NUD_NOARP:
		state = "noarp"
	case unix.NUD_REACHABLE:
		state = "reachable"
	}
	w.add("nud", state)
	if m.header[ndmFlags]&unix.NTF_ROUTER != 0 {
		w.add("router")
	}
	return w.String()
}

// routeWords describes a route. device returns the name of a device by its number; if it
// is nil, devices are omitted.
func routeWords(m message, device func(int) string) string {
	w := words{}
	if t := m.header[rtmType]; t != unix.RTN_UNICAST {
		w.add(name(routeTypes, t))
	}
	switch dst := m.get(unix.RTA_DST); {
	case dst == nil:
		w.add("default")
	case int(m.header[1]) == 8*len(dst):
		w.add(addressText(dst))
	default:
		w.add(fmt.Sprintf("%s/%d", addressText(dst), m.header[1]))
	}
	if src := m.get(unix.RTA_SRC); src != nil {
		w.add("from", fmt.Sprintf("%s/%d", addressText(src), m.header[2]))
	}
	if tos := m.header[rtmTOS]; tos != 0 {
		w.add("tos", fmt.Sprintf("%#x", tos))
	}
	w.hop(m.attributes, int(m.number(unix.RTA_OIF)), uint8(binary.NativeEndian.Uint32(m.header[rtmFlags:])), device)
	if table := m.number(unix.RTA_TABLE); table != unix.RT_TABLE_MAIN {
		w.add("table", fmt.Sprint(table))
	}
	if p := m.header[rtmProtocol]; p != unix.RTPROT_BOOT {
		w.add("proto", name(routeProtocols, p))
	}
	if scope := m.header[rtmScope]; m.family() == unix.AF_INET && scope != unix.RT_SCOPE_UNIVERSE {
		w.add("scope", scopeName(scope))
	}
	if src := m.get(unix.RTA_PREFSRC); src != nil {
		w.add("src", addressText(src))
	}
	if metric := m.number(unix.RTA_PRIORITY); metric != 0 {
		w.add("metric", fmt.Sprint(metric))
	}
	if left, limited := expiry(m); limited {
		w.add("expires", fmt.Sprint(left))
	}
	_ = eachNexthop(m.get(unix.RTA_MULTIPATH), func(hop []byte) {
		attributes, _ := parseAttributes(hop[unix.SizeofRtNexthop:])
		w.add("nexthop")
		w.hop(attributes, nexthopIndex(hop), hop[2], device)
		w.add("weight", fmt.Sprint(int(hop[3])+1))
	})
	return w.String()
}

// words builds a command.
type words struct{ strings.Builder }

func (w *words) add(list ...string) {
	for _, word := range list {
		if w.Len() > 0 {
			w.WriteByte(' ')
		}
		w.WriteString(word)
	}
}

// hop adds a next hop.
func (w *words) hop(attributes []attribute, index int, flags uint8, device func(int) string) {
	if gateway := find(attributes, unix.RTA_GATEWAY); gateway != nil {
		w.add("via", addressText(gateway))
	}
	if via := find(attributes, unix.RTA_VIA); len(via) > 2 { // struct rtvia: begins with a family
		w.add("via", "inet6", addressText(via[2:]))
	}
	if device != nil && index != 0 {
		w.add("dev", device(index))
	}
	if flags&unix.RTNH_F_ONLINK != 0 {
		w.add("onlink")
	}
}

var (
	routeTypes     = map[uint8]string{unix.RTN_LOCAL: "local", unix.RTN_BROADCAST: "broadcast", unix.RTN_ANYCAST: "anycast", unix.RTN_MULTICAST: "multicast"}
	routeProtocols = map[uint8]string{unix.RTPROT_KERNEL: "kernel", unix.RTPROT_STATIC: "static", unix.RTPROT_RA: "ra", unix.RTPROT_DHCP: "dhcp"}
	routeScopes    = map[uint8]string{unix.RT_SCOPE_SITE: "site", unix.RT_SCOPE_LINK: "link", unix.RT_SCOPE_HOST: "host", unix.RT_SCOPE_NOWHERE: "nowhere"}
)

func scopeName(scope uint8) string { return name(routeScopes, scope) }

// name returns the name of a number, or the number.
func name(names map[uint8]string, n uint8) string {
	if s, ok := names[n]; ok {
		return s
	}
	return fmt.Sprint(n)
}
