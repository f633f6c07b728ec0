package fastpath

import (
	"testing"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// TestForward: the packets of a flow are forwarded from the third on, in both
// directions, as soon as nothing of them is on its way, and all counters are as
// without.
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

// TestDrop: the packets of a denied flow are dropped, and counted as without.
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
