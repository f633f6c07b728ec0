package fastpath

import (
	"encoding/binary"
	"slices"
	"testing"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// TestForward checks that the packets of a flow are forwarded from the third on, in both
// directions, once none of them is in user space. All counters are as without a fast path.
func TestForward(t *testing.T) {
	for name, hosts := range families {
		for _, policy := range []string{"stateless", "stateful"} {
			t.Run(name+" "+policy, func(t *testing.T) {
				p := onlyPort53()
				if policy == "stateful" {
					p = stateful(p)
				}
				r := newRig(t, p, packet.ModeReassemble)
				request := packettest.UDP(hosts.client, hosts.server, packettest.Body(100)).Frame()
				reply := packettest.UDP(hosts.server, hosts.client, packettest.Body(300)).Frame()
				for range 3 {
					r.send(verdict.Inside, request)
					r.send(verdict.Outside, reply)
				}
				r.settle()
				for range 10 {
					if way := r.send(verdict.Inside, request); way != forwarded {
						t.Fatalf("request %v: %+v", way, r.Stats())
					}
					if way := r.send(verdict.Outside, reply); way != forwarded {
						t.Fatalf("reply %v: %+v", way, r.Stats())
					}
				}
				r.agree()
			})
		}
	}
}

// TestDrop checks that the packets of a denied flow are dropped, and counted as without a fast
// path.
func TestDrop(t *testing.T) {
	for _, p := range []string{"stateless", "stateful"} {
		t.Run(p, func(t *testing.T) {
			policy := onlyPort53()
			policy.Stateful = p == "stateful"
			r := newRig(t, policy, packet.ModeReassemble)
			frame := packettest.TCP(client4, netipPort(server4, 22), 0x02).Frame()
			for range 3 {
				r.send(verdict.Inside, frame)
			}
			for range 10 {
				if way := r.send(verdict.Inside, frame); way != dropped {
					t.Fatalf("%v: %+v", way, r.Stats())
				}
			}
			r.agree()
		})
	}
}

// TestUnfinishedChecksum checks that a checksum which covers only the pseudo-header is left to
// a NIC only if the kernel says so. Otherwise it is wrong.
func TestUnfinishedChecksum(t *testing.T) {
	for name, hosts := range families {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, stateful(onlyPort53()), packet.ModeReassemble)
			d := packettest.UDP(hosts.client, hosts.server, packettest.Body(100))
			for range 3 {
				r.send(verdict.Inside, d.Frame())
			}
			r.settle()
			if way := r.send(verdict.Inside, d.Frame()); way != forwarded {
				t.Fatalf("%v", way)
			}
			sum := pseudoSum(d.Src, d.Dst, packet.ProtocolUDP, len(d.Payload))
			binary.BigEndian.PutUint16(d.Payload[6:], sum)
			if way := r.send(verdict.Inside, d.Frame()); way != passedUp {
				t.Errorf("an unfinished checksum: %v", way)
			}
			r.agree()
		})
	}
}

// TestHidden checks that frames which cannot be a part of a forwarded datagram do not keep its
// fragments from the fast path.
func TestHidden(t *testing.T) {
	fragments := packettest.UDP(client4, server4, packettest.Body(2000))
	fragments.ID = 1
	whole := packettest.UDP(client4, server4, packettest.Body(100)).Frame()
	mac := whole[:12]
	tagged := func(tci uint16) []byte {
		d := packettest.UDP(client4, server4, packettest.Body(100))
		d.Tags = []packet.Tag{{TPID: 0x88a8, TCI: 9}, {TPID: 0x8100, TCI: tci}}
		return d.Frame()
	}
	llc := func(header ...byte) []byte {
		return append(slices.Concat(mac, []byte{0, 60}, header), make([]byte, 60-len(header))...)
	}
	for name, c := range map[string]struct {
		frame  []byte
		hidden bool
	}{
		"none":                  {whole, false},
		"two VLANs":             {tagged(7), false},
		"a VLAN, a priority":    {tagged(5 << 13), true},
		"spanning tree":         {llc(0x42, 0x42, 3), false},
		"discovery of a vendor": {llc(0xaa, 0xaa, 3, 0, 0, 0xc, 0x20, 0), false},
		"IPv4 behind SNAP":      {llc(0xaa, 0xaa, 3, 0, 0, 0, 8, 0, 0x45), true},
		"a tag behind SNAP":     {llc(0xaa, 0xaa, 3, 0, 0, 0xf8, 0x81, 0), true},
		"IPv4 behind LLC":       {llc(6, 6, 3, 0x45), true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, onlyPort53(), packet.ModeValidate)
			fragment := func(id uint32) outcome {
				fragments.ID = id
				frames := fragments.Fragments(1480)
				way := r.send(verdict.Inside, frames[0])
				for _, f := range frames[1:] {
					r.send(verdict.Inside, f)
				}
				r.settle()
				return way
			}
			for id := range uint32(3) {
				fragment(id)
			}
			if way := fragment(3); way != forwarded {
				t.Fatalf("%v: %+v", way, r.Stats())
			}
			r.send(verdict.Inside, c.frame)
			r.settle()
			if way := fragment(4); (way == passedUp) != c.hidden {
				t.Errorf("a first fragment afterwards is %v", way)
			}
		})
	}
}
