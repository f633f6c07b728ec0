package stack

import (
	"net/netip"
	"slices"
	"testing"

	"fragwall/packet"
	"fragwall/packet/packettest"
)

// TestKindsOfDatagrams sends the fragments of other datagrams than plain UDP backwards, and
// expects both engines to return all of them, byte for byte.
func TestKindsOfDatagrams(t *testing.T) {
	of := func(f family, change func(d *packettest.Datagram)) [][]byte {
		d := datagram(f, 3, 4000)
		change(&d)
		return d.Fragments(1000)
	}
	tests := map[string]func(f family) [][]byte{}
	for name, protocol := range map[string]uint8{
		"icmp": packet.ProtocolICMP, "icmpv6": packet.ProtocolICMPv6, "tcp": packet.ProtocolTCP, "sctp": packet.ProtocolSCTP,
		"dccp": packet.ProtocolDCCP, "esp": packet.ProtocolESP, "gre": packet.ProtocolGRE, "ip in ip": 4, "unknown": 253, "unassigned": 200,
	} {
		tests[name] = func(f family) [][]byte {
			return of(f, func(d *packettest.Datagram) { d.Protocol, d.Payload[0] = protocol, 128 })
		}
	}
	addresses := map[string][families]string{
		"multicast":          {"239.1.2.3", "ff0e::1:2"},
		"link-local group":   {"224.0.0.251", "ff02::fb"},
		"broadcast or local": {"255.255.255.255", "fe80::2"},
		"loopback":           {"127.0.0.1", "::1"},
		"class E or mapped":  {"240.0.0.1", "::ffff:192.0.2.1"},
	}
	for name, dst := range addresses {
		tests[name] = func(f family) [][]byte {
			return of(f, func(d *packettest.Datagram) { d.Dst = netip.MustParseAddr(dst[f]) })
		}
	}
	tests["from the unspecified address"] = func(f family) [][]byte {
		return of(f, func(d *packettest.Datagram) { d.Src = netip.MustParseAddr([]string{"0.0.0.0", "::"}[f]) })
	}
	tests["QinQ"] = func(f family) [][]byte {
		return of(f, func(d *packettest.Datagram) { d.Tags = []packet.Tag{{TPID: 0x88a8, TCI: 1}, {TPID: 0x8100, TCI: 2}} })
	}
	tests["padded"] = func(f family) [][]byte {
		frames := of(f, func(*packettest.Datagram) {})
		frames[3] = append(frames[3], make([]byte, 20)...)
		return frames
	}
	tests["options or headers before, in all"] = func(f family) [][]byte {
		return of(f, func(d *packettest.Datagram) {
			d.Options = []byte{0x94, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0}
			d.FirstBefore, d.Before = 0, []byte{43, 0, 5, 2, 0, 0, 1, 0, 44, 0, 4, 0, 0, 0, 0, 0} // router alert, routing
		})
	}
	tests["options or headers before, in the first alone"] = func(f family) [][]byte {
		frames := of(f, func(*packettest.Datagram) {})
		frames[0] = of(f, func(d *packettest.Datagram) {
			d.Options = []byte{7, 7, 4, 0, 0, 0, 0, 0}
			d.FirstBefore, d.Before = 60, []byte{44, 0, 1, 4, 0, 0, 0, 0}
		})[0]
		return frames
	}
	tests["headers behind, or AH"] = func(f family) [][]byte {
		return of(f, func(d *packettest.Datagram) {
			if f == familyIPv4 {
				d.Protocol = packet.ProtocolAH
				return
			}
			d.FirstAfter = 60
			d.After = []byte{packet.ProtocolAH, 0, 1, 4, 0, 0, 0, 0,
				packet.ProtocolUDP, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
		})
	}
	tests["other Next Header or TTL in other fragments"] = func(f family) [][]byte {
		frames := of(f, func(*packettest.Datagram) {})
		other := of(f, func(d *packettest.Datagram) {
			d.TTL = 3
			if f == familyIPv6 {
				d.Protocol = packet.ProtocolTCP // RFC 8200 §4.5: only that of the first fragment counts
			}
		})
		return append(frames[:1], other[1:]...)
	}
	for name, make := range tests {
		t.Run(name, func(t *testing.T) {
			bothFamilies(t, func(t *testing.T, f family) {
				frames := make(f)
				backwards := slices.Clone(frames)
				slices.Reverse(backwards)

				b := newBench(t)
				for _, frame := range backwards[:len(backwards)-1] {
					b.mustWait(frame)
				}
				b.mustComplete(frames[0], frames)

				v := newValidatorBench(t)
				var on [][]byte
				for _, frame := range backwards {
					passed, _, _ := v.validate(frame, accept)
					on = append(on, passed...)
				}
				v.same(on, frames)
			})
		})
	}
}
