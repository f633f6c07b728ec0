package flow

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// exchanges drives a table as hosts on both sides do.
type exchanges struct {
	testing.TB
	table *Table
	now   time.Duration
}

// host returns a host of one of many /24 networks.
func host(network uint32, number byte) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(1 + network>>16), byte(network >> 8), byte(network), number})
}

var server = netip.MustParseAddr("198.18.0.1")

// view returns a datagram between a client outside and the server.
func view(from verdict.Side, client netip.Addr, port uint16, protocol uint8, body []byte) *packet.View {
	p := &packet.Parsed{Kind: packet.IPv4, Src: client, Dst: server, SrcPort: port, DstPort: 53, Protocol: protocol, Transport: packet.Ports}
	if from == verdict.Inside {
		p.Src, p.Dst, p.SrcPort, p.DstPort = p.Dst, p.Src, p.DstPort, p.SrcPort
	}
	return &packet.View{Parsed: p, From: from, Body: body, BodyLength: len(body), Verified: true}
}

var emptyUDP = []byte{0, 0, 0, 0, 0, 8, 0, 0}

func (e *exchanges) udp(from verdict.Side, client netip.Addr, port uint16) bool {
	return e.see(view(from, client, port, packet.ProtocolUDP, emptyUDP))
}

// see passes a datagram to the table, and reports whether it belongs to a flow. If it comes
// from outside, it may begin one.
func (e *exchanges) see(v *packet.View) bool {
	var a Access
	if e.table.Open(&a, v, e.now) == Unrelated {
		return false
	}
	defer a.Close()
	if a.Flow() != nil && a.Take(v) {
		return true
	}
	if a.Flow() == nil && v.From == verdict.Outside {
		a.Begin(v, false, 0, 0)
	}
	return false
}

// tcp passes a segment to the table, from a client outside or from the server. Their sequence
// numbers begin at 100 and 200.
func (e *exchanges) tcp(from verdict.Side, client netip.Addr, flags uint8, seq, ack uint32) bool {
	b := make([]byte, tcpHeader)
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], ack)
	b[12], b[13] = tcpHeader<<2, flags
	binary.BigEndian.PutUint16(b[14:], 1000)
	return e.see(view(from, client, 7, packet.ProtocolTCP, b))
}

func (e *exchanges) connect(client netip.Addr) {
	e.tcp(verdict.Outside, client, flagSyn, 100, 0)
	e.tcp(verdict.Inside, client, flagSyn|flagAck, 200, 101)
	e.tcp(verdict.Outside, client, flagAck, 101, 201)
}

// alive reports whether the next segment of the server would pass.
func (e *exchanges) alive(client netip.Addr) bool {
	return e.tcp(verdict.Inside, client, flagAck, 201, 101)
}

const smallTable = shards * 256

// TestFloodsSpareOpenFlows has hosts of one network exchange datagrams and then stop. Then
// spoofed sources send enough to fill the table many times.
func TestFloodsSpareOpenFlows(t *testing.T) {
	const honest = 200
	floods := []struct {
		name string
		send func(e *exchanges, source netip.Addr)
	}{
		{"one datagram each", func(e *exchanges, source netip.Addr) { e.udp(verdict.Outside, source, 9) }},
		{"answered", func(e *exchanges, source netip.Addr) {
			e.udp(verdict.Outside, source, 9)
			e.udp(verdict.Inside, source, 9)
		}},
		{"two datagrams each, answered", func(e *exchanges, source netip.Addr) {
			e.udp(verdict.Outside, source, 9)
			e.udp(verdict.Inside, source, 9)
			e.udp(verdict.Outside, source, 9)
		}},
		{"SYN, answered", func(e *exchanges, source netip.Addr) {
			e.tcp(verdict.Outside, source, flagSyn, 100, 0)
			e.tcp(verdict.Inside, source, flagSyn|flagAck, 200, 101)
		}},
	}
	for _, flood := range floods {
		t.Run(flood.name, func(t *testing.T) {
			e := &exchanges{TB: t, table: New(Options{Limit: smallTable})}
			for i := range byte(honest) {
				e.udp(verdict.Outside, host(0, i), 1)
				e.udp(verdict.Inside, host(0, i), 1)
				e.connect(host(1, i))
			}
			e.now += 5 * time.Second
			for i := range uint32(10 * smallTable) {
				flood.send(e, host(1000+i, 1))
				e.now += time.Microsecond
				if i%1000 == 0 { // a new flow gets its reply during the flood
					client := host(2, byte(i))
					e.udp(verdict.Outside, client, uint16(i/256))
					if !e.udp(verdict.Inside, client, uint16(i/256)) {
						t.Fatalf("after %d: a new flow was evicted before its reply", i)
					}
				}
			}
			if n := e.table.Len(); n > smallTable {
				t.Errorf("%d flows, limit %d", n, smallTable)
			}
			for i := range byte(honest) {
				if !e.udp(verdict.Inside, host(0, i), 1) {
					t.Fatalf("idle UDP flow %d was evicted", i)
				}
				if !e.alive(host(1, i)) {
					t.Fatalf("idle connection %d was evicted", i)
				}
			}
		})
	}
}

// TestFloodsSpareDeniedFlows denies open flows, whose hosts continue to send, and floods the
// table from spoofed sources. The table must not forget that the flows are denied.
func TestFloodsSpareDeniedFlows(t *testing.T) {
	e := &exchanges{TB: t, table: New(Options{Limit: smallTable})}
	udp, tcp := host(0, 1), host(0, 2)
	e.udp(verdict.Outside, udp, 7)
	e.udp(verdict.Inside, udp, 7)
	e.connect(tcp)
	known := func(client netip.Addr, protocol uint8, then func(*Access)) {
		var a Access
		e.table.Open(&a, view(verdict.Outside, client, 7, protocol, emptyUDP), e.now)
		defer a.Close()
		if a.Flow() == nil {
			t.Fatalf("the flow of protocol %d was evicted", protocol)
		}
		then(&a)
	}
	deny := func(a *Access) {
		a.Flow().Denied = true
		a.Touch()
	}
	known(udp, packet.ProtocolUDP, deny)
	known(tcp, packet.ProtocolTCP, deny)
	for i := range uint32(10 * smallTable) {
		e.udp(verdict.Outside, host(1000+i, 1), 9)
		e.udp(verdict.Inside, host(1000+i, 1), 9)
		e.now += time.Microsecond
	}
	stillDenied := func(a *Access) {
		if !a.Flow().Denied {
			t.Error("the flow is not denied")
		}
	}
	known(udp, packet.ProtocolUDP, stillDenied)
	known(tcp, packet.ProtocolTCP, stillDenied)
}

// TestSourceEvictsItsOwnFlows has one network open more connections than fit the table, before
// and after other networks do.
func TestSourceEvictsItsOwnFlows(t *testing.T) {
	e := &exchanges{TB: t, table: New(Options{Limit: smallTable})}
	many := func(i int) netip.Addr {
		return netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})
	}
	open := func(i int) {
		client := many(i)
		for _, s := range []struct {
			from     verdict.Side
			flags    uint8
			seq, ack uint32
		}{{verdict.Outside, flagSyn, 100, 0}, {verdict.Inside, flagSyn | flagAck, 200, 101}, {verdict.Outside, flagAck, 101, 201}} {
			b := make([]byte, tcpHeader)
			binary.BigEndian.PutUint32(b[4:], s.seq)
			binary.BigEndian.PutUint32(b[8:], s.ack)
			b[12], b[13] = tcpHeader<<2, s.flags
			e.see(view(s.from, client, uint16(i>>8), packet.ProtocolTCP, b))
		}
	}
	for i := range 2 * smallTable {
		open(i)
	}
	for i := range byte(200) {
		e.connect(host(uint32(i), 1))
	}
	for i := range 2 * smallTable {
		open(2*smallTable + i)
	}
	for i := range byte(200) {
		if !e.alive(host(uint32(i), 1)) {
			t.Fatalf("connection %d was evicted for a network that has nearly all flows", i)
		}
	}
}

// TestOrderIsConsistent does random operations on a small table and checks its lists.
func TestOrderIsConsistent(t *testing.T) {
	g := rand.New(rand.NewPCG(1, 2))
	e := &exchanges{TB: t, table: New(Options{Limit: shards * 16})}
	for step := range 200_000 {
		client := host(uint32(g.IntN(40)), byte(g.IntN(60)))
		switch g.IntN(12) {
		case 0, 1, 2:
			e.udp(verdict.Outside, client, uint16(g.IntN(3)))
		case 3, 4:
			e.udp(verdict.Inside, client, uint16(g.IntN(3)))
		case 5, 6:
			e.connect(client)
		case 7:
			e.tcp(verdict.Side(g.IntN(2)), client, flagRst|flagAck, 101, 201)
		case 8:
			e.tcp(verdict.Side(g.IntN(2)), client, flagFin|flagAck, uint32(101+g.IntN(101)), uint32(101+g.IntN(101)))
		case 9:
			e.now += time.Duration(g.IntN(1000)) * time.Millisecond
		case 10:
			v := view(verdict.Outside, client, 7, packet.ProtocolTCP, nil)
			var a Access
			if e.table.Open(&a, v, e.now); a.Flow() != nil {
				a.Flow().Denied = g.IntN(2) == 0
				a.Touch()
				a.Close()
			} else {
				a.Close()
			}
		case 11:
			e.table.Expire(e.now, 1+g.IntN(100))
		}
		if step%500 == 0 {
			for i := range e.table.shards {
				e.table.shards[i].check(t)
			}
		}
	}
	e.now += 6 * 24 * time.Hour
	e.table.Expire(e.now, 1)
	if n := e.table.Len(); n != 0 {
		t.Errorf("%d flows remain after all timeouts", n)
	}
	for i := range e.table.shards {
		e.table.shards[i].check(t)
	}
}

// check compares all that a shard records about its flows with the flows.
func (s *shard) check(t *testing.T) {
	t.Helper()
	type group struct {
		prefix uint64
		class  class
	}
	inUse, perClass, perSource := 0, [classes]int{}, map[group]int{}
	for i := range s.flows {
		if f := &s.flows[i]; f.source != none {
			inUse++
			perClass[f.class]++
			perSource[group{f.sourcePrefix(), f.class}]++
		}
	}
	if inUse != s.used || s.used > s.limit {
		t.Fatalf("%d flows, %d counted, limit %d", inUse, s.used, s.limit)
	}
	for c := range s.class {
		n, before := 0, uint32(none)
		for i := s.class[c].oldest; i != none; i = s.flows[i].neighbors[ofClass].newer {
			if s.flows[i].neighbors[ofClass].older != before || s.flows[i].class != class(c) {
				t.Fatalf("class %d: broken list at flow %d", c, i)
			}
			before = i
			n++
		}
		if n != perClass[c] || n != s.class[c].count || s.class[c].newest != before {
			t.Fatalf("class %d: %d in the list, %d counted, %d flows", c, n, s.class[c].count, perClass[c])
		}
	}
	if kept := perClass[answered] + perClass[handshaken]; kept > s.limit-s.order.reserve {
		t.Fatalf("%d flows in the higher classes leave less than the reserve of %d", kept, s.order.reserve)
	}
	seen := map[group]bool{}
	for i := range s.sources {
		f := &s.sources[i]
		if f.count == 0 {
			continue
		}
		g := group{f.prefix, f.class}
		n := uint32(0)
		for j := f.oldest; j != none; j = s.flows[j].neighbors[ofSource].newer {
			if s.flows[j].source != uint32(i) {
				t.Fatalf("flow %d in the list of source %d has source %d", j, i, s.flows[j].source)
			}
			n++
		}
		if seen[g] || n != f.count || int(n) != perSource[g] {
			t.Fatalf("source %+v: %d in the list, %d counted, %d flows", g, n, f.count, perSource[g])
		}
		seen[g] = true
	}
	if len(seen) != len(perSource) {
		t.Fatalf("%d sources, want %d", len(seen), len(perSource))
	}
	for c := range s.heavy {
		for _, i := range s.heavy[c] {
			if f := s.sources[i]; f.count <= s.share || f.class != class(c) {
				t.Fatalf("a source with %d flows counts as heavy", f.count)
			}
		}
	}
	chained := 0
	for c := range s.chains {
		for i := s.chains[c]; i != none; i = s.flows[i].next {
			chained++
		}
	}
	if chained != inUse {
		t.Fatalf("%d flows in chains, want %d", chained, inUse)
	}
}
