package packet_test

import (
	"testing"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// TestSourceRoute has packets and fragments, some of them with a source route.
func TestSourceRoute(t *testing.T) {
	const loose, strict, recordRoute = 131, 137, 7
	for name, tt := range map[string]struct {
		options []byte
		want    bool
	}{
		"none":                  {nil, false},
		"record route":          {[]byte{recordRoute, 7, 4, 0, 0, 0, 0, 0}, false},
		"loose":                 {[]byte{loose, 7, 4, 192, 0, 2, 9, 0}, true},
		"strict, behind others": {[]byte{1, 0x94, 4, 0, 0, strict, 7, 4, 192, 0, 2, 9}, true},
		"used up":               {[]byte{loose, 7, 8, 192, 0, 2, 9, 0}, true},
		"without a pointer":     {[]byte{loose, 2, 0, 0}, true},
		"behind the end":        {[]byte{0, loose, 7, 4, 192, 0, 2, 9}, false},
		"as data of an option":  {[]byte{0x88, 8, loose, 7, 4, 0, 0, 0}, false},
	} {
		d := packettest.UDP(in4, out4, packettest.Body(64))
		d.Options = tt.options
		routed(t, name, d, tt.want, tt.want)
	}
	const routing, udp = 43, packet.ProtocolUDP
	for name, tt := range map[string]struct {
		before, after []byte
		first, rest   bool
	}{
		"none left":                   {before: []byte{udp, 0, 0, 0, 0, 0, 0, 0}},
		"type 0":                      {before: append([]byte{udp, 2, 0, 1, 0, 0, 0, 0}, make([]byte, 16)...), first: true, rest: true},
		"type 2, of mobility":         {before: append([]byte{udp, 2, 2, 1, 0, 0, 0, 0}, make([]byte, 16)...), first: true, rest: true},
		"an unknown type":             {before: []byte{udp, 0, 99, 255, 0, 0, 0, 0}, first: true, rest: true},
		"after the fragment header":   {after: []byte{udp, 0, 4, 1, 0, 0, 0, 0}, first: true},
		"none left, after the header": {after: []byte{udp, 0, 4, 0, 1, 1, 1, 1}},
	} {
		d := packettest.UDP(in6, out6, packettest.Body(64))
		if d.Before = tt.before; d.Before != nil {
			d.FirstBefore = routing
		}
		if d.After = tt.after; d.After != nil {
			d.FirstAfter = routing
		}
		routed(t, name, d, tt.first, tt.rest)
	}
}

// routed decodes a datagram as a whole packet, and its first and last fragments.
func routed(t *testing.T, name string, d packettest.Datagram, first, rest bool) {
	t.Helper()
	inFragments := d
	if len(d.Before) > 0 {
		inFragments.Before = concat([]byte{44}, d.Before[1:])
	}
	fragments := inFragments.Fragments(40)
	for kind, tt := range map[string]struct {
		frame []byte
		want  bool
	}{"whole": {d.Frame(), first}, "first fragment": {fragments[0], first}, "last fragment": {fragments[len(fragments)-1], rest}} {
		var p packet.Parsed
		if why := p.Decode(tt.frame); why != verdict.Passed || p.SourceRoute != tt.want {
			t.Errorf("%s, %s: %v, source route %v, want %v", name, kind, why, p.SourceRoute, tt.want)
		}
	}
}
