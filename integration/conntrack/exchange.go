package conntrack

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// Exchange is the packets between two hosts, one on each side, in the order in which the
// filter sees them.
type Exchange struct {
	Number int
	Kind   string
	IPv6   bool
	Steps  []Step
}

// Step is one packet of an exchange.
type Step struct {
	From   verdict.Side  // ingress side
	Frame  []byte        // Ethernet frame; the packet is tagged with the step's index
	Pause  time.Duration // before the packet; subtracted from timeouts
	Held   bool          // another pause of [Hold], in real time
	Honest bool          // sent by a host that follows the protocol
	What   string        // description for failure messages
}

// Packet returns the IP packet.
func (s *Step) Packet() []byte { return s.Frame[ethernetHeader:] }

// After returns the time between the previous step and this one.
func (s *Step) After() time.Duration {
	if s.Held {
		return s.Pause + Hold
	}
	return s.Pause
}

const ethernetHeader = 14

// Slot numbers the addresses of an exchange: 16 on each side and of each family.
// Exchanges that run at the same time need different slots.
type Slot int

// hosts is the number of addresses of a slot on one side.
const hosts = 16

// prefixes holds the IPv4 and the IPv6 prefix of each side; they contain the addresses of all slots.
var prefixes = [verdict.Sides][2]netip.Prefix{
	verdict.Inside:  {netip.MustParsePrefix("10.16.0.0/12"), netip.MustParsePrefix("2001:db8:1::/48")},
	verdict.Outside: {netip.MustParsePrefix("10.32.0.0/12"), netip.MustParsePrefix("2001:db8:2::/48")},
}

// Addr returns the i-th address of a slot, from 1 to 14, on a side.
func (s Slot) Addr(side verdict.Side, ipv6 bool, i int) netip.Addr {
	n := uint32(s)*hosts + uint32(i)
	if ipv6 {
		b := prefixes[side][1].Addr().As16()
		binary.BigEndian.PutUint32(b[12:], n)
		return netip.AddrFrom16(b)
	}
	b := prefixes[side][0].Addr().As4()
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(b[:])|n)))
}

// slotOf returns the slot that an address belongs to.
func slotOf(a netip.Addr) Slot {
	if a.Is4() {
		b := a.As4()
		return Slot(binary.BigEndian.Uint32(b[:]) & 0xfffff / hosts)
	}
	b := a.As16()
	return Slot(binary.BigEndian.Uint32(b[12:]) / hosts)
}

// pauses lists the lengths of pauses. None is close to a conntrack timeout: 3, 10, 30, 60, 120, 180,
// 210, 300, 600 and 432,000 s.
var pauses = []time.Duration{
	5 * time.Second, 17 * time.Second, 41 * time.Second, 83 * time.Second, 151 * time.Second,
	251 * time.Second, 401 * time.Second, 787 * time.Second, 500000 * time.Second,
}

// Hold is a pause in real time. The kernel treats a UDP flow as a stream if it sees a packet more
// than 2 s after the first one. ctnetlink cannot change that time, so a subtracted pause does not
// affect it.
const Hold = 2200 * time.Millisecond

// script is an exchange under construction.
type script struct {
	*rand.Rand
	Exchange
	slot  Slot
	pause time.Duration // Pause of the next step
	held  bool          // Held of the next step
}

// generators lists the kinds of exchanges with their relative frequency. fill adds the steps to a
// script.
var generators = []struct {
	kind   string
	weight int
	fill   func(*script)
}{
	{"tcp", 60, tcpExchange},
	{"tcp picked up midstream", 8, tcpMidstream},
	{"random tcp segments", 8, tcpRandom},
	{"udp", 8, udpExchange},
	{"icmp", 8, icmpExchange},
	{"sctp", 4, sctpExchange},
	{"other", 4, otherExchange},
}

// Generate returns the n-th exchange of a seed, between the addresses of a slot. Except
// for the addresses, it does not depend on the slot.
func Generate(seed uint64, n int, slot Slot) Exchange {
	s := &script{Rand: rand.New(rand.NewPCG(seed, uint64(n))), slot: slot}
	s.Number, s.IPv6 = n, s.IntN(2) == 1
	total := 0
	for _, g := range generators {
		total += g.weight
	}
	at := s.IntN(total)
	for _, g := range generators {
		if at -= g.weight; at < 0 {
			s.Kind = g.kind
			g.fill(s)
			break
		}
	}
	return s.Exchange
}

// addr returns the i-th address of a side. The first address of each side is that of the host.
func (s *script) addr(side verdict.Side, i int) netip.Addr { return s.slot.Addr(side, s.IPv6, i) }

// chance returns true in the given percentage of cases.
func (s *script) chance(percent int) bool { return s.IntN(100) < percent }

// wait sets a random pause before the next packet.
func (s *script) wait() { s.pause = pauses[s.IntN(len(pauses))] }

// send adds a packet between the two hosts.
func (s *script) send(from verdict.Side, honest bool, protocol uint8, payload []byte, what string, args ...any) {
	s.sendAs(from, s.addr(from, 1), s.addr(from.Other(), 1), honest, protocol, payload, what, args...)
}

// sendAs adds a packet with the given addresses.
func (s *script) sendAs(from verdict.Side, src, dst netip.Addr, honest bool, protocol uint8, payload []byte, what string, args ...any) {
	d := packettest.Datagram{Src: src, Dst: dst, Protocol: protocol, Payload: payload}
	f := d.Frame()
	tag(f[ethernetHeader:], len(s.Steps))
	s.Steps = append(s.Steps, Step{From: from, Frame: f, Pause: s.pause, Held: s.held, Honest: honest, What: fmt.Sprintf(what, args...)})
	s.pause, s.held = 0, false
}

// tag writes the index of a step into a packet: into the identification of IPv4 or the flow label of
// IPv6.
func tag(p []byte, n int) {
	if p[0]>>4 == 6 {
		binary.BigEndian.PutUint16(p[2:], uint16(n))
		return
	}
	binary.BigEndian.PutUint16(p[4:], uint16(n))
	binary.BigEndian.PutUint16(p[10:], 0)
	binary.BigEndian.PutUint16(p[10:], ^sum(0, p[:20]))
}

// tagOf returns the index that tag wrote and the packet's addresses. ok is false for a packet that is
// too short.
func tagOf(p []byte) (n int, src, dst netip.Addr, ok bool) {
	switch {
	case len(p) >= 40 && p[0]>>4 == 6:
		return int(binary.BigEndian.Uint16(p[2:])), netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40])), true
	case len(p) >= 20 && p[0]>>4 == 4:
		return int(binary.BigEndian.Uint16(p[4:])), netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20])), true
	}
	return 0, src, dst, false
}

// sum adds b to an Internet checksum (RFC 1071), without inverting it.
func sum(initial uint16, b []byte) uint16 {
	total := uint32(initial)
	for ; len(b) > 1; b = b[2:] {
		total += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		total += uint32(b[0]) << 8
	}
	for total>>16 != 0 {
		total = total>>16 + total&0xffff
	}
	return uint16(total)
}

// checksum writes the checksum of a transport header at the offset at, and returns payload.
func checksum(payload []byte, at int, src, dst netip.Addr, protocol uint8) []byte {
	pseudo := append(src.AsSlice(), dst.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(payload)))
	pseudo = append(pseudo, 0, 0, 0, protocol)
	binary.BigEndian.PutUint16(payload[at:], 0)
	c := ^sum(sum(0, pseudo), payload)
	if c == 0 && protocol == packet.ProtocolUDP {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(payload[at:], c)
	return payload
}

// Keep returns the exchange with only the steps whose indexes are given, in ascending order. The
// pauses of removed steps are added to the next step that stays.
func (e Exchange) Keep(steps []int) Exchange {
	kept := e
	kept.Steps = nil
	var pause time.Duration
	held := false
	for i, n := 0, 0; i < len(e.Steps) && n < len(steps); i++ {
		step := e.Steps[i]
		pause += step.Pause
		held = held || step.Held
		if i != steps[n] {
			continue
		}
		n++
		step.Pause, step.Held = pause, held
		pause, held = 0, false
		step.Frame = append([]byte(nil), step.Frame...)
		tag(step.Packet(), len(kept.Steps))
		kept.Steps = append(kept.Steps, step)
	}
	return kept
}

// String lists the steps.
func (e Exchange) String() string {
	var b strings.Builder
	for i := range e.Steps {
		b.WriteString(e.Steps[i].String() + "\n")
	}
	return b.String()
}

// String describes the step in a line.
func (s *Step) String() string {
	text := fmt.Sprintf("%s %s", map[verdict.Side]string{verdict.Inside: "──►", verdict.Outside: "◄──"}[s.From], s.What)
	if after := s.After(); after > 0 {
		text = fmt.Sprintf("%s after %v", text, after)
	}
	if !s.Honest {
		text += " (forged)"
	}
	return text
}
