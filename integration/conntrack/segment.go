package conntrack

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"fragwall/packet"
)

// TCP flags (RFC 9293 §3.1, RFC 3168).
const (
	flagFin = 1 << iota
	flagSyn
	flagRst
	flagPsh
	flagAck
	flagUrg
	flagEce
	flagCwr
)

// segment is a TCP segment.
type segment struct {
	flags    uint8
	seq, ack uint32
	window   uint16
	urgent   uint16
	options  []byte
	data     int // bytes
	short    int // error of the header length field in bytes
	corrupt  bool
}

// length returns the length of the segment in the sequence space, including SYN and FIN.
func (g *segment) length() uint32 {
	n := uint32(g.data)
	if g.flags&flagSyn != 0 {
		n++
	}
	if g.flags&flagFin != 0 {
		n++
	}
	return n
}

// bytes encodes the segment with its checksum.
func (g *segment) bytes(src, dst netip.AddrPort) []byte {
	options := append([]byte(nil), g.options...)
	for len(options)%4 != 0 {
		options = append(options, optionEnd)
	}
	b := make([]byte, 20, 20+len(options)+g.data)
	binary.BigEndian.PutUint16(b, src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	binary.BigEndian.PutUint32(b[4:], g.seq)
	binary.BigEndian.PutUint32(b[8:], g.ack)
	b[12] = byte((20+len(options)+g.short)/4) << 4
	b[13] = g.flags
	binary.BigEndian.PutUint16(b[14:], g.window)
	binary.BigEndian.PutUint16(b[18:], g.urgent)
	b = append(append(b, options...), make([]byte, g.data)...)
	b = checksum(b, 16, src.Addr(), dst.Addr(), packet.ProtocolTCP)
	if g.corrupt {
		b[16] ^= 0x55
	}
	return b
}

// String describes the segment as tcpdump does, with absolute sequence numbers.
func (g *segment) String() string {
	var b strings.Builder
	for i, letter := range "FSRP.UEW" {
		if g.flags&(1<<i) != 0 {
			b.WriteRune(letter)
		}
	}
	fmt.Fprintf(&b, " seq %d", g.seq)
	if n := g.length(); n > 0 {
		fmt.Fprintf(&b, ":%d", g.seq+n)
	}
	if g.flags&flagAck != 0 || g.ack != 0 {
		fmt.Fprintf(&b, " ack %d", g.ack)
	}
	fmt.Fprintf(&b, " win %d", g.window)
	if len(g.options) > 0 {
		fmt.Fprintf(&b, " options % x", g.options)
	}
	if g.data > 0 {
		fmt.Fprintf(&b, " data %d", g.data)
	}
	if g.short != 0 {
		fmt.Fprintf(&b, " header length wrong by %d", g.short)
	}
	if g.corrupt {
		b.WriteString(" checksum wrong")
	}
	return b.String()
}

// TCP options (RFC 9293 §3.2, RFC 7323, RFC 2018, RFC 2385).
const (
	optionEnd           = 0
	optionNone          = 1
	optionSegmentSize   = 2
	optionScale         = 3
	optionSackPermitted = 4
	optionSack          = 5
	optionTimestamps    = 8
	optionMD5           = 19
)

// sackOption returns a SACK option with the given blocks (RFC 2018 §3).
func sackOption(blocks ...[2]uint32) []byte {
	b := []byte{optionNone, optionNone, optionSack, byte(2 + 8*len(blocks))}
	for _, block := range blocks {
		b = binary.BigEndian.AppendUint32(b, block[0])
		b = binary.BigEndian.AppendUint32(b, block[1])
	}
	return b
}

// timestamps returns a timestamps option with TSval and TSecr (RFC 7323 §3.2).
func timestamps(value, echo uint32) []byte {
	b := []byte{optionNone, optionNone, optionTimestamps, 10}
	b = binary.BigEndian.AppendUint32(b, value)
	return binary.BigEndian.AppendUint32(b, echo)
}

// tcp returns the TCP segment of a step, or nil.
func (s *Step) tcp() []byte {
	p := s.Packet()
	switch {
	case p[0]>>4 == 4 && p[9] == packet.ProtocolTCP:
		return p[20:]
	case p[0]>>4 == 6 && p[6] == packet.ProtocolTCP:
		return p[40:]
	}
	return nil
}

// Sequence returns the sequence number of a TCP segment, or 0 if the step is not TCP.
func (s *Step) Sequence() uint32 {
	if t := s.tcp(); t != nil {
		return binary.BigEndian.Uint32(t[4:])
	}
	return 0
}

// Acknowledges returns the acknowledgment number of a TCP segment. ok is false if the step is not
// TCP or has no ACK.
func (s *Step) Acknowledges() (number uint32, ok bool) {
	t := s.tcp()
	if t == nil || t[13]&flagAck == 0 {
		return 0, false
	}
	return binary.BigEndian.Uint32(t[8:]), true
}

// Synchronizes reports whether the step is a TCP segment with SYN.
func (s *Step) Synchronizes() bool {
	t := s.tcp()
	return t != nil && t[13]&flagSyn != 0
}

// End returns the sequence number that follows a TCP segment, or 0 if the step is not TCP.
func (s *Step) End() uint32 {
	t := s.tcp()
	if t == nil {
		return 0
	}
	n := uint32(len(t) - int(t[12]>>4)*4)
	for _, flag := range []byte{flagSyn, flagFin} {
		if t[13]&flag != 0 {
			n++
		}
	}
	return s.Sequence() + n
}
