package integration_test

import (
	"bytes"
	"encoding/binary"
	"slices"

	"fragwall/packet"
)

// The rules by which the box differs from the kernel on purpose, by name.
// [conformance] says more of each.
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

// model is the box as its design has it: slow and plain.
type model struct {
	mode      packet.Mode // reassemble or validate
	waiting   map[modelKey]*modelDatagram
	delivered [][]byte        // in the order of completion
	rules     map[string]bool // that decided
}

type modelKey struct {
	id       uint32
	protocol uint8
}

type modelDatagram struct {
	pieces   []piece // in the order of their offsets
	poisoned bool
}

// run returns what a receiver behind the box must get of a sequence.
func run(mode packet.Mode, s sequence) *model {
	m := &model{mode: mode, waiting: map[modelKey]*modelDatagram{}, rules: map[string]bool{}}
	for i := range s.pieces {
		m.arrive(s.pieces[i])
	}
	return m
}

// arrive takes in a piece.
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
	for _, q := range d.pieces {
		sameBytes := m.mode == packet.ModeValidate || bytes.Equal(q.data, p.data) // that doesn't compare
		if q.offset == p.offset && q.end() == p.end() && sameBytes && q.more == p.more {
			return // a duplicate
		}
	}
	why := d.conflict(&p)
	if why == "" && m.mode == packet.ModeValidate && p.offset == 0 && len(p.data) < leastHeader(p.upperLayer()) {
		why = ruleTiny
	}
	if why != "" {
		m.rules[why] = true
		d.poisoned = true
		return
	}
	d.pieces = append(d.pieces, p)
	slices.SortFunc(d.pieces, func(a, b piece) int { return a.offset - b.offset })
	if d.complete() {
		delete(m.waiting, k)
		m.deliver(d.pieces)
	}
}

// sameAsKernel is of faults for which the kernel drops a piece as well.
const sameAsKernel = ""

// fault says whether something is wrong with a piece on its own, and by which
// rule the box drops it.
func (p *piece) fault() (why string, faulty bool) {
	headers := 20 + len(p.Options)
	if p.Src.Is6() {
		headers = len(p.Before)
	}
	switch {
	case p.corrupt, p.Src.Is6() && p.offset == 0 && !p.more && len(p.data) < len(p.After):
		return sameAsKernel, true
	case p.offset == 0 && !p.more:
		return "", false
	case len(p.data) == 0:
		return ruleEmpty, true
	case p.more && len(p.data)%8 != 0:
		return ruleUnaligned, true
	case headers+p.end() > 65535:
		return ruleTooLong, true
	case p.Src.Is6() && p.offset == 0 && len(p.data) < len(p.After)+leastHeader(p.upperLayer()):
		return sameAsKernel, true // net/ipv6/reassembly.c, ipv6frag_thdr_truncated
	}
	return "", false
}

// upperLayer returns the protocol at the end of a first fragment's chain.
func (p *piece) upperLayer() uint8 {
	if len(p.After) > 0 {
		return p.data[0]
	}
	return p.Protocol
}

func leastHeader(protocol uint8) int {
	return map[uint8]int{packet.ProtocolUDP: 8, packet.ProtocolTCP: 20, 253: 1}[protocol]
}

// conflict says how a piece contradicts those that are there.
func (d *modelDatagram) conflict(p *piece) string {
	for i := range d.pieces {
		q := &d.pieces[i]
		switch {
		case q.offset == p.offset && q.end() == p.end() && q.more != p.more:
			return ruleEnd
		case q.offset == p.offset && q.end() == p.end():
			return ruleConflict
		case !q.more && !p.more && q.end() != p.end():
			return ruleEnd
		case !q.more && p.end() > q.end(), !p.more && q.end() > p.end():
			return ruleBeyond
		case q.offset < p.end() && p.offset < q.end():
			return ruleOverlap
		}
		headers := 20 + len(q.Options)
		if q.Src.Is6() {
			headers = len(q.Before)
		}
		if q.offset == 0 && headers+p.end() > 65535 {
			return ruleTooLong
		}
	}
	return ""
}

func (d *modelDatagram) complete() bool {
	next := 0
	for i := range d.pieces {
		if d.pieces[i].offset != next {
			return false
		}
		next = d.pieces[i].end()
	}
	return !d.pieces[len(d.pieces)-1].more
}

// deliver has the policy judge a whole datagram, and the receiver's IP layer
// take it.
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
	// net/ipv4/inet_fragment.c, ip_frag_ecn_table: a datagram in part capable
	// of ECN and in part not. The receiver drops it, behind the box or not.
	if ecn&1 != 0 && ecn != 1 {
		return
	}
	m.delivered = append(m.delivered, append([]byte{protocol}, payload...))
}
