package fastpath

import (
	"net/netip"
	"testing"
	"time"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
	"fragwall/wire"
)

// TestYield makes a fast path yield its flows. Frames and datagrams are counted as without a
// fast path, the next packets are passed up, and the flow is learned again.
func TestYield(t *testing.T) {
	for name, hosts := range families {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, stateful(onlyPort53()), packet.ModeReassemble)
			request := packettest.UDP(hosts.client, hosts.server, packettest.Body(100)).Frame()
			reply := packettest.UDP(hosts.server, hosts.client, packettest.Body(300)).Frame()
			for range 3 { // the second and the third time, after the flow was yielded
				for range 3 {
					r.send(verdict.Inside, request)
					r.send(verdict.Outside, reply)
				}
				r.settle()
				for range 5 {
					if one, other := r.send(verdict.Inside, request), r.send(verdict.Outside, reply); one != forwarded || other != forwarded {
						t.Fatalf("a request is %v, a reply %v: %+v", one, other, r.Stats())
					}
				}
				r.Yield(func(*packet.Parsed, verdict.Side, wire.Beginning) { t.Error("the beginning of a datagram") })
				if keys := r.Keys(); len(keys) != 0 {
					t.Errorf("the fast path still knows %v", keys)
				}
				if one, other := r.send(verdict.Inside, request), r.send(verdict.Outside, reply); one != passedUp || other != passedUp {
					t.Errorf("a request is %v, a reply %v", one, other)
				}
				r.agree()
				r.mu.Lock()
				r.deleteRetired(monotonic()) // as upkeep does
				r.mu.Unlock()
				r.settle()
			}
			if known := r.fast.Policy().Flows(); known != 1 {
				t.Errorf("%d flows, want one", known)
			}
		})
	}
}

// fragmented is a rig in mode validate that forwards the fragments of a flow.
type fragmented struct {
	*rig
	client, server netip.AddrPort
}

func newFragmented(t *testing.T, client, server netip.AddrPort) *fragmented {
	t.Helper()
	r := &fragmented{newRig(t, onlyPort53(), packet.ModeValidate), client, server}
	for id := uint32(1); id <= 3; id++ {
		for _, f := range r.fragments(id) {
			r.send(verdict.Inside, f)
		}
		r.settle()
	}
	return r
}

// fragments returns the fragments of a datagram of the flow.
func (r *fragmented) fragments(id uint32) [][]byte {
	d := packettest.UDP(r.client, r.server, packettest.Body(4000))
	d.ID = id
	return d.Fragments(1448)
}

// forwards sends fragments, all of which must be forwarded.
func (r *fragmented) forwards(frames ...[]byte) {
	r.Helper()
	for i, f := range frames {
		if way := r.send(verdict.Inside, f); way != forwarded {
			r.Fatalf("fragment %d is %v: %+v", i, way, r.Stats())
		}
	}
}

// TestYieldBeginnings yields the beginnings of datagrams, each once. The fragments that follow
// are passed up.
func TestYieldBeginnings(t *testing.T) {
	for name, hosts := range families {
		t.Run(name, func(t *testing.T) {
			r := newFragmented(t, hosts.client, hosts.server)
			before := time.Now()
			r.forwards(r.fragments(10)[:1]...)
			r.forwards(r.fragments(11)[:2]...)
			r.forwards(r.fragments(12)...) // complete, so none of it remains
			began := map[uint32]int{}
			r.Yield(func(p *packet.Parsed, from verdict.Side, b wire.Beginning) {
				began[p.Fragment.ID] += b.Bytes
				if p.Src != hosts.client.Addr() || p.Dst != hosts.server.Addr() || from != verdict.Inside || !p.Fragment.Present {
					t.Errorf("from the %v: %+v", from, p)
				}
				if b.First.Before(before.Add(-time.Second)) || b.First.After(time.Now()) || b.Unit <= 0 {
					t.Errorf("%+v", b)
				}
			})
			if len(began) != 2 || began[10] != 1448 || began[11] != 2*1448 {
				t.Errorf("%v bytes, by identification", began)
			}
			r.Yield(func(p *packet.Parsed, _ verdict.Side, b wire.Beginning) { t.Errorf("again: %+v, %+v", p, b) })
			for id, rest := range map[uint32][][]byte{10: r.fragments(10)[1:], 11: r.fragments(11)[2:]} {
				for _, f := range rest {
					if way := run(t, r.in(verdict.Inside), f, 0); way != passedUp {
						t.Errorf("a fragment of %d is %v", id, way)
					}
				}
			}
		})
	}
}

// TestBlock blocks a datagram of a forwarded flow. All its fragments are passed up until its
// deadline, and other datagrams are forwarded.
func TestBlock(t *testing.T) {
	for name, hosts := range families {
		t.Run(name, func(t *testing.T) {
			r := newFragmented(t, hosts.client, hosts.server)
			var p packet.Parsed
			frames := r.fragments(10)
			if reason := p.Decode(frames[0]); reason != verdict.Passed {
				t.Fatal(reason)
			}
			r.Block(&p, verdict.Inside)
			upkeep := func(after time.Duration) {
				r.mu.Lock()
				defer r.mu.Unlock()
				for range fragmentShares {
					r.freeFragments(monotonic() + uint64(after))
				}
			}
			upkeep(max(r.options.TimeoutIPv4, r.options.TimeoutIPv6) - time.Second)
			for i, f := range frames {
				if way := r.send(verdict.Inside, f); way != passedUp {
					t.Errorf("fragment %d is %v", i, way)
				}
			}
			r.settle()
			r.forwards(r.fragments(11)...)
			upkeep(max(r.options.TimeoutIPv4, r.options.TimeoutIPv6) + time.Second)
			r.forwards(frames...)
			r.agree()
		})
	}
}
