package filter_test

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
)

// TestServerOpensNothing has a server that tries to open a connection to the client's
// host. Only the inside may open connections.
func TestServerOpensNothing(t *testing.T) {
	h := &hosts{newWire(t, fromInside()), families[0]}
	serverSyn := h.tcp(verdict.Outside, syn, outISN+5000, 0, 0)
	tests := []struct {
		name string
		run  func()
	}{
		{"open", func() { h.open() }},
		{"client has closed", func() {
			h.open()
			h.pass(verdict.Inside, h.tcp(verdict.Inside, fin|ack, inISN+1, outISN+1, 0))
			h.block(verdict.Outside, serverSyn)
			h.pass(verdict.Outside, h.tcp(verdict.Outside, ack, outISN+1, inISN+2, 0))
		}},
		{"both have closed", func() {
			h.open()
			h.pass(verdict.Inside, h.tcp(verdict.Inside, fin|ack, inISN+1, outISN+1, 0))
			h.pass(verdict.Outside, h.tcp(verdict.Outside, fin|ack, outISN+1, inISN+2, 0))
		}},
		{"kept alive by forged acknowledgements", func() {
			h.open()
			h.pass(verdict.Inside, h.tcp(verdict.Inside, fin|ack, inISN+1, outISN+1, 0))
			h.pass(verdict.Outside, h.tcp(verdict.Outside, ack, outISN+1, inISN+2, 0))
			for range 10 {
				h.now += 30 * time.Second
				h.block(verdict.Outside, h.tcp(verdict.Outside, ack, outISN+1, 0x12345678, 0))
				h.pass(verdict.Inside, h.tcp(verdict.Inside, rst, 0x12345678, 0, 0)) // the host's reply
			}
			if n := h.table.Flows(); n != 0 {
				t.Errorf("%d flows remain after five minutes without a segment of the connection", n)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h.wire = newWire(t, fromInside())
			tt.run()
			h.block(verdict.Outside, serverSyn)
		})
	}
}

// TestBlindResets sends a RST into each part of the sequence space.
func TestBlindResets(t *testing.T) {
	h := &hosts{newWire(t, fromInside()), families[0]}
	h.open()
	for i := range uint32(513) {
		h.judge(verdict.Outside, h.tcp(verdict.Outside, rst, outISN+2+i<<23, 0, 0))
	}
	h.now += time.Hour
	h.pass(verdict.Outside, h.tcp(verdict.Outside, ack, outISN+1, inISN+1, 0))
	h.pass(verdict.Outside, h.tcp(verdict.Outside, rst, outISN+1, 0, 0)) // the exact sequence number
	h.now += 11 * time.Second
	h.block(verdict.Outside, h.tcp(verdict.Outside, ack, outISN+1, inISN+1, 0))
}

// TestPortsAreReused opens a connection again while the previous one with the same ports is
// closing. Then it pauses for longer than the timeout of the closing one.
func TestPortsAreReused(t *testing.T) {
	for _, closed := range []struct {
		name string
		by   func(h *hosts)
	}{
		{"FIN_WAIT", func(h *hosts) { h.pass(verdict.Inside, h.tcp(verdict.Inside, fin|ack, inISN+1, outISN+1, 0)) }},
		{"CLOSE_WAIT", func(h *hosts) {
			h.pass(verdict.Inside, h.tcp(verdict.Inside, fin|ack, inISN+1, outISN+1, 0))
			h.pass(verdict.Outside, h.tcp(verdict.Outside, ack, outISN+1, inISN+2, 0))
		}},
		{"LAST_ACK", func(h *hosts) {
			h.pass(verdict.Inside, h.tcp(verdict.Inside, fin|ack, inISN+1, outISN+1, 0))
			h.pass(verdict.Outside, h.tcp(verdict.Outside, fin|ack, outISN+1, inISN+2, 0))
		}},
	} {
		t.Run(closed.name, func(t *testing.T) {
			h := &hosts{newWire(t, fromInside()), families[1]}
			h.open()
			closed.by(h)
			const in, out = 5_000_000, 9_000_000
			h.pass(verdict.Inside, h.tcp(verdict.Inside, syn, in, 0, 0))
			h.pass(verdict.Outside, h.tcp(verdict.Outside, syn|ack, out, in+1, 0))
			h.pass(verdict.Inside, h.tcp(verdict.Inside, ack, in+1, out+1, 0))
			h.now += 24 * time.Hour
			h.pass(verdict.Outside, h.tcp(verdict.Outside, ack, out+1, in+1, 100))
		})
	}
}

// TestDeniedStaysDenied adds the originator of a flow to a block list. Packets of the
// responder must not restore the flow.
func TestDeniedStaysDenied(t *testing.T) {
	f := families[0]
	policy := func(blocked ...filter.Range[netip.Addr]) *filter.Policy {
		p := fromInside()
		p.Rules = append([]filter.Rule{
			{Name: "blocked", Action: verdict.Drop, Src: filter.NewAddrSet(blocked...)},
			{Name: "service", Action: verdict.Accept, From: side(verdict.Outside)},
		}, p.Rules...)
		return p
	}
	block := policy(filter.PrefixRange(netip.PrefixFrom(f.out.Addr(), 32)))
	for _, protocol := range []string{"udp", "tcp"} {
		t.Run(protocol, func(t *testing.T) {
			h := &hosts{newWire(t, policy()), f}
			theirs, ours := udp(f.out, f.in), udp(f.in, f.out)
			h.pass(verdict.Outside, theirs)
			if protocol == "tcp" {
				h.pass(verdict.Outside, h.tcp(verdict.Outside, syn, outISN, 0, 0))
				h.pass(verdict.Inside, h.tcp(verdict.Inside, syn|ack, inISN, outISN+1, 0))
				theirs, ours = h.tcp(verdict.Outside, ack, outISN+1, inISN+1, 0), h.tcp(verdict.Inside, ack, inISN+1, outISN+1, 0)
				h.pass(verdict.Outside, theirs)
			}
			reload := func(p *filter.Policy) { h.table = filter.Compile(p, h.table) }
			reload(block)
			for range 20 {
				h.now += 10 * time.Second
				if v := h.judge(verdict.Inside, ours); v.Reason != verdict.FlowDenied {
					t.Errorf("from inside: %v", v)
				}
				if v := h.judge(verdict.Outside, theirs); v.Rule == 0 || h.table.Rule(v.Rule).Name != "blocked" {
					t.Errorf("from outside: %v", v)
				}
			}
			reload(policy())
			h.block(verdict.Inside, ours) // the originator has not sent yet
			h.pass(verdict.Outside, theirs)
			h.pass(verdict.Inside, ours)
		})
	}
}

// TestFragmentsLeaveFlowDenied denies whole packets of a flow's originator. Fragments,
// which the rules accept, must not restore the flow.
func TestFragmentsLeaveFlowDenied(t *testing.T) {
	f := families[0]
	p := fromInside()
	w := newWire(t, p)
	w.pass(verdict.Inside, udp(f.in, f.out))
	whole := *p
	whole.Rules = append([]filter.Rule{{Name: "whole", Action: verdict.Drop, From: side(verdict.Inside), Fragmented: yes(false)}}, p.Rules...)
	w.table = filter.Compile(&whole, w.table)
	d := w.view(verdict.Inside, udp(f.in, f.out))
	d.Fragmented = true
	if v := w.table.Judge(d, w.clock); v.Action != verdict.Accept {
		t.Errorf("fragments: %v", v)
	}
	w.block(verdict.Inside, udp(f.in, f.out))
	w.block(verdict.Outside, udp(f.out, f.in))
}

// TestOlderTableDeniesNothing has a lane judge by the previous table after another lane has
// begun a flow by the new one.
func TestOlderTableDeniesNothing(t *testing.T) {
	f := families[0]
	none := fromInside()
	none.Rules = nil
	w := newWire(t, none)
	older, newer := w.table, filter.Compile(fromInside(), w.table)
	w.table = newer
	w.pass(verdict.Inside, udp(f.in, f.out))
	w.table = older
	w.judge(verdict.Outside, udp(f.out, f.in))
	w.table = newer
	w.pass(verdict.Outside, udp(f.out, f.in))
}

// TestFlowVLANs has a reply with another tag than its request.
func TestFlowVLANs(t *testing.T) {
	f := families[0]
	tagged := func(w *wire, from verdict.Side, frame []byte, id uint16) *packet.View {
		v := w.view(from, frame)
		if id != 0 {
			v.TagCount, v.Tags[0] = 1, packet.Tag{TPID: 0x8100, TCI: id}
		}
		return v
	}
	for _, any := range []bool{false, true} {
		p := fromInside()
		p.AnyVLANs = any
		w := newWire(t, p)
		w.table.Judge(tagged(w, verdict.Inside, udp(f.in, f.out), 5), w.clock)
		for _, id := range []uint16{0, 6} {
			if got := w.table.Judge(tagged(w, verdict.Outside, udp(f.out, f.in), id), w.clock).Action == verdict.Accept; got != any {
				t.Errorf("any %v: a reply in VLAN %d passes: %v", any, id, got)
			}
		}
		other := *p
		other.AnyVLANs = !any
		w.table = filter.Compile(&other, w.table)
		if n := w.table.Flows(); n != 0 {
			t.Errorf("%d flows after flow_vlans changed", n)
		}
	}
}

// TestWrongChecksum sends packets with a wrong checksum, which their receiver ignores.
func TestWrongChecksum(t *testing.T) {
	f := families[0]
	w := newWire(t, fromInside())
	broken := w.view(verdict.Inside, udp(f.in, f.out))
	broken.Verified = false
	broken.Body[6] ^= 1
	w.table.Judge(broken, w.clock)
	if n := w.table.Flows(); n != 0 {
		t.Fatal("a datagram with a wrong checksum begins a flow")
	}
	w.pass(verdict.Inside, udp(f.in, f.out))
	broken = w.view(verdict.Outside, udp(f.out, f.in))
	broken.Verified = false
	if v := w.table.Judge(broken, w.clock); v.Action != verdict.Accept {
		t.Errorf("right checksum: %v", v)
	}
	broken.Body[6] ^= 1
	if v := w.table.Judge(broken, w.clock); v.Reason != verdict.FlowInvalid || v.Action != verdict.Drop {
		t.Errorf("wrong checksum: %v", v)
	}
}

// sctp returns a packet with one chunk.
func sctp(f family, from verdict.Side, tag uint32, kind uint8, contents ...byte) []byte {
	src, dst := f.in, f.out
	if from == verdict.Outside {
		src, dst = dst, src
	}
	b := make([]byte, 12, 64)
	binary.BigEndian.PutUint16(b, src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	binary.BigEndian.PutUint32(b[4:], tag)
	b = append(b, kind, 0, 0, uint8(4+len(contents)))
	return datagramOf(f, from, packet.ProtocolSCTP, append(b, contents...))
}

// TestSCTP opens an association, with foreign packets in between, and closes it.
func TestSCTP(t *testing.T) {
	const ours, theirs = 0x01020304, 0x0a0b0c0d // the tags that each side chose
	init := func(tag uint32) []byte { return append(binary.BigEndian.AppendUint32(nil, tag), make([]byte, 12)...) }
	bothFamilies(t, func(w *wire, f family) {
		in := func(tag uint32, kind uint8, contents ...byte) []byte {
			return sctp(f, verdict.Inside, tag, kind, contents...)
		}
		out := func(tag uint32, kind uint8, contents ...byte) []byte {
			return sctp(f, verdict.Outside, tag, kind, contents...)
		}
		w.pass(verdict.Inside, in(theirs, 0, 1, 2, 3, 4)) // DATA without an association begins no flow
		w.block(verdict.Outside, out(ours, 3, 1, 2, 3, 4))
		w.pass(verdict.Inside, in(0, 1, init(ours)...))
		w.block(verdict.Outside, out(theirs, 2, init(theirs)...)) // not the tag that the inside chose
		w.pass(verdict.Outside, out(ours, 2, init(theirs)...))
		w.pass(verdict.Inside, in(theirs, 10, 1, 2, 3, 4))
		w.pass(verdict.Outside, out(ours, 11))
		w.block(verdict.Outside, out(ours+1, 0, 1, 2, 3, 4))
		w.block(verdict.Outside, out(ours+1, 6)) // an ABORT with a guessed tag
		w.now += 200 * time.Second
		w.pass(verdict.Outside, out(ours, 0, 1, 2, 3, 4))
		w.pass(verdict.Inside, in(theirs, 7, 1, 2, 3, 4))
		w.pass(verdict.Outside, out(ours, 8))
		w.pass(verdict.Inside, in(theirs, 14))
		w.now += 11 * time.Second
		w.block(verdict.Outside, out(ours, 0, 1, 2, 3, 4))
	})
}

// FuzzFlows sends random datagrams of two hosts to a stateful table. Nothing may panic,
// and no datagram from outside that no rule accepts may pass unless the inside sent
// something before.
func FuzzFlows(f *testing.F) {
	f.Add([]byte{0, 6, 20, 0x10, 0x02, 1, 6, 20, 0x12, 0x12})
	f.Add([]byte{0, 132, 32, 1, 0, 1, 132, 32, 2, 0, 0, 17, 8, 0, 8})
	policy := fromInside()
	policy.Stateful = false // avoids the large flow table, which is slow to allocate
	f.Fuzz(func(t *testing.T, script []byte) {
		w := newWire(t, policy)
		filter.LimitFlows(w.table, 1024)
		began := false
		for len(script) >= 5 {
			from, protocol, length := verdict.Side(script[0]&1), script[1], int(script[2])
			body := make([]byte, length)
			copy(body, script[3:])
			p := &packet.Parsed{Kind: packet.IPv4, Src: families[0].in.Addr(), Dst: families[0].out.Addr(), Protocol: protocol}
			if from == verdict.Outside {
				p.Src, p.Dst = p.Dst, p.Src
			}
			switch {
			case packet.HasPorts(protocol):
				p.Transport = packet.Ports
			case protocol == packet.ProtocolICMP && length >= 2:
				p.Transport, p.ICMPType, p.ICMPCode = packet.ICMP, body[0], body[1]
			}
			v := &packet.View{Parsed: p, From: from, Body: body, BodyLength: length, Verified: true}
			if got := w.table.Judge(v, w.clock); got.Action == verdict.Accept && from == verdict.Outside && !began {
				t.Fatalf("%v passes before the inside has sent a datagram", p)
			}
			began = began || from == verdict.Inside
			w.now += time.Duration(script[4]) * time.Second
			script = script[min(len(script), 3+length):]
		}
	})
}
