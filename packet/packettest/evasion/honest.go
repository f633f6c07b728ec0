package evasion

import (
	"net/netip"
	"slices"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// honest returns the traffic of hosts and networks without bad intent.
func honest() []entry {
	return []entry{
		{name: "in order", reference: "RFC 791, RFC 8200", delivers: 1, write: func(s *script) {
			s.send(s.allowed().Fragments(800)...)
		}},
		{name: "last first", reference: "fragrouter frag-6", delivers: 1, write: func(s *script) {
			s.send(backwards(s.allowed().Fragments(800))...)
		}},
		{name: "one out of order", reference: "fragrouter frag-3", delivers: 1, write: func(s *script) {
			frames := s.allowed().Fragments(400)
			frames[2], frames[3] = frames[3], frames[2]
			s.send(frames...)
		}},
		{name: "one twice", reference: "fragrouter frag-4", delivers: 1, write: func(s *script) {
			frames := s.allowed().Fragments(800)
			s.send(frames[0], frames[1], frames[1], frames[2])
		}},
		{name: "each twice, backwards", reference: "fragrouter frag-5", delivers: 1, write: func(s *script) {
			for _, frame := range backwards(s.allowed().Fragments(800)) {
				if len(s.frames) < 4 { // a duplicate after the whole datagram would begin another
					s.send(frame)
				}
				s.send(frame)
			}
		}},
		{name: "in fragments of 24 bytes", reference: "fragrouter frag-2", delivers: 1, write: func(s *script) {
			s.send(s.allowed().Fragments(24)...)
		}},
		{name: "in fragments of 8 bytes", reference: "fragrouter frag-1", delivers: 1, write: func(s *script) {
			s.send(s.allowed().Fragments(8)...)
		}},
		{name: "of maximum length", reference: "RFC 791, RFC 8200", delivers: 1, write: func(s *script) {
			size := [Families]int{IPv4: 65515, IPv6: 65535}[s.Family]
			s.send(backwards(s.udp(AllowedPort, size, 0).Fragments(1448))...)
		}},
		{name: "two datagrams interleaved", reference: "RFC 791 §3.2", delivers: 2, write: func(s *script) {
			other := s.udp(AllowedPort, 2400, 0xff)
			other.ID = 2
			a, b := s.allowed().Fragments(800), other.Fragments(800)
			s.send(a[0], b[2], b[1], a[2], a[1], b[0])
		}},
		{name: "slowly, within the timeout", reference: "RFC 791 §3.2", delivers: 1, write: func(s *script) {
			for _, frame := range backwards(s.allowed().Fragments(800)) {
				s.send(frame)
				s.at += TimeoutIPv4 / 5
			}
		}},
		{name: "both directions with one identification", reference: "RFC 791 §3.2", delivers: 2, write: func(s *script) {
			ours := s.allowed().Fragments(800)
			s.send(ours[2])
			s.from = verdict.Outside
			s.send(s.allowed().Fragments(800)...)
			s.from = verdict.Inside
			s.send(ours[1], ours[0])
		}},
		{name: "two VLANs with one identification", reference: "IEEE 802.1Q", delivers: 2, write: func(s *script) {
			a, b := s.allowed(), s.udp(AllowedPort, 2400, 0xff)
			a.Tags = []packet.Tag{{TPID: 0x8100, TCI: 10}}
			b.Tags = []packet.Tag{{TPID: 0x8100, TCI: 20}}
			s.send(a.Fragments(800)[1], b.Fragments(800)[1], b.Fragments(800)[0], a.Fragments(800)[0], a.Fragments(800)[2], b.Fragments(800)[2])
		}},
		{name: "priority tags on some fragments", reference: "IEEE 802.1Q §6.9", delivers: 2, write: func(s *script) {
			priority := packet.Tag{TPID: 0x8100, TCI: 0xe000}
			a, b := s.allowed(), s.allowed()
			b.Tags = []packet.Tag{priority}
			s.send(b.Fragments(800)[0], a.Fragments(800)[1], b.Fragments(800)[2])
			a.Tags = []packet.Tag{{TPID: 0x8100, TCI: 10}}
			b.Tags = []packet.Tag{priority, a.Tags[0]}
			s.send(a.Fragments(800)[2], b.Fragments(800)[0], a.Fragments(800)[1])
		}},
		{name: "in LLC, and some fragments in LLC", reference: "RFC 1042", delivers: 2, write: func(s *script) {
			a, b := s.allowed(), s.allowed()
			a.LLC = packettest.SNAP
			s.send(backwards(a.Fragments(800))...)
			s.send(a.Fragments(800)[0], b.Fragments(800)[1], a.Fragments(800)[2])
		}},
		{name: "QinQ, priorities that differ", reference: "IEEE 802.1ad", delivers: 1, write: func(s *script) {
			d := s.allowed()
			d.Tags = []packet.Tag{{TPID: 0x88a8, TCI: 10}, {TPID: 0x8100, TCI: 20}}
			frames := d.Fragments(800)
			d.Tags[1].TCI |= 0xe000
			s.send(frames[1], d.Fragments(800)[0], frames[2])
		}},
		{name: "two protocols with one identification", reference: "RFC 791 §3.2", delivers: 2, only: onlyIPv4, write: func(s *script) {
			a, b := s.allowed().Fragments(800), s.tcp(AllowedPort, 2400).Fragments(800)
			s.send(a[0], b[2], a[1], b[1], a[2], b[0])
		}},
		{name: "identification reused after the datagram has passed", reference: "RFC 6864", delivers: 2, write: func(s *script) {
			s.send(s.allowed().Fragments(800)...)
			s.send(s.udp(AllowedPort, 2400, 0xff).Fragments(800)...)
		}},
		{name: "multicast ESP with options or extension headers", reference: "RFC 791, RFC 8200 §4.5", delivers: 1, write: func(s *script) {
			d := s.udp(AllowedPort, 2400, 0)
			d.Protocol = packet.ProtocolESP
			d.Dst = [Families]netip.Addr{IPv4: netip.MustParseAddr("239.1.2.3"), IPv6: netip.MustParseAddr("ff0e::1:2")}[s.Family]
			d.Options = []byte{0x94, 4, 0, 0}
			d.FirstBefore, d.Before = 0, []byte{44, 0, 5, 2, 0, 0, 1, 0}
			s.send(backwards(d.Fragments(800))...)
		}},
		{name: "echo request in fragments", reference: "RFC 792, RFC 4443", delivers: 1, write: func(s *script) {
			d := s.udp(AllowedPort, 2400, 0)
			d.Protocol = [Families]uint8{packet.ProtocolICMP, packet.ProtocolICMPv6}[s.Family]
			copy(d.Payload, [Families][]byte{{8, 0}, {128, 0}}[s.Family])
			s.send(d.Fragments(800)...)
		}},
		{name: "TCP segment in fragments", reference: "RFC 9293", delivers: 1, write: func(s *script) {
			s.send(backwards(s.tcp(AllowedPort, 2400).Fragments(800))...)
		}},
		{name: "atomic fragment among fragments with its identification", reference: "RFC 6946", delivers: 2, only: onlyIPv6, write: func(s *script) {
			frames := s.allowed().Fragments(800)
			atomic := s.udp(AllowedPort, 400, 0xff)
			s.send(frames[0], frames[2], atomic.Fragment(0, atomic.Payload, false), frames[1])
		}},
		{name: "options header after the fragment header", reference: "RFC 8200 §4.5", delivers: 1, only: onlyIPv6, write: func(s *script) {
			d := s.allowed()
			d.FirstAfter, d.After = 60, []byte{packet.ProtocolUDP, 0, 1, 4, 0, 0, 0, 0}
			s.send(backwards(d.Fragments(800))...)
		}},
		{name: "Next Header of later fragments differs", reference: "RFC 8200 §4.5", delivers: 1, only: onlyIPv6, write: func(s *script) {
			d := s.allowed()
			first := cut(d, 0, 800)
			d.Protocol = packet.ProtocolTCP
			s.send(cut(d, 1600, 2400), first, cut(d, 800, 1600))
		}},
	}
}

// denied are datagrams to the denied port, sent without any trick.
func denied() []entry {
	return []entry{
		{name: "denied, in order", reference: "RFC 1858 §1",
			reassemble: "blocked: policy_default", validate: "blocked: policy_default", write: func(s *script) {
				s.attack(s.denied().Fragments(800)...)
			}},
		{name: "denied, last first", reference: "RFC 1858 §1",
			reassemble: "blocked: policy_default", validate: "blocked: policy_default", write: func(s *script) {
				s.attack(backwards(s.denied().Fragments(800))...)
			}},
		{name: "denied, inside three priority tags", reference: "CVE-2021-27853",
			reassemble: "blocked: vlan_too_deep", validate: "blocked: vlan_too_deep", write: func(s *script) {
				d := s.denied()
				d.Tags = []packet.Tag{{TPID: 0x8100}, {TPID: 0x8100}, {TPID: 0x8100}}
				s.attack(d.Fragments(800)...)
			}},
		{name: "denied, in LLC", reference: "CVE-2021-27853",
			reassemble: "blocked: policy_default", validate: "blocked: policy_default", write: func(s *script) {
				d := s.denied()
				d.LLC = packettest.SNAP
				s.attack(d.Fragments(800)...)
			}},
		{name: "denied, in LLC with a wrong length", reference: "CVE-2021-27861",
			reassemble: "blocked: llc_header", validate: "blocked: llc_header", write: func(s *script) {
				d := s.denied()
				d.LLC = packettest.SNAP
				for _, frame := range d.Fragments(800) {
					frame[12], frame[13] = 5, 0xdc
					s.attack(frame)
				}
			}},
		{name: "denied, VLAN tag inside LLC, in a priority tag", reference: "CVE-2021-27854",
			reassemble: "blocked: policy_default", validate: "blocked: policy_default", write: func(s *script) {
				d := s.denied()
				d.Tags = []packet.Tag{{TPID: 0x8100}}
				d.LLC = append(slices.Clip(packettest.SNAP), 0x81, 0, 0, 0)
				s.attack(d.Fragments(800)...)
			}},
		{name: "all fragments except the first", reference: "RFC 1858 §1",
			reassemble: "blocked: fragment_timeout", validate: "blocked: fragment_timeout", write: func(s *script) {
				s.attack(s.denied().Fragments(800)[1:]...)
			}},
		{name: "ports in the first fragment, the rest of the header in another", reference: "RFC 1858 §3",
			reassemble: "blocked: policy_default", validate: "blocked: fragment_tiny_first", only: onlyIPv4, write: func(s *script) {
				s.attack(s.tcp(DeniedPort, 2400).Fragments(8)...)
			}},
	}
}

func backwards(frames [][]byte) [][]byte {
	slices.Reverse(frames)
	return frames
}

// other returns a datagram in which a range of d's payload is changed.
func other(d packettest.Datagram, from, to int) packettest.Datagram {
	d.Payload = slices.Clone(d.Payload)
	for i := range d.Payload[from:to] {
		d.Payload[from+i] ^= 0xff
	}
	return d
}
