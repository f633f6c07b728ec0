package evasion

import (
	"fragwall/packet"
	"fragwall/packet/verdict"
)

// overlaps are datagrams some of whose bytes arrive twice with different contents. Hosts disagree
// on which of them count.
func overlaps() []entry {
	// second sends a fragment with other contents after the one with bytes 800 to 1,600,
	// and before the last one.
	second := func(from, to int) func(s *script) {
		return func(s *script) {
			d := s.allowed()
			s.send(cut(d, 0, 800), cut(d, 800, 1600), cut(other(d, from, to), from, to), cut(d, 1600, 2400))
		}
	}
	return []entry{
		{name: "six fragments", reference: "Shankar and Paxson 2003; Novak 2005",
			reassemble: "blocked: fragment_overlap", validate: "blocked: fragment_overlap", write: func(s *script) { s.send(six(s)...) }},
		{name: "six fragments, backwards", reference: "Novak 2005",
			reassemble: "blocked: fragment_conflict", validate: "blocked: fragment_duplicate, fragment_overlap", write: func(s *script) { s.send(backwards(six(s))...) }},
		{name: "beginning of another", reference: "Ptacek and Newsham 1998",
			reassemble: "blocked: fragment_overlap", validate: "blocked: fragment_overlap", write: func(s *script) {
				d := s.allowed()
				s.send(cut(d, 800, 1600), cut(other(d, 0, 1200), 8, 1200), cut(d, 0, 8), cut(d, 1600, 2400))
			}},
		{name: "end of another", reference: "Ptacek and Newsham 1998",
			reassemble: "blocked: fragment_overlap", validate: "blocked: fragment_overlap", write: second(1200, 1600)},
		{name: "end of another and beyond", reference: "Ptacek and Newsham 1998",
			reassemble: "blocked: fragment_overlap", validate: "blocked: fragment_overlap", write: second(1200, 2000)},
		{name: "same range", reference: "Ptacek and Newsham 1998",
			reassemble: "blocked: fragment_conflict", validate: "blocked: fragment_duplicate", write: second(800, 1600)},
		{name: "same beginning, shorter", reference: "Novak 2005",
			reassemble: "blocked: fragment_overlap", validate: "blocked: fragment_overlap", write: second(800, 1200)},
		{name: "same beginning, longer", reference: "Novak 2005",
			reassemble: "blocked: fragment_overlap", validate: "blocked: fragment_overlap", write: second(800, 2000)},
		{name: "within another", reference: "Novak 2005",
			reassemble: "blocked: fragment_overlap", validate: "blocked: fragment_overlap", write: second(1000, 1400)},
		{name: "around another", reference: "Novak 2005",
			reassemble: "blocked: fragment_overlap", validate: "blocked: fragment_overlap", write: second(640, 1760)},
		{name: "wrong data first, then the data", reference: "fragrouter frag-7",
			reassemble: "blocked: fragment_overlap", validate: "blocked: fragment_overlap", write: func(s *script) {
				d := s.allowed()
				s.send(cut(d, 0, 800), cut(other(d, 800, 2000), 800, 2000), cut(d, 800, 1600), cut(d, 1600, 2400))
			}},
		{name: "teardrop", reference: "CERT CA-1997-28",
			reassemble: "blocked: fragment_beyond_end", validate: "blocked: fragment_beyond_end", write: func(s *script) {
				d := s.allowed()
				s.send(cut(d, 0, 800), other(d, 24, 28).Fragment(24, other(d, 24, 28).Payload[24:28], false))
			}},
		{name: "8 bytes beyond its duplicate", reference: "RFC 5722 §3",
			reassemble: "blocked: fragment_overlap", validate: "blocked: fragment_overlap", write: func(s *script) {
				d := s.allowed()
				s.send(cut(d, 0, 800), cut(other(d, 8, 808), 0, 808), cut(d, 800, 1600), cut(d, 1600, 2400))
			}},
	}
}

// six is the model that distinguishes operating systems: "1" at blocks 0 to 2, "2" at 4
// and 5, "3" at 6 to 8, then "4" at 1 to 4, "5" at 6 to 8, "6" at 9 to 11. The UDP header
// is the first block.
func six(s *script) [][]byte {
	d := s.udp(AllowedPort, 12*8, 0)
	mark := func(b byte, from, to int) []byte {
		marked := other(d, 0, 0)
		for i := max(from, 1) * 8; i < to*8; i++ {
			marked.Payload[i] = b
		}
		return cut(marked, from*8, to*8)
	}
	return [][]byte{mark('1', 0, 3), mark('2', 4, 6), mark('3', 6, 9), mark('4', 1, 5), mark('5', 6, 9), mark('6', 9, 12)}
}

// rewriting has fragments that make a filter judge one header and a host read another.
func rewriting() []entry {
	return []entry{
		{name: "second first fragment to a denied port", reference: "RFC 1858 §4",
			reassemble: "blocked: fragment_conflict", validate: "blocked: fragment_duplicate", write: func(s *script) {
				allowed, denied := s.allowed(), s.denied()
				s.send(cut(allowed, 0, 800))
				s.attack(cut(denied, 0, 800))
				s.send(cut(allowed, 800, 1600), cut(allowed, 1600, 2400))
			}},
		{name: "denied first fragment, then an allowed one", reference: "RFC 1858 §4",
			reassemble: "blocked: fragment_conflict", validate: "blocked: fragment_duplicate, policy_default", write: func(s *script) {
				allowed, denied := s.allowed(), s.denied()
				s.attack(cut(denied, 0, 800))
				s.send(cut(allowed, 0, 800), cut(allowed, 800, 1600), cut(allowed, 1600, 2400))
			}},
		{name: "longer first fragment to a denied port", reference: "RFC 1858 §4",
			reassemble: "blocked: fragment_overlap", validate: "blocked: fragment_overlap", write: func(s *script) {
				allowed, denied := s.allowed(), s.denied()
				s.send(cut(allowed, 0, 800))
				s.attack(cut(denied, 0, 808))
				s.send(cut(allowed, 800, 1600), cut(allowed, 1600, 2400))
			}},
		{name: "shorter first fragment to a denied port", reference: "RFC 1858 §4",
			reassemble: "blocked: fragment_overlap", validate: "blocked: fragment_overlap", write: func(s *script) {
				allowed, denied := s.allowed(), s.denied()
				s.send(cut(allowed, 800, 1600), cut(allowed, 0, 800))
				s.attack(cut(denied, 0, 24))
				s.send(cut(allowed, 1600, 2400))
			}},
		{name: "other fragments first, then both first fragments", reference: "RFC 1858 §4",
			reassemble: "blocked: fragment_timeout, policy_default", validate: "blocked: policy_default", write: func(s *script) {
				allowed, denied := s.allowed(), s.denied()
				s.send(cut(allowed, 1600, 2400), cut(allowed, 800, 1600))
				s.attack(cut(denied, 0, 800))
				s.send(cut(allowed, 0, 800))
			}},
		{name: "denied first fragment after the whole datagram", reference: "RFC 1858 §4",
			reassemble: "blocked: policy_default", validate: "blocked: policy_default", delivers: 1, write: func(s *script) {
				s.send(s.allowed().Fragments(800)...)
				s.attack(s.denied().Fragments(800)...)
			}},
		{name: "tiny first fragment: flags in the second", reference: "RFC 1858 §3",
			reassemble: "harmless", validate: "blocked: fragment_tiny_first", only: onlyIPv4, write: func(s *script) {
				s.send(s.tcp(AllowedPort, 2400).Fragments(8)...)
			}},
		{name: "flags overwritten by a fragment at offset 8", reference: "RFC 1858 §4",
			reassemble: "blocked: fragment_overlap", validate: "blocked: fragment_overlap", write: func(s *script) {
				d := s.tcp(AllowedPort, 2400)
				s.send(cut(d, 0, 24), cut(other(d, 8, 24), 8, 24), cut(d, 24, 1400), cut(d, 1400, 2400))
			}},
		{name: "fragment at offset 8 before the first", reference: "RFC 3128",
			reassemble: "blocked: fragment_overlap", validate: "blocked: fragment_overlap", write: func(s *script) {
				d := s.tcp(AllowedPort, 2400)
				s.send(cut(other(d, 8, 24), 8, 24), cut(d, 0, 24), cut(d, 24, 1400), cut(d, 1400, 2400))
			}},
		{name: "tiny first fragment overwritten at offset 8", reference: "RFC 3128",
			reassemble: "blocked: fragment_overlap", validate: "blocked: fragment_tiny_first", only: onlyIPv4, write: func(s *script) {
				d := s.tcp(AllowedPort, 2400)
				s.send(cut(d, 0, 8), cut(d, 8, 1400), cut(other(d, 8, 16), 8, 16), cut(d, 1400, 2400))
			}},
		{name: "SCTP header in two fragments", reference: "RFC 1858 §3",
			reassemble: "harmless", validate: "blocked: fragment_tiny_first", only: onlyIPv4, write: func(s *script) {
				d := s.allowed()
				d.Protocol = packet.ProtocolSCTP
				s.send(cut(d, 0, 8), cut(d, 8, 1400), cut(d, 1400, 2400))
			}},
		{name: "allowed first fragment whose TTL expires on the way", reference: "Ptacek and Newsham 1998",
			reassemble: "blocked: fragment_conflict", validate: "blocked: fragment_duplicate", write: func(s *script) {
				allowed, denied := s.allowed(), s.denied()
				allowed.TTL = 1
				s.send(cut(allowed, 0, 800))
				s.attack(cut(denied, 0, 800))
				s.send(cut(denied, 800, 1600), cut(denied, 1600, 2400))
			}},
		{name: "allowed first fragment with a bad checksum", reference: "Ptacek and Newsham 1998",
			reassemble: "blocked: ipv4_checksum, policy_default", validate: "blocked: ipv4_checksum, policy_default", only: onlyIPv4, write: func(s *script) {
				frame := cut(s.allowed(), 0, 800)
				frame[14+10] ^= 1
				s.attack(frame)
				s.attack(s.denied().Fragments(800)...)
			}},
	}
}

// lengths are fragments that disagree on the length of the datagram.
func lengths() []entry {
	return []entry{
		{name: "two ends, the second later", reference: "Ptacek and Newsham 1998",
			reassemble: "blocked: fragment_conflicting_end", validate: "blocked: fragment_conflicting_end", write: func(s *script) {
				d, short := s.allowed(), s.allowed()
				short.Payload = short.Payload[:1600]
				s.send(cut(short, 800, 1600))
				s.attack(cut(d, 1600, 2400))
				s.send(cut(d, 0, 800))
			}},
		{name: "two ends, the second earlier", reference: "Ptacek and Newsham 1998",
			reassemble: "blocked: fragment_conflicting_end", validate: "blocked: fragment_conflicting_end", write: func(s *script) {
				d, short := s.allowed(), s.allowed()
				short.Payload = short.Payload[:1600]
				s.send(cut(d, 0, 800), cut(d, 1600, 2400), cut(short, 800, 1600))
			}},
		{name: "data beyond the end", reference: "RFC 8200 §4.5",
			reassemble: "blocked: fragment_beyond_end", validate: "blocked: fragment_beyond_end", write: func(s *script) {
				d, long := s.allowed(), s.udp(AllowedPort, 4000, 0)
				s.send(cut(d, 1600, 2400))
				s.attack(cut(long, 2400, 3200))
				s.send(cut(d, 0, 800), cut(d, 800, 1600))
			}},
		{name: "end before received data", reference: "RFC 8200 §4.5",
			reassemble: "blocked: fragment_beyond_end", validate: "blocked: fragment_beyond_end", write: func(s *script) {
				d, short := s.allowed(), s.allowed()
				short.Payload = short.Payload[:1600]
				s.send(cut(d, 0, 800), d.Fragment(1600, d.Payload[1600:], true), cut(short, 800, 1600))
			}},
		{name: "last and not the last", reference: "RFC 8200 §4.5",
			reassemble: "blocked: fragment_conflicting_end", validate: "blocked: fragment_conflicting_end", write: func(s *script) {
				d := s.allowed()
				s.send(cut(d, 0, 800), d.Fragment(1600, d.Payload[1600:], true), cut(d, 1600, 2400), cut(d, 800, 1600))
			}},
		{name: "ping of death", reference: "CERT CA-1996-26",
			reassemble: "blocked: fragment_too_long, fragment_timeout", validate: "blocked: fragment_too_long", write: func(s *script) {
				d := s.udp(AllowedPort, 2400, 0)
				s.send(cut(d, 0, 800))
				s.attack(d.Fragment(65528, d.Payload[:800], false))
			}},
		{name: "too long only with the first fragment's headers", reference: "RFC 791 §3.1, RFC 8200 §4.5",
			reassemble: "blocked: fragment_too_long", validate: "blocked: fragment_too_long", write: func(s *script) {
				size := [Families]int{IPv4: 65515, IPv6: 65535}[s.Family]
				d := s.udp(AllowedPort, size, 0)
				first := d
				first.Options = []byte{0x94, 4, 0, 0}
				first.FirstBefore, first.Before = 60, []byte{44, 0, 1, 4, 0, 0, 0, 0}
				s.send(d.Fragments(1440)[1:]...)
				s.send(cut(first, 0, 1440))
			}},
		{name: "M flag with a length that is not a multiple of 8", reference: "RFC 8200 §4.5",
			reassemble: "blocked: fragment_unaligned, fragment_timeout", validate: "blocked: fragment_unaligned", write: func(s *script) {
				d := s.allowed()
				s.send(cut(d, 0, 800))
				s.attack(d.Fragment(800, d.Payload[800:1599], true))
				s.send(cut(d, 1600, 2400))
			}},
		{name: "empty fragment", reference: "RFC 791 §3.2",
			reassemble: "blocked: fragment_empty, fragment_timeout", validate: "blocked: fragment_empty", write: func(s *script) {
				d := s.allowed()
				s.send(cut(d, 0, 800))
				s.attack(d.Fragment(800, nil, true), d.Fragment(2400, nil, false))
			}},
		{name: "no end", reference: "CVE-2018-5391",
			reassemble: "blocked: fragment_timeout", validate: "harmless", write: func(s *script) {
				d := s.allowed()
				s.send(d.Fragment(0, d.Payload[:800], true), d.Fragment(800, d.Payload[800:1600], true), d.Fragment(1600, d.Payload[1600:], true))
			}},
		{name: "hole in the middle", reference: "CVE-2018-5391",
			reassemble: "blocked: fragment_timeout", validate: "harmless", write: func(s *script) {
				d := s.allowed()
				s.send(cut(d, 0, 800), cut(d, 1600, 2400))
			}},
	}
}

// identification has fragments with one identification at different times, in different VLANs
// or from different sides.
func identification() []entry {
	split := func(first, rest []packet.Tag) func(s *script) {
		return func(s *script) {
			d := s.allowed()
			d.Tags = first
			s.send(cut(d, 0, 800))
			d.Tags = rest
			s.attack(cut(d, 800, 1600), cut(d, 1600, 2400))
		}
	}
	tag := func(tpid, vid uint16) packet.Tag { return packet.Tag{TPID: tpid, TCI: vid} }
	return []entry{
		{name: "two datagrams, one with a priority tag", reference: "IEEE 802.1Q §6.9",
			reassemble: "blocked: fragment_conflict", validate: "blocked: fragment_duplicate", write: func(s *script) {
				a, b := s.allowed(), s.udp(AllowedPort, 2400, 0xff)
				b.Tags = []packet.Tag{tag(0x8100, 0)}
				s.send(a.Fragments(800)[0], b.Fragments(800)[0], a.Fragments(800)[1], b.Fragments(800)[1], a.Fragments(800)[2])
			}},
		{name: "denied datagram with the identification of an incomplete one", reference: "RFC 4963",
			reassemble: "blocked: fragment_conflict", validate: "blocked: fragment_duplicate", write: func(s *script) {
				d := s.denied()
				s.send(cut(s.allowed(), 0, 800))
				s.attack(cut(d, 0, 800))
				s.send(cut(d, 800, 1600), cut(d, 1600, 2400))
			}},
		{name: "other fragments of an allowed datagram after a denied one", reference: "RFC 4963",
			reassemble: "blocked: fragment_timeout, policy_default", validate: "blocked: fragment_timeout, policy_default", write: func(s *script) {
				s.attack(s.denied().Fragments(800)...)
				s.attack(s.allowed().Fragments(800)[1:]...)
			}},
		{name: "other fragments after the first has expired", reference: "Ptacek and Newsham 1998",
			reassemble: "blocked: fragment_timeout", validate: "blocked: fragment_timeout", write: func(s *script) {
				frames := s.allowed().Fragments(800)
				s.send(frames[0])
				s.expire()
				s.attack(frames[1:]...)
			}},
		{name: "denied first fragment after the others have expired", reference: "Ptacek and Newsham 1998",
			reassemble: "blocked: fragment_timeout", validate: "blocked: fragment_timeout, policy_default", write: func(s *script) {
				s.send(s.allowed().Fragments(800)[1:]...)
				s.expire()
				s.attack(s.denied().Fragments(800)[0])
			}},
		{name: "denied datagram after an allowed first fragment has expired", reference: "Ptacek and Newsham 1998",
			reassemble: "blocked: fragment_timeout, policy_default", validate: "blocked: policy_default", write: func(s *script) {
				s.send(s.allowed().Fragments(800)[0])
				s.expire()
				s.attack(s.denied().Fragments(800)...)
			}},
		{name: "fragment that would complete a poisoned datagram", reference: "RFC 5722 §4",
			reassemble: "blocked: fragment_overlap", validate: "blocked: fragment_overlap", write: func(s *script) {
				d := s.allowed()
				s.send(cut(d, 0, 800), cut(other(d, 792, 1600), 792, 1600))
				s.attack(cut(d, 800, 1600), cut(d, 1600, 2400))
			}},
		{name: "allowed first fragment again, after it has expired", reference: "RFC 1122 §3.3.2",
			reassemble: "blocked: fragment_timeout", validate: "**ambiguous**", delivers: 1, write: func(s *script) {
				s.send(s.allowed().Fragments(800)[0])
				s.expire()
				s.send(s.udp(AllowedPort, 2400, 0xff).Fragments(800)...)
			}},
		{name: "TTL of the last fragment expires on the way, identification reused", reference: "RFC 4963; Ptacek and Newsham 1998",
			reassemble: "**ambiguous**", validate: "**ambiguous**", whole: "harmless", delivers: 1, write: func(s *script) {
				d := s.allowed()
				s.send(cut(d, 0, 800), cut(d, 800, 1600))
				d.TTL = 1
				s.send(cut(d, 1600, 2400))
				s.send(s.udp(AllowedPort, 2400, 0xff).Fragments(800)...)
			}},
		{name: "first and rest in two VLANs", reference: "IEEE 802.1Q",
			reassemble: "blocked: fragment_timeout", validate: "blocked: fragment_timeout", write: split([]packet.Tag{tag(0x8100, 10)}, []packet.Tag{tag(0x8100, 20)})},
		{name: "first untagged, rest in a VLAN", reference: "IEEE 802.1Q",
			reassemble: "blocked: fragment_timeout", validate: "blocked: fragment_timeout", write: split(nil, []packet.Tag{tag(0x8100, 10)})},
		{name: "first and rest with swapped tags", reference: "IEEE 802.1ad",
			reassemble: "blocked: fragment_timeout", validate: "blocked: fragment_timeout", write: split(
				[]packet.Tag{tag(0x88a8, 10), tag(0x8100, 20)}, []packet.Tag{tag(0x8100, 20), tag(0x88a8, 10)})},
		{name: "first and rest from two sides", reference: "RFC 791 §3.2",
			reassemble: "blocked: fragment_timeout", validate: "blocked: fragment_timeout", write: func(s *script) {
				frames := s.allowed().Fragments(800)
				s.send(frames[0])
				s.from = verdict.Outside
				s.attack(frames[1:]...)
			}},
	}
}
