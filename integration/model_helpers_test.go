package integration_test

import (
	"encoding/binary"
	"slices"

	"fragwall/packet"
	"fragwall/packet/packettest/reassembly"
	"fragwall/packet/verdict"
)

// Names of the rules for intended differences between the box and the kernel. [conformance] describes
// each rule.
const (
	ruleOverlap   = "overlap"
	ruleConflict  = "other bytes"
	ruleEnd       = "second end"
	ruleBeyond    = "beyond the end"
	ruleUnaligned = "odd length"
	ruleEmpty     = "empty"
	ruleTooLong   = "too long"
	ruleTruncated = "no ports"
	ruleDenied    = "denied"
	ruleTiny      = "tiny first"
)

// model is a slow and simple model of the box with the policy oraclePolicy.
type model struct {
	mode      packet.Mode // reassemble or validate
	waiting   map[modelKey]*modelDatagram
	delivered [][]byte        // protocol and payload, in the order of completion
	rules     map[string]bool // names of the rules that applied
}

type modelKey struct {
	id       uint32
	protocol uint8
}

type modelDatagram struct {
	reassembly.Datagram
	pieces   []piece // in the order in which they arrived
	poisoned bool
}

// run passes a sequence to a new model. A receiver behind the box must get the datagrams that the
// model delivers.
func run(mode packet.Mode, s sequence) *model {
	m := &model{mode: mode, waiting: map[modelKey]*modelDatagram{}, rules: map[string]bool{}}
	for i := range s.pieces {
		m.arrive(s.pieces[i])
	}
	return m
}

// arrive processes a piece that arrives at the box.
func (m *model) arrive(p piece) {
	if why, faulty := p.fault(); faulty {
		if why != sameAsKernel {
			m.rules[why] = true
		}
		return
	}
	if p.offset == 0 && !p.more {
		m.deliver([]piece{p})
		return
	}
	k := modelKey{id: p.ID}
	if p.Src.Is4() {
		k.protocol = p.Protocol
	}
	d := m.waiting[k]
	if d == nil {
		d = &modelDatagram{}
		m.waiting[k] = d
	}
	if d.poisoned {
		return
	}
	n := p.fragment()
	objection := d.Objection(n, m.mode == packet.ModeReassemble) // validate does not compare bytes
	if objection == verdict.FragmentDuplicate {
		return
	}
	why := objections[objection]
	if why == "" && m.mode == packet.ModeValidate && p.offset == 0 && len(p.data) < minHeader(p.upperLayer()) {
		why = ruleTiny
	}
	if why != "" {
		m.rules[why] = true
		d.poisoned = true
		return
	}
	d.Add(n)
	d.pieces = append(d.pieces, p)
	if d.Whole() != nil {
		delete(m.waiting, k)
		slices.SortFunc(d.pieces, func(a, b piece) int { return a.offset - b.offset })
		m.deliver(d.pieces)
	}
}

// objections maps contradictions between a piece and earlier ones to rules.
var objections = map[verdict.Reason]string{
	verdict.FragmentConflictingEnd: ruleEnd,
	verdict.FragmentBeyondEnd:      ruleBeyond,
	verdict.FragmentConflict:       ruleConflict,
	verdict.FragmentOverlap:        ruleOverlap,
	verdict.FragmentTooLong:        ruleTooLong,
}

// headers returns the number of header bytes that count towards the limit of 65,535.
func (p *piece) headers() int {
	if p.Src.Is6() {
		return len(p.Before)
	}
	return 20 + len(p.Options)
}

// fragment converts the piece to a fragment of package reassembly.
func (p *piece) fragment() reassembly.Fragment {
	return reassembly.Fragment{Start: p.offset, End: p.end(), More: p.more, Data: p.data, Headers: p.headers()}
}

// sameAsKernel marks faults because of which the kernel, too, drops a piece.
const sameAsKernel = ""

// fault reports whether the box drops a piece regardless of other pieces, and returns the rule.
func (p *piece) fault() (why string, faulty bool) {
	switch {
	case p.corrupt, p.Src.Is6() && p.offset == 0 && !p.more && len(p.data) < len(p.After):
		return sameAsKernel, true
	case p.offset == 0 && !p.more:
		return "", false
	case len(p.data) == 0:
		return ruleEmpty, true
	case p.more && len(p.data)%8 != 0:
		return ruleUnaligned, true
	case p.headers()+p.end() > 65535:
		return ruleTooLong, true
	case p.Src.Is6() && p.offset == 0 && len(p.data) < len(p.After)+minHeader(p.upperLayer()):
		return sameAsKernel, true // net/ipv6/reassembly.c, ipv6frag_thdr_truncated
	}
	return "", false
}

// upperLayer returns the protocol at the end of a first fragment's header chain.
func (p *piece) upperLayer() uint8 {
	if len(p.After) > 0 {
		return p.data[0]
	}
	return p.Protocol
}

// minHeader returns the minimum length of a protocol's header.
func minHeader(protocol uint8) int {
	return map[uint8]int{packet.ProtocolUDP: 8, packet.ProtocolTCP: 20, 253: 1}[protocol]
}

// deliver applies the policy to a complete datagram, and passes it to the receiver's IP layer.
func (m *model) deliver(pieces []piece) {
	var whole []byte
	var ecn uint8
	for _, p := range pieces {
		whole = append(whole, p.data...)
		ecn |= 1 << (p.tos & 3)
	}
	first := pieces[0]
	protocol := first.upperLayer()
	payload := whole[len(first.After):]
	if protocol != 253 && len(payload) < 4 {
		m.rules[ruleTruncated] = true
		return
	}
	if protocol != 253 && binary.BigEndian.Uint16(payload[2:]) == deniedPort {
		m.rules[ruleDenied] = true
		return
	}
	// If some fragments are ECN-capable and others are not, the receiver drops the datagram,
	// whether it is behind the box or not (net/ipv4/inet_fragment.c, ip_frag_ecn_table).
	if ecn&1 != 0 && ecn != 1 {
		return
	}
	m.delivered = append(m.delivered, append([]byte{protocol}, payload...))
}
