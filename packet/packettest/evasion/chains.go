package evasion

import (
	"fragwall/packet"
	"fragwall/packet/packettest"
)

// chains are attacks with the extension headers of IPv6.
func chains() []entry {
	entries := []entry{
		{name: "header chain in two fragments", reference: "RFC 7112",
			reassemble: "blocked: fragment_incomplete_chain, fragment_timeout", validate: "blocked: fragment_incomplete_chain, fragment_timeout", write: func(s *script) {
				d := s.denied()
				d.FirstAfter, d.After = 60, []byte{packet.ProtocolUDP, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
				s.attack(cut(d, 0, 8), cut(d, 8, 1400), cut(d, 1400, 2416))
			}},
		{name: "chain complete, ports in the second fragment", reference: "RFC 7112",
			reassemble: "blocked: fragment_incomplete_chain, fragment_timeout", validate: "blocked: fragment_incomplete_chain, fragment_timeout", write: func(s *script) {
				d := s.denied()
				d.FirstAfter, d.After = 60, []byte{packet.ProtocolUDP, 0, 1, 4, 0, 0, 0, 0}
				s.attack(cut(d, 0, 8), cut(d, 8, 1400), cut(d, 1400, 2408))
			}},
		{name: "TCP header in two fragments", reference: "RFC 7112",
			reassemble: "blocked: fragment_incomplete_chain, fragment_timeout", validate: "blocked: fragment_incomplete_chain, fragment_timeout", write: func(s *script) {
				s.attack(s.tcp(AllowedPort, 2400).Fragments(16)...)
			}},
		{name: "chain overwritten by an overlap", reference: "RFC 5722 §2; Atlasis 2012",
			reassemble: "blocked: fragment_overlap", validate: "blocked: fragment_overlap", write: func(s *script) {
				d := s.allowed()
				d.FirstAfter, d.After = 60, []byte{packet.ProtocolUDP, 0, 1, 4, 0, 0, 0, 0}
				s.send(cut(d, 0, 800), cut(d, 1600, 2408))
				denied := s.denied()
				denied.FirstAfter, denied.After = d.FirstAfter, d.After
				s.attack(cut(denied, 8, 1400))
			}},
		{name: "second first fragment with another Next Header", reference: "RFC 8200 §4.5",
			reassemble: "blocked: fragment_conflict", validate: "blocked: fragment_duplicate", write: func(s *script) {
				d := s.allowed()
				s.send(cut(d, 0, 800))
				lie := s.tcp(DeniedPort, 2400)
				s.attack(cut(lie, 0, 800))
				s.send(cut(d, 800, 1600), cut(d, 1600, 2400))
			}},
		{name: "fragment header within a fragment", reference: "RFC 8200 §4.1; Atlasis 2012",
			reassemble: "blocked: fragment_two_headers, fragment_timeout", validate: "blocked: fragment_two_headers, fragment_timeout", write: func(s *script) {
				d := s.denied()
				d.FirstAfter, d.After = 44, []byte{packet.ProtocolUDP, 0, 0, 1, 0, 0, 0, 9}
				s.attack(d.Fragments(800)...)
			}},
		{name: "fragment header within an atomic fragment", reference: "RFC 8200 §4.1; Atlasis 2012",
			reassemble: "blocked: fragment_two_headers", validate: "blocked: fragment_two_headers", write: func(s *script) {
				d := s.allowed()
				for _, frame := range d.Fragments(800) {
					inner := packettest.Datagram{Src: d.Src, Dst: d.Dst, ID: 5, Protocol: 44, Payload: frame[14+40:]}
					s.attack(inner.Fragment(0, inner.Payload, false))
				}
			}},
		{name: "too many extension headers", reference: "RFC 8504 §5.3",
			reassemble: "blocked: ipv6_chain_too_long, fragment_timeout", validate: "blocked: ipv6_chain_too_long, fragment_timeout", write: func(s *script) {
				d := s.allowed()
				d.FirstAfter = 60
				for i := range 20 {
					next := byte(60)
					if i == 19 {
						next = packet.ProtocolUDP
					}
					d.After = append(d.After, next, 0, 1, 4, 0, 0, 0, 0)
				}
				s.attack(d.Fragments(800)...)
			}},
		{name: "hop-by-hop header after the fragment header", reference: "RFC 8200 §4.1",
			reassemble: "blocked: ipv6_chain, fragment_timeout", validate: "blocked: ipv6_chain, fragment_timeout", write: func(s *script) {
				d := s.allowed()
				d.FirstAfter, d.After = 0, []byte{packet.ProtocolUDP, 0, 1, 4, 0, 0, 0, 0}
				s.attack(d.Fragments(800)...)
			}},
		{name: "router advertisement in fragments", reference: "RFC 6980; RFC 6104",
			reassemble: "blocked: fragmented_neighbor_discovery, fragment_timeout", validate: "blocked: fragmented_neighbor_discovery, fragment_timeout", write: func(s *script) {
				d := s.advertisement()
				s.attack(d.Fragments(64)...)
			}},
		{name: "router advertisement in an atomic fragment", reference: "RFC 6980",
			reassemble: "blocked: fragmented_neighbor_discovery", validate: "blocked: fragmented_neighbor_discovery", write: func(s *script) {
				d := s.advertisement()
				s.attack(d.Fragment(0, d.Payload, false))
			}},
		{name: "router advertisement after options, in fragments", reference: "RFC 6980; RFC 7113",
			reassemble: "blocked: fragmented_neighbor_discovery, fragment_timeout", validate: "blocked: fragmented_neighbor_discovery, fragment_timeout", write: func(s *script) {
				d := s.advertisement()
				d.FirstAfter, d.After = 60, []byte{packet.ProtocolICMPv6, 0, 1, 4, 0, 0, 0, 0}
				s.attack(d.Fragments(64)...)
			}},
	}
	for i := range entries {
		entries[i].only = onlyIPv6
	}
	return entries
}

// advertisement returns a router advertisement that a host would accept.
func (s *script) advertisement() packettest.Datagram {
	src, dst := s.hosts()
	return packettest.Datagram{Src: src, Dst: dst, ID: 1, TTL: 255, Protocol: packet.ProtocolICMPv6,
		Payload: append([]byte{134, 0}, make([]byte, 126)...)}
}
