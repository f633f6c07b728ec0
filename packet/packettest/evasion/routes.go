package evasion

import "fragwall/packet"

// sourceRoutes are datagrams with a source route in all or some of their fragments. The
// destination address of such a datagram is not where it finally goes.
func sourceRoutes() []entry {
	const all, timeout = "blocked: policy_source_route", "blocked: fragment_timeout, policy_source_route"
	loose := []byte{131, 7, 4, 192, 0, 2, 99, 0}
	routing := append([]byte{44, 2, 0, 1, 0, 0, 0, 0}, make([]byte, 16)...)
	return []entry{
		{name: "loose source route", reference: "RFC 791 §3.1; RFC 7126 §4.3", only: onlyIPv4,
			reassemble: all, validate: all, write: func(s *script) {
				d := s.allowed()
				d.Options = loose
				s.attack(d.Fragments(800)...)
			}},
		{name: "strict source route, completed", reference: "RFC 7126 §4.4", only: onlyIPv4,
			reassemble: all, validate: all, write: func(s *script) {
				d := s.allowed()
				d.Options = []byte{1, 137, 7, 8, 192, 0, 2, 99}
				s.attack(d.Fragments(800)...)
			}},
		{name: "source route in one of the later fragments", reference: "RFC 7126 §4.3", only: onlyIPv4,
			reassemble: timeout, validate: all, write: func(s *script) {
				plain, d := s.allowed(), s.allowed()
				d.Options = loose
				s.send(cut(plain, 0, 800))
				s.attack(cut(d, 800, 1600))
				s.send(cut(plain, 1600, 2400))
			}},
		{name: "options that do not fit the header", reference: "RFC 791 §3.1", only: onlyIPv4,
			reassemble: "blocked: ipv4_options", validate: "blocked: ipv4_options", write: func(s *script) {
				d := s.allowed()
				d.Options = append([]byte{148, 1, 1, 1}, loose...)
				s.attack(d.Fragments(800)...)
			}},
		{name: "routing header of type 0", reference: "RFC 5095", only: onlyIPv6,
			reassemble: all, validate: all, write: func(s *script) {
				d := s.allowed()
				d.FirstBefore, d.Before = 43, routing
				s.attack(d.Fragments(800)...)
			}},
		{name: "routing header after the fragment header", reference: "RFC 5095", only: onlyIPv6,
			reassemble: timeout, validate: timeout, write: func(s *script) {
				d := s.allowed()
				d.FirstAfter, d.After = 43, append([]byte{packet.ProtocolUDP}, routing[1:]...)
				fragments := d.Fragments(800)
				s.attack(fragments[0])
				s.send(fragments[1:]...)
			}},
	}
}
