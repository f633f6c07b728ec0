package fastpath

import (
	"testing"

	"fragwall/filter/flow"
	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/wire"
)

// TestEntry asks for the entries of an accepted and of a denied flow.
func TestEntry(t *testing.T) {
	for _, stateless := range []bool{true, false} {
		p := onlyPort53()
		p.Stateful = !stateless
		r := newRig(t, p, packet.ModeReassemble)
		dns := packettest.UDP(client4, server4, packettest.Body(100)).Frame()
		ssh := packettest.TCP(client4, netipPort(server4, 22), 0x02).Frame()
		entry := func(frame []byte) (wire.FastEntry, bool) {
			t.Helper()
			parsed := new(packet.Parsed)
			if why := parsed.Decode(frame); why != verdict.Passed {
				t.Fatal(why)
			}
			var k flow.Key
			if !k.SetFast(&packet.View{Parsed: parsed, From: verdict.Inside}, false) {
				t.Fatal("the fast path does not handle the frame")
			}
			if e, known := r.Entry(&k, verdict.Outside); known {
				t.Errorf("the other direction has an entry: %+v", e)
			}
			return r.Entry(&k, verdict.Inside)
		}
		for range 3 {
			r.send(verdict.Inside, dns)
			r.send(verdict.Inside, ssh)
		}
		r.settle()
		begun, known := entry(dns)
		if !known || begun.Action != verdict.Accept || !begun.Whole || begun.Fragments || begun.Rule != 1 {
			t.Errorf("a new entry: %+v, %v", begun, known)
		}
		for range 2 {
			r.send(verdict.Inside, dns)
		}
		if e, known := entry(dns); !known || e.Frames != begun.Frames+2 || e.Bytes != begun.Bytes+2*uint64(len(dns)) || e.Seen < begun.Seen || e.Seen > r.now() {
			t.Errorf("after 2 frames: %+v, %v; before: %+v", e, known, begun)
		}
		if e, known := entry(ssh); !known || e.Action != verdict.Drop || e.Reason != verdict.PolicyRule || e.Rule != 3 || e.Frames == 0 {
			t.Errorf("a drop: %+v, %v", e, known)
		}
		r.fast.Reload(p)
		if e, known := entry(dns); known {
			t.Errorf("after a reload: %+v", e)
		}
		for range 3 {
			r.send(verdict.Inside, dns)
		}
		if e, known := entry(dns); !known {
			t.Errorf("judged by the new policy: %+v", e)
		}
		r.Watch(func(*flow.Key) bool { return true })
		if e, known := entry(dns); known {
			t.Errorf("watched: %+v", e)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if e, known := entry(ssh); known {
			t.Errorf("closed: %+v", e)
		}
	}
}
