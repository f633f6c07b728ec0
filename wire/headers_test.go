package wire

import (
	"net/netip"
	"testing"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// TestPriorityTags has replies with other tags than the requests.
func TestPriorityTags(t *testing.T) {
	const q, ad = 0x8100, 0x88a8
	for _, tt := range []struct {
		name             string
		question, answer []packet.Tag
		anyVLANs, passes bool
	}{
		{"untagged", []packet.Tag{{TPID: q, TCI: 0xe000}}, nil, false, true},
		{"with a priority", nil, []packet.Tag{{TPID: ad, TCI: 0x2000}}, false, true},
		{"in the VLAN inside a priority tag", []packet.Tag{{TPID: q, TCI: 0}, {TPID: q, TCI: 10}}, []packet.Tag{{TPID: q, TCI: 10}}, false, true},
		{"untagged to a VLAN", []packet.Tag{{TPID: q, TCI: 10}}, nil, false, false},
		{"to a VLAN inside a priority tag", []packet.Tag{{TPID: q, TCI: 0}, {TPID: q, TCI: 10}}, []packet.Tag{{TPID: q, TCI: 0}}, false, false},
		{"in another VLAN, with any_vlans", []packet.Tag{{TPID: q, TCI: 10}}, []packet.Tag{{TPID: q, TCI: 20}}, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inside := verdict.Inside
			policy := &filter.Policy{Stateful: true, AnyVLANs: tt.anyVLANs, Rules: []filter.Rule{{Name: "out", Action: verdict.Accept, From: &inside}}}
			question := packettest.UDP(client4, server4, nil)
			answer := packettest.UDP(server4, client4, packettest.Body(2000))
			question.Tags, answer.Tags = tt.question, tt.answer
			run(t, policy, func(b *testWire) {
				b.send(verdict.Inside, question.Frame())
				b.expect(verdict.Outside, question.Frame())
				var want [][]byte
				if tt.passes {
					want = answer.Fragments(1000)
				}
				b.send(verdict.Outside, answer.Fragments(1000)...)
				b.expect(verdict.Inside, want...)
			})
		})
	}
}

// TestSourceRoute drops whole packets and fragments with a source route, unless the policy
// accepts these.
func TestSourceRoute(t *testing.T) {
	options := packettest.UDP(client4, server4, packettest.Body(2000))
	options.Options = []byte{131, 7, 4, 192, 0, 2, 9, 0}
	small := packettest.UDP(client4, server4, nil)
	small.Options = options.Options
	routing := packettest.UDP(client6, server6, packettest.Body(2000))
	routing.FirstAfter, routing.After = 43, []byte{packet.ProtocolUDP, 0, 4, 1, 0, 0, 0, 0}
	first, rest := routing.Fragments(1000)[0], routing.Fragments(1000)[1:]
	frames := append(append(options.Fragments(1000), small.Frame(), first), rest...)
	for _, mode := range []packet.Mode{packet.ModeReassemble, packet.ModeValidate, packet.ModeFirstAcceptRest} {
		policy := onlyPort53()
		runConfig(t, Config{Policy: policy, Mode: mode}, func(b *testWire) {
			b.send(verdict.Inside, frames...)
			dropped := uint64(len(frames) - len(rest))
			if got := b.Counters(verdict.Inside).Dropped[verdict.PolicySourceRoute]; got != dropped {
				b.Errorf("%v: %d dropped, want %d", mode, got, dropped)
			}
			if mode == packet.ModeFirstAcceptRest {
				b.expect(verdict.Outside, rest...)
			} else {
				b.expect(verdict.Outside)
			}
		})
		policy.SourceRoute = verdict.Accept
		runConfig(t, Config{Policy: policy, Mode: mode}, func(b *testWire) {
			b.send(verdict.Inside, frames...)
			b.expect(verdict.Outside, frames...)
		})
	}
}

// TestLLC checks that an IP packet in LLC is judged as an IP packet.
func TestLLC(t *testing.T) {
	policy := onlyPort53()
	policy.NonIP, policy.ARP = verdict.Accept, verdict.Drop
	ethernet := packettest.Datagram{LLC: packettest.SNAP}
	bpdu := packettest.Datagram{}.Ethernet(38, append([]byte{0x42, 0x42, 3}, make([]byte, 43)...))
	dns := packettest.UDP(client6, server6, packettest.Body(2000))
	dns.LLC = packettest.SNAP
	denied := packettest.UDP(client4, netip.AddrPortFrom(server4.Addr(), 22), packettest.Body(2000))
	denied.LLC, denied.ID = packettest.SNAP, 1
	advert := packettest.Datagram{Src: client6.Addr(), Dst: server6.Addr(), TTL: 255, Protocol: packet.ProtocolICMPv6,
		Payload: append([]byte{134}, make([]byte, 15)...), LLC: packettest.SNAP}
	fragments := dns.Fragments(1000)
	run(t, policy, func(b *testWire) {
		b.send(verdict.Inside, bpdu, ethernet.Ethernet(0x0806, make([]byte, 28)), advert.Frame(), fragments[0])
		b.send(verdict.Inside, denied.Fragments(1000)...)
		b.send(verdict.Inside, fragments[1:]...)
		b.expect(verdict.Outside, append([][]byte{bpdu}, fragments...)...)
		b.counted(verdict.Inside, 9, 4, 0, map[verdict.Reason]uint64{
			verdict.PolicyARP: 1, verdict.PolicyNeighborDiscovery: 1, verdict.PolicyDefault: 3})
	})
	run(t, acceptAll(), func(b *testWire) {
		padded := packettest.UDP(client4, server4, packettest.Body(100)).Frame()[14:]
		full := ethernet.Ethernet(0x0800, append(padded, make([]byte, 1492-len(padded))...))
		b.send(verdict.Inside, append(full[:len(full):len(full)], make([]byte, 40)...))
		b.expect(verdict.Outside, full) // with the padding, which its length includes
	})
}
