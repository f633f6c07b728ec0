package flow

import (
	"encoding/binary"

	"fragwall/packet"
)

// TCP flags (RFC 9293 §3.1).
const (
	flagFin = 1 << iota
	flagSyn
	flagRst
	flagPsh
	flagAck
	flagUrg
)

// kind is the input of a segment to the state table, derived from its flags.
type kind uint8

const (
	kindNone kind = iota // no segment was seen, or one without SYN, FIN, RST and ACK
	kindSyn
	kindSynAck
	kindFin
	kindAck
	kindRst
	kinds
)

const tcpHeader = 20 // bytes, without options (RFC 9293 §3.1)

// segment is the decoded header of a TCP segment.
type segment struct {
	seq, ack uint32
	end      uint32 // next sequence number; SYN and FIN count
	window   uint16 // not scaled
	flags    uint8
	kind     kind
	options  []byte
	partial  bool // judged by its first fragment: end is less than it will be
}

// readSegment reads the header of a TCP segment. It returns false for segments that no host
// accepts: with a data offset that does not fit the segment, or with an invalid combination of
// flags (tcp_error in nf_conntrack_proto_tcp.c).
func readSegment(v *packet.View) (s segment, ok bool) {
	b := v.Body
	if len(b) < tcpHeader {
		return s, false
	}
	size := int(b[12]>>4) * 4
	if size < tcpHeader || size > v.BodyLength && !v.Partial() {
		return s, false
	}
	s = segment{
		seq:     binary.BigEndian.Uint32(b[4:]),
		ack:     binary.BigEndian.Uint32(b[8:]),
		window:  binary.BigEndian.Uint16(b[14:]),
		flags:   b[13],
		options: b[tcpHeader:max(tcpHeader, min(size, len(b)))],
		partial: v.Partial(),
	}
	if s.kind, ok = kindOf(s.flags); !ok {
		return s, false
	}
	s.end = s.seq + uint32(max(0, v.BodyLength-size))
	if s.flags&flagSyn != 0 {
		s.end++
	}
	if s.flags&flagFin != 0 {
		s.end++
	}
	return s, true
}

// kindOf returns the kind of a segment with these flags. PSH, ECE and CWR may be set on any
// segment. No host sends a combination other than those listed here.
func kindOf(flags uint8) (kind, bool) {
	switch flags & (flagFin | flagSyn | flagRst | flagAck | flagUrg) {
	case flagSyn, flagSyn | flagUrg:
		return kindSyn, true
	case flagSyn | flagAck:
		return kindSynAck, true
	case flagFin | flagAck, flagFin | flagAck | flagUrg:
		return kindFin, true
	case flagAck, flagAck | flagUrg:
		return kindAck, true
	case flagRst, flagRst | flagAck:
		return kindRst, true
	}
	return kindNone, false
}

// TCP options.
const (
	optionEnd           = 0
	optionNop           = 1
	optionWindowScale   = 3 // RFC 7323 §2
	optionSackPermitted = 4 // RFC 2018 §2
	optionSack          = 5 // RFC 2018 §3
	maxWindowScale      = 14
	sackBlock           = 8 // bytes
)

// eachOption calls do with the kind and the contents of each option, up to one that does not
// fit (RFC 9293 §3.1).
func (s *segment) eachOption(do func(kind uint8, contents []byte)) {
	for b := s.options; len(b) > 0; {
		switch size := 0; {
		case b[0] == optionEnd:
			return
		case b[0] == optionNop:
			b = b[1:]
		case len(b) < 2:
			return
		default:
			if size = int(b[1]); size < 2 || size > len(b) {
				return
			}
			do(b[0], b[2:size])
			b = b[size:]
		}
	}
}

// offers returns what a SYN offers: its sender's window scale, and whether the sender accepts
// selective acknowledgements.
func (s *segment) offers() (scale uint8, flags endFlags) {
	s.eachOption(func(kind uint8, contents []byte) {
		switch {
		case kind == optionWindowScale && len(contents) == 1:
			scale, flags = min(contents[0], maxWindowScale), flags|scales
		case kind == optionSackPermitted && len(contents) == 0:
			flags |= sackPermitted
		}
	})
	return scale, flags
}

// highestAck returns the highest sequence number that the segment acknowledges, selectively or
// not.
func (s *segment) highestAck() uint32 {
	highest := s.ack
	s.eachOption(func(kind uint8, contents []byte) {
		if kind != optionSack || len(contents) == 0 || len(contents)%sackBlock != 0 {
			return
		}
		for ; len(contents) > 0; contents = contents[sackBlock:] {
			if right := binary.BigEndian.Uint32(contents[4:]); after(right, highest) {
				highest = right
			}
		}
	})
	return highest
}

// before and after compare sequence numbers (RFC 9293 §3.4). Of two that are 2^31 apart, each
// is both before and after the other, as in the kernel.
func before(a, b uint32) bool { return int32(a-b) < 0 }
func after(a, b uint32) bool  { return before(b, a) }
