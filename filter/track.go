package filter

import (
	"encoding/binary"
	"net/netip"
	"time"

	"fragwall/packet"
)

// track judges by the flows, and by the rules what belongs to none:
//
//  1. a datagram of a known flow passes, as does an ICMP error about one;
//  2. any other is judged by the rules, and begins a flow if they accept it.
//
// A flow that another table accepted is first judged again, by how it began.
// The rules decide again on what its origin sends where they look at more
// than the flow: at a rate, or at whether a datagram came in fragments.
func (t *Table) track(d *packet.View, clock Clock) Verdict {
	var k flowKey
	if !k.setOf(d) {
		if k.setQuoted(d) {
			return t.related(d, &k, clock)
		}
		v, _ := t.byRules(d, clock)
		return v
	}
	now := clock()
	s, chain := t.flows.shard(&k)
	s.mu.Lock()
	defer s.mu.Unlock()
	i := t.current(s, &k, chain, now)
	if i != nil32 && s.flows[i].reopens(d) {
		s.remove(i)
		i = nil32
	}
	if i == nil32 {
		v, rule := t.byRules(d, clock)
		if state, begins := begin(d); begins && v.Action == Accept {
			f := flow{key: k, generation: t.generation, rule: rule, origin: d.From, state: state, fragmented: d.Fragmented}
			f.advance(d)
			s.add(f, chain, now)
		}
		return v
	}
	f := &s.flows[i]
	v := t.passes(f)
	if d.From == f.origin && (d.Fragmented != f.fragmented || f.rule != none && t.tree.boxes[f.rule].limited) {
		if v, _ = t.byRules(d, clock); v.Action != Accept {
			return v
		}
	} else if f.rule != none {
		t.count(f.rule, d)
	}
	f.advance(d)
	s.touch(i, now)
	return v
}

// passes returns the verdict on what belongs to a flow.
func (t *Table) passes(f *flow) Verdict {
	v := Verdict{Action: Accept, Flow: true}
	if f.rule != none {
		v.Rule = &t.policy.Rules[f.rule]
	}
	return v
}

// current returns the number of a flow that this table accepts, or nil32. One
// that another table accepted is judged again, and removed if it would not
// begin any more.
func (t *Table) current(s *flowShard, k *flowKey, chain uint32, now time.Duration) uint32 {
	i := s.find(k, chain, now)
	if i == nil32 || s.flows[i].generation == t.generation {
		return i
	}
	f := &s.flows[i]
	first := f.first()
	class := t.key(&first)
	rule := t.tree.find(&class, 0)
	action := t.policy.Default
	if rule != none {
		action = t.tree.boxes[rule].action
	}
	if action != Accept {
		s.remove(i)
		return nil32
	}
	f.generation, f.rule = t.generation, rule
	return i
}

// first returns what a flow's first datagram was like, as far as rules look
// at it.
func (f *flow) first() packet.View {
	k := &f.key
	p := &packet.Parsed{
		Kind: packet.IPv6, Src: k.address(k.in), Dst: k.address(k.out), Protocol: uint8(k.ports >> 8),
		SrcPort: uint16(k.ports >> 32), DstPort: uint16(k.ports >> 16), Fragmented: f.fragmented,
	}
	if f.origin == packet.Outside {
		p.Src, p.Dst = p.Dst, p.Src
		p.SrcPort, p.DstPort = p.DstPort, p.SrcPort
	}
	switch {
	case packet.HasPorts(p.Protocol):
		p.Transport = packet.Ports
	case f.state == icmpQuery:
		p.Transport, p.ICMPType = packet.ICMP, uint8(k.ports>>16>>1)
	}
	if p.Src.Is4() {
		p.Kind = packet.IPv4
	}
	for tags := k.tags; tags != 0; tags >>= 16 {
		p.Tags[1] = p.Tags[0]
		p.Tags[0].TCI = uint16(tags & 0xfff)
		p.TagCount++
	}
	return packet.View{Parsed: p, From: f.origin}
}

// related judges an ICMP error by the flow that it is about.
func (t *Table) related(d *packet.View, k *flowKey, clock Clock) Verdict {
	s, chain := t.flows.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	i := t.current(s, k, chain, clock())
	if i == nil32 {
		v, _ := t.byRules(d, clock)
		return v
	}
	f := &s.flows[i]
	if f.rule != none {
		t.count(f.rule, d)
	}
	return t.passes(f)
}

// isError reports whether an ICMP message quotes the packet that it is about:
// destination unreachable, source quench, redirect, time exceeded and
// parameter problem; in IPv6 also packet too big.
func isError(d *packet.View) bool {
	switch {
	case d.Transport != packet.ICMP:
		return false
	case d.Protocol == packet.ProtocolICMPv6:
		return d.ICMPType >= 1 && d.ICMPType <= 4
	}
	switch d.ICMPType {
	case 3, 4, 5, 11, 12:
		return true
	}
	return false
}

// setQuoted makes the key of the flow that an ICMP error is about: of the packet
// that it quotes, which went the other way, and whose source it tells. ok is
// false for what is no such error.
func (k *flowKey) setQuoted(d *packet.View) (ok bool) {
	if !isError(d) || len(d.Body) < icmpHeader {
		return false
	}
	q, ok := readQuote(d.Body[icmpHeader:], d.Kind)
	if !ok || q.src != d.Dst {
		return false
	}
	from := d.From.Other()
	var src, dst uint16
	switch {
	case packet.HasPorts(q.protocol):
		if len(q.upper) < 4 {
			return false
		}
		src, dst = binary.BigEndian.Uint16(q.upper), binary.BigEndian.Uint16(q.upper[2:])
	case d.Kind == packet.IPv4 && q.protocol == packet.ProtocolICMP, d.Kind == packet.IPv6 && q.protocol == packet.ProtocolICMPv6:
		if len(q.upper) < icmpHeader {
			return false
		}
		query, known := queryOf(q.protocol, q.upper[0])
		if !known {
			return false
		}
		src, dst = icmpPorts(from, query, q.upper[0], binary.BigEndian.Uint16(q.upper[4:]))
	}
	k.set(from, q.src, q.dst, src, dst, q.protocol, d.Parsed)
	return true
}

// quote is the beginning of a packet that an ICMP error quotes.
type quote struct {
	src, dst netip.Addr
	protocol uint8
	upper    []byte // as much as is quoted
}

// readQuote reads the beginning of a packet, which need not be whole. It
// reports false for a fragment other than the first, and where the
// upper-layer header is not reached.
func readQuote(b []byte, kind packet.Kind) (q quote, ok bool) {
	if kind == packet.IPv4 {
		if len(b) < 20 || b[0]>>4 != 4 || int(b[0]&0xf)*4 < 20 || int(b[0]&0xf)*4 > len(b) || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
			return q, false
		}
		q.src, q.dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		q.protocol, q.upper = b[9], b[int(b[0]&0xf)*4:]
		return q, true
	}
	if len(b) < 40 || b[0]>>4 != 6 {
		return q, false
	}
	q.src, q.dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	q.protocol, q.upper, ok = packet.UpperLayer(b[40:], b[6])
	return q, ok
}
