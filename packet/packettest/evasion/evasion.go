package evasion

import (
	"net/netip"
	"time"

	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// Policy is the policy of all cases, as a part of a configuration file.
const Policy = `
[policy]
default = "drop"
neighbor_discovery = "drop"

[[rule]]
name = "dns"
action = "accept"
protocol = ["udp", "tcp", "sctp"]
dst_port = 53

[[rule]]
name = "protocols without ports"
action = "accept"
protocol = ["icmp", "icmpv6", "esp", "gre"]
`

// Ports that the policy allows and denies.
const (
	AllowedPort = 53
	DeniedPort  = 22
)

// Timeouts of the filter that the cases assume.
const (
	TimeoutIPv4 = 30 * time.Second
	TimeoutIPv6 = 60 * time.Second
)

// Family indexes the parts of a case for each address family.
type Family uint8

// The families.
const (
	IPv4 Family = iota
	IPv6
	Families = 2
)

// String returns the family's name.
func (f Family) String() string {
	if f == IPv4 {
		return "IPv4"
	}
	return "IPv6"
}

// Frame is one frame of a case.
type Frame struct {
	At   time.Duration // since the case began
	From verdict.Side
	Data []byte
	// Hostile frames must not pass: they belong to a denied datagram, or to one that no honest
	// host sends.
	Hostile bool
}

// Case is one kind of fragment traffic.
type Case struct {
	Name      string
	Reference string // RFC, paper, tool or advisory
	Group     Group
	// Delivers is the number of datagrams that are allowed, complete and unambiguous. The
	// host behind the filter must get them.
	Delivers int
	Frames   [Families][]Frame // nil if the case is only for the other family
	// Reassemble, Whole and Validate are the expected results in mode reassemble, in reassemble
	// with emit "whole", and in validate. A result says what the [Host] models reassemble from
	// the frames that pass, and the reasons for which the others are dropped.
	Reassemble, Whole, Validate string
}

// Group is the subject of a case.
type Group string

// The groups, in the order of the catalogue.
const (
	Honest         Group = "Honest traffic"
	Denied         Group = "Denied datagrams"
	Overlaps       Group = "Overlaps"
	Rewriting      Group = "Headers overwritten or split"
	Lengths        Group = "Lengths and ends"
	Identification Group = "Identification, time and place"
	Chains         Group = "IPv6 chains"
	SourceRoutes   Group = "Source routes"
)

// script writes the frames of a case for one family.
type script struct {
	Family
	at     time.Duration
	from   verdict.Side
	frames []Frame
}

// send adds frames that arrive at the same time.
func (s *script) send(frames ...[]byte) {
	for _, data := range frames {
		s.frames = append(s.frames, Frame{At: s.at, From: s.from, Data: data})
	}
}

// attack adds hostile frames that arrive at the same time.
func (s *script) attack(frames ...[]byte) {
	n := len(s.frames)
	s.send(frames...)
	for i := n; i < len(s.frames); i++ {
		s.frames[i].Hostile = true
	}
}

// expire waits until the deadline of earlier fragments has passed.
func (s *script) expire() {
	s.at += [Families]time.Duration{TimeoutIPv4, TimeoutIPv6}[s.Family] + time.Second
}

// udp returns a datagram to a port, with n bytes of payload including its header. Each mark
// gives different bytes.
func (s *script) udp(port uint16, n int, mark byte) packettest.Datagram {
	src, dst := s.hosts()
	body := packettest.Body(n - 8)
	for i := range body {
		body[i] ^= mark
	}
	d := packettest.UDP(netip.AddrPortFrom(src, 40000), netip.AddrPortFrom(dst, port), body)
	d.ID = 1
	return d
}

// tcp returns a segment with n bytes of payload including its header.
func (s *script) tcp(port uint16, n int) packettest.Datagram {
	src, dst := s.hosts()
	d := packettest.TCP(netip.AddrPortFrom(src, 40000), netip.AddrPortFrom(dst, port), 2)
	d.Payload = append(d.Payload, packettest.Body(n-len(d.Payload))...)
	d.ID = 1
	return d
}

// hosts returns the sender and the receiver, as seen from the script's side.
func (s *script) hosts() (src, dst netip.Addr) {
	pair := [Families][2]netip.Addr{
		IPv4: {packettest.InsideIPv4, packettest.OutsideIPv4},
		IPv6: {packettest.InsideIPv6, packettest.OutsideIPv6},
	}[s.Family]
	return pair[s.from], pair[s.from.Other()]
}

// allowed and denied return datagrams of 2,400 bytes to the two ports.
func (s *script) allowed() packettest.Datagram { return s.udp(AllowedPort, 2400, 0) }
func (s *script) denied() packettest.Datagram  { return s.udp(DeniedPort, 2400, 0x55) }

// cut returns a range of a datagram's bytes as a fragment. It is the last fragment if it
// reaches the end.
func cut(d packettest.Datagram, from, to int) []byte {
	whole := d.Fragmentable()
	return d.Fragment(from, whole[from:to], to < len(whole))
}

// entry is a case before its frames are written.
type entry struct {
	name, reference      string
	delivers             int
	reassemble, validate string
	whole                string              // "": as reassemble
	only                 func(f Family) bool // nil: both
	write                func(s *script)
}

func onlyIPv4(f Family) bool { return f == IPv4 }
func onlyIPv6(f Family) bool { return f == IPv6 }

// Cases returns the catalogue.
func Cases() []Case {
	var all []Case
	for _, part := range []struct {
		group   Group
		entries []entry
	}{
		{Honest, honest()}, {Denied, denied()}, {Overlaps, overlaps()}, {Rewriting, rewriting()},
		{Lengths, lengths()}, {Identification, identification()}, {Chains, chains()},
		{SourceRoutes, sourceRoutes()},
	} {
		for _, e := range part.entries {
			c := Case{Name: e.name, Reference: e.reference, Group: part.group, Delivers: e.delivers,
				Reassemble: e.reassemble, Whole: e.whole, Validate: e.validate}
			if c.Group == Honest {
				c.Reassemble, c.Validate = "passes", "passes"
			}
			if c.Whole == "" {
				c.Whole = c.Reassemble
			}
			for f := range Family(Families) {
				if e.only != nil && !e.only(f) {
					continue
				}
				s := script{Family: f}
				e.write(&s)
				c.Frames[f] = s.frames
			}
			all = append(all, c)
		}
	}
	return all
}
