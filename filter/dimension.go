package filter

import (
	"cmp"
	"encoding/binary"
	"math"

	"fragwall/packet/verdict"
)

// The dimensions in which rules match datagrams.
const (
	dimSrc = iota
	dimDst
	dimFirst  // the source port, or the ICMP type
	dimSecond // the destination port, or the ICMP code
	dimProtocol
	dimVLAN
	dimOrigin // the side, and whether the datagram arrived in fragments
	dimensions
)

// key is a datagram's class in each dimension. The last element is 0.
type key [dimensions + 1]uint32

// A datagram has either ports or ICMP fields, so they share two dimensions: ports have
// values from 0, ICMP types and codes from fieldICMP.
const (
	fieldNone           = math.MaxUint16 + 1 + iota // the protocol has no such fields
	fieldTruncatedPorts                             // the protocol has ports, but the datagram is too short
	fieldTruncatedICMP                              // the protocol has a type and a code, but the datagram is too short
	fieldICMP
	fields = fieldICMP + math.MaxUint8 + 1
)

const vlans = 4096 // 0 is untagged

// originOf returns a value of [dimOrigin].
func originOf(from verdict.Side, fragmented bool) uint32 {
	o := uint32(from) * 2
	if fragmented {
		o++
	}
	return o
}

const origins = verdict.Sides * 2

// numberDomain is the numbers from 0 to size-1.
func numberDomain(size uint32) domain[uint32] {
	return domain[uint32]{
		compare: cmp.Compare[uint32],
		after:   func(n uint32) (uint32, bool) { return n + 1, n+1 < size },
		key: func(b []byte, r Range[uint32]) []byte {
			return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, r.Lo), r.Hi)
		},
		origin: []uint32{0},
	}
}

// index returns the class of each number.
func index(p *partition[uint32], size uint32) []uint32 {
	classes := make([]uint32, size)
	for i, start := range p.starts {
		end := size
		if i+1 < len(p.starts) {
			end = p.starts[i+1]
		}
		for n := start; n < end; n++ {
			classes[n] = p.class[i]
		}
	}
	return classes
}

// shifted returns a set's numbers with an offset added. A nil set gives all numbers from
// 0 to last.
func shifted[T ~uint8 | ~uint16](s Set[T], last, offset uint32) []Range[uint32] {
	if s == nil {
		return []Range[uint32]{{offset, offset + last}}
	}
	ranges := make([]Range[uint32], len(s), len(s)+1)
	for i, r := range s {
		ranges[i] = Range[uint32]{uint32(r.Lo) + offset, uint32(r.Hi) + offset}
	}
	return ranges
}

// fields returns the rule's sets in [dimFirst] and [dimSecond], nil for everything. A
// rule that needs a field also matches datagrams that are too short for it: see
// [Table.Judge].
func (r *Rule) fields() (first, second []Range[uint32]) {
	truncated := func(at uint32) Range[uint32] { return Range[uint32]{at, at} }
	ports, icmp := r.needsPorts(), r.needsICMP()
	switch {
	case ports && icmp:
		return []Range[uint32]{}, []Range[uint32]{}
	case ports:
		first = append(shifted(r.SrcPorts, math.MaxUint16, 0), truncated(fieldTruncatedPorts))
		second = append(shifted(r.DstPorts, math.MaxUint16, 0), truncated(fieldTruncatedPorts))
	case icmp:
		first = append([]Range[uint32]{truncated(fieldTruncatedICMP)}, shifted(r.ICMPTypes, math.MaxUint8, fieldICMP)...)
		second = append([]Range[uint32]{truncated(fieldTruncatedICMP)}, shifted(r.ICMPCodes, math.MaxUint8, fieldICMP)...)
	}
	return first, second
}

func (r *Rule) needsPorts() bool { return r.SrcPorts != nil || r.DstPorts != nil }
func (r *Rule) needsICMP() bool  { return r.ICMPTypes != nil || r.ICMPCodes != nil }

// protocols returns the rule's set in [dimProtocol].
func (r *Rule) protocols() []Range[uint32] {
	if r.Protocols == nil {
		return nil
	}
	return shifted(r.Protocols, math.MaxUint8, 0)
}

// tags returns the rule's set in [dimVLAN].
func (r *Rule) tags() []Range[uint32] {
	if r.VLANs == nil {
		return nil
	}
	ranges := []Range[uint32]{}
	if r.VLANs.Untagged {
		ranges = append(ranges, Range[uint32]{0, 0})
	}
	if r.VLANs.IDs == nil {
		return append(ranges, Range[uint32]{1, vlans - 1})
	}
	for _, ids := range r.VLANs.IDs {
		if lo, hi := max(uint32(ids.Lo), 1), min(uint32(ids.Hi), vlans-1); lo <= hi {
			ranges = append(ranges, Range[uint32]{lo, hi})
		}
	}
	return ranges
}

// origins returns the rule's set in [dimOrigin].
func (r *Rule) origins() []Range[uint32] {
	if r.From == nil && r.Fragmented == nil {
		return nil
	}
	var ranges []Range[uint32]
	for side := range verdict.Side(verdict.Sides) {
		for _, fragmented := range []bool{false, true} {
			if (r.From == nil || *r.From == side) && (r.Fragmented == nil || *r.Fragmented == fragmented) {
				o := originOf(side, fragmented)
				ranges = append(ranges, Range[uint32]{o, o})
			}
		}
	}
	return ranges
}
