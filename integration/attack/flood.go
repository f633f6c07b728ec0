package main

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"fragwall/packet"
	"fragwall/packet/packettest"
)

// Flood describes the packets of an attacker. The generator process receives it as JSON.
type Flood struct {
	Kind       string // a key of kinds
	Sources    string // a key of sourceNames
	Families   []bool // address families, used in turn; true means IPv6
	Rate       int    // frames per second; 0: as fast as possible
	Seconds    float64
	Port       uint16 // destination port
	NIC        string
	To, From   net.HardwareAddr
	Dst4, Dst6 netip.Addr
	Own4, Own6 netip.Addr // addresses of the honest sender
}

// kinds maps the kinds of floods to functions that return the frames of one datagram. Their
// argument makes a UDP datagram of a length that includes the UDP header.
var kinds = map[string]func(udp func(length int) packettest.Datagram) [][]byte{
	"first fragments": func(udp func(int) packettest.Datagram) [][]byte {
		d := udp(4000)
		return [][]byte{d.Fragment(0, d.Payload[:1000], true)}
	},
	"last fragments": func(udp func(int) packettest.Datagram) [][]byte {
		d := udp(4000)
		return [][]byte{d.Fragment(3000, d.Payload[3000:], false)}
	},
	"missing middle": func(udp func(int) packettest.Datagram) [][]byte {
		d := udp(4000)
		return [][]byte{d.Fragment(0, d.Payload[:1000], true), d.Fragment(3000, d.Payload[3000:], false)}
	},
	"tiny": func(udp func(int) packettest.Datagram) (frames [][]byte) {
		d := udp(4000)
		for at := 0; at < 512; at += 16 {
			frames = append(frames, d.Fragment(at, d.Payload[at:at+8], true))
		}
		return frames
	},
	"overlapping": func(udp func(int) packettest.Datagram) [][]byte {
		d := udp(4000)
		return [][]byte{d.Fragment(0, d.Payload[:1000], true), d.Fragment(800, d.Payload[800:1800], true)}
	},
	randomPorts: wholePacket,
	harmless:    wholePacket,
	oneDatagram: func(udp func(int) packettest.Datagram) [][]byte {
		return [][]byte{udp(header.UDPMinimumSize + 1).Frame()}
	},
	oneSYN: func(udp func(int) packettest.Datagram) [][]byte {
		d := udp(header.UDPMinimumSize)
		ports := header.UDP(d.Payload)
		src, dst := netip.AddrPortFrom(d.Src, ports.SourcePort()), netip.AddrPortFrom(d.Dst, ports.DestinationPort())
		return [][]byte{packettest.TCP(src, dst, header.TCPFlagSyn).Frame()}
	},
}

// Kinds that send whole packets: to random ports, and to a port that the policies accept.
const (
	randomPorts = "whole packets"
	harmless    = "harmless packets"
)

// Kinds in which each packet begins a flow that is never answered.
const (
	oneDatagram = "one datagram each"
	oneSYN      = "one SYN each"
)

func wholePacket(udp func(int) packettest.Datagram) [][]byte { return [][]byte{udp(1000).Frame()} }

// template is a frame whose source address, identification and destination port change with each
// datagram. Offsets count from the beginning of the frame.
type template struct {
	frame []byte
	ipv6  bool
	id    int // offset of the identification; 0 if there is none
	port  int // offset of the destination port; 0 if it does not change
	upper int // offset of the transport header
	sum   int // offset of its checksum, if that must be correct; otherwise 0
}

const ethernet = header.EthernetMinimumSize

// templates returns the frames of one datagram of an address family.
func (f *Flood) templates(ipv6 bool) (list []template) {
	src, dst := f.Own4, f.Dst4
	if ipv6 {
		src, dst = f.Own6, f.Dst6
	}
	udp := func(length int) packettest.Datagram {
		return packettest.UDP(netip.AddrPortFrom(src, 4444), netip.AddrPortFrom(dst, f.Port), packettest.Body(length-header.UDPMinimumSize))
	}
	for _, frame := range kinds[f.Kind](udp) {
		copy(frame, f.To)
		copy(frame[6:], f.From)
		t := template{frame: frame, ipv6: ipv6}
		var p packet.Parsed
		p.Decode(frame)
		switch {
		case f.Kind == harmless:
		case f.Kind == randomPorts:
			t.port = p.Upper + 2
		case f.Kind == oneDatagram:
			t.upper, t.sum = p.Upper, p.Upper+6
		case f.Kind == oneSYN:
			t.upper, t.sum = p.Upper, p.Upper+16
		case ipv6:
			t.id = p.Fragment.Payload - 4
		default:
			t.id = ethernet + 4
		}
		list = append(list, t)
	}
	return list
}

// mark changes the template into a frame of datagram n.
func (f *Flood) mark(t *template, n uint64) {
	r := rand.NewPCG(n, 1)
	a, b := r.Uint64(), r.Uint64()
	if t.port > 0 {
		binary.BigEndian.PutUint16(t.frame[t.port:], uint16(b))
	}
	if t.ipv6 {
		f.markIPv6(t, a, b)
	} else {
		f.markIPv4(t, a, b)
	}
	if t.sum > 0 {
		t.complete()
	}
}

// complete computes the transport checksum.
func (t *template) complete() {
	addresses, protocol := t.frame[ethernet+12:][:8], t.frame[ethernet+9]
	if t.ipv6 {
		addresses, protocol = t.frame[ethernet+8:][:32], t.frame[ethernet+6]
	}
	upper := t.frame[t.upper:]
	binary.BigEndian.PutUint16(t.frame[t.sum:], 0)
	pseudo := checksum.Combine(checksum.Checksum(addresses, 0), uint16(protocol))
	sum := checksum.Checksum(upper, checksum.Combine(pseudo, uint16(len(upper))))
	binary.BigEndian.PutUint16(t.frame[t.sum:], ^sum)
}

func (f *Flood) markIPv4(t *template, a, b uint64) {
	h := header.IPv4(t.frame[ethernet:][:header.IPv4MinimumSize])
	src := h[12:16]
	switch f.Sources {
	case "anywhere":
		binary.BigEndian.PutUint32(src, uint32(a))
		src[0] = 11 + uint8(a>>32)%200 // unicast
	case "one":
		copy(src, []byte{198, 51, 100, 7})
	case "prefix":
		copy(src, []byte{198, 51, 100, uint8(a)})
	case "own":
		src[3] = uint8(a) | 128 // the honest sender's address is below 128
	}
	binary.BigEndian.PutUint16(t.frame[ethernet+4:], uint16(b>>16))
	h.SetChecksum(0)
	h.SetChecksum(^checksum.Checksum(h, 0))
}

func (f *Flood) markIPv6(t *template, a, b uint64) {
	src := t.frame[ethernet+8:][:16]
	switch f.Sources {
	case "anywhere":
		binary.BigEndian.PutUint64(src, a)
		src[0] = 0x24
		binary.BigEndian.PutUint64(src[8:], b)
	case "one":
		copy(src, "\x20\x01\x0d\xb8\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07")
	case "prefix":
		copy(src, "\x20\x01\x0d\xb8\xff\xff\x00\x00")
		binary.BigEndian.PutUint64(src[8:], a)
	case "own":
		binary.BigEndian.PutUint64(src[8:], a|1<<63)
	}
	if t.id > 0 {
		binary.BigEndian.PutUint32(t.frame[t.id:], uint32(b>>16))
	}
}
