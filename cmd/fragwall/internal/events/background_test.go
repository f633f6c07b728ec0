package events

import (
	"net/netip"
	"testing"

	"fragwall/packet"
	"fragwall/packet/packettest"
)

// TestBackground checks which packets are background, and of which protocol.
func TestBackground(t *testing.T) {
	udp := func(src, dst string) []byte {
		return packettest.UDP(netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst), nil).Frame()
	}
	ip := func(src, dst string, protocol uint8, payload ...byte) []byte {
		return packettest.Datagram{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Protocol: protocol, Payload: payload}.Frame()
	}
	for name, tt := range map[string]struct {
		frame []byte
		want  background
	}{
		"MLDv2 report":      {ip("fe80::1", "ff02::16", packet.ProtocolICMPv6, 143, 0, 0, 0), mld},
		"MLD query":         {ip("fe80::1", "ff02::1", packet.ProtocolICMPv6, 130, 0, 0, 0), mld},
		"echo request":      {ip("fe80::1", "ff02::1", packet.ProtocolICMPv6, 128, 0, 0, 0), foreground},
		"IGMP":              {ip("192.0.2.1", "224.0.0.22", 2, 0x22, 0, 0, 0), igmp},
		"mDNS":              {udp("192.0.2.1:5353", "224.0.0.251:5353"), mdns},
		"mDNS by IPv6":      {udp("[fe80::1]:5353", "[ff02::fb]:5353"), mdns},
		"mDNS to one host":  {udp("192.0.2.1:5353", "192.0.2.2:5353"), foreground},
		"LLMNR":             {udp("[fe80::1]:50000", "[ff02::1:3]:5355"), llmnr},
		"SSDP":              {udp("192.0.2.1:50000", "239.255.255.250:1900"), ssdp},
		"WS-Discovery":      {udp("192.0.2.1:50000", "239.255.255.250:3702"), wsDiscovery},
		"DHCP discover":     {udp("0.0.0.0:68", "255.255.255.255:67"), dhcp},
		"DHCPv6 solicit":    {udp("[fe80::1]:546", "[ff02::1:2]:547"), dhcp},
		"DHCP to a server":  {udp("192.0.2.1:68", "192.0.2.2:67"), foreground},
		"another group":     {udp("192.0.2.1:50000", "239.1.1.1:5000"), foreground},
		"LLDP":              {packettest.Datagram{}.Ethernet(0x88cc, make([]byte, 46)), lldp},
		"spanning tree":     {packettest.Datagram{}.Ethernet(38, make([]byte, 46)), llc},
		"another EtherType": {packettest.Datagram{}.Ethernet(0x88f7, make([]byte, 46)), foreground},
		"a truncated frame": {[]byte{1}, foreground},
	} {
		var p packet.Parsed
		p.Decode(tt.frame)
		if got := backgroundOf(&p); got != tt.want {
			t.Errorf("%s: %q, want %q", name, backgroundNames[got], backgroundNames[tt.want])
		}
	}
	if got := backgroundOf(nil); got != foreground {
		t.Errorf("of a nil packet: %q", backgroundNames[got])
	}
}
