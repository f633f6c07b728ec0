package capture

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/bits"
	"time"
)

// pcapng reads a pcapng (draft-ietf-opsawg-pcapng): its sections, interfaces and packets.
// It skips all other blocks, and stores only the interfaces of the current section.
type pcapng struct {
	file    *bufio.Reader
	order   binary.ByteOrder
	section []iface             // the interfaces of the current section
	seen    int                 // the largest number of interfaces in a section
	latest  time.Time           // of a frame
	head    [blockHead + 4]byte // of a block, and a section's byte order
	body    []byte              // of a block
}

// iface is the contents of an interface description block.
type iface struct {
	linkType linkType
	snap     uint32 // longest frame in bytes; 0: no limit
	units    uint64 // units of time per second
	offset   int64  // seconds to add to times
	fcs      uint8  // bytes of the frame check sequence at the end of frames
}

// Types of blocks, and the number that tells the byte order of a section.
const (
	blockInterface = 1
	blockPacket    = 2 // obsolete
	blockSimple    = 3
	blockEnhanced  = 6
	blockSection   = 0x0a0d0d0a

	byteOrderMagic = 0x1a2b3c4d
)

// Sizes of the beginnings of blocks, in bytes.
const (
	blockHead      = 8
	blockTail      = 4
	sectionFields  = 16
	interfaceField = 8
	packetFields   = 20
	simpleFields   = 4
)

// Options of interfaces and packets.
const (
	optionEnd         = 0
	optionPacketFlags = 2
	optionResolution  = 9
	optionFCSLength   = 13
	optionTimeOffset  = 14
)

func newPcapng(file *bufio.Reader) *pcapng {
	return &pcapng{file: file, order: binary.LittleEndian, latest: time.Unix(0, 0).UTC()}
}

func (p *pcapng) interfaces() int { return p.seen }

func (p *pcapng) next(wanted func(int) bool) (Frame, error) {
	for {
		kind, body, err := p.block()
		if err != nil {
			return Frame{}, err
		}
		switch kind {
		case blockSection:
			p.section = p.section[:0]
		case blockInterface:
			err = p.describe(body)
		case blockEnhanced, blockPacket:
			return p.packet(kind, body, wanted)
		case blockSimple:
			return p.simple(body, wanted)
		}
		if err != nil {
			return Frame{}, err
		}
	}
}

// block reads a block. The body is nil if the type of the block is skipped.
func (p *pcapng) block() (kind uint32, body []byte, err error) {
	head := &p.head
	if _, err := io.ReadFull(p.file, head[:blockHead]); err != nil {
		return 0, nil, err
	}
	rest := 0 // bytes of the body that were read with the head
	if p.order.Uint32(head[:]) == blockSection {
		rest = 4
		if err := full(p.file, head[blockHead:]); err != nil {
			return 0, nil, err
		}
		if err := p.setOrder(head[blockHead:]); err != nil {
			return 0, nil, err
		}
	}
	kind = p.order.Uint32(head[:])
	total := p.order.Uint32(head[4:])
	if total < blockHead+blockTail || total > maxBlock || total%4 != 0 {
		return 0, nil, fmt.Errorf("%w: a block of length %d; want a multiple of 4 from 12 to %d", ErrBroken, total, maxBlock)
	}
	size := int(total) - blockHead - blockTail
	if size < rest {
		return 0, nil, fmt.Errorf("%w: a section header of %d bytes", ErrBroken, total)
	}
	switch kind {
	case blockSection, blockInterface, blockPacket, blockSimple, blockEnhanced:
		if cap(p.body) < size {
			p.body = make([]byte, max(size, 4096))
		}
		body = p.body[:size]
		copy(body, head[blockHead:][:rest])
		err = full(p.file, body[rest:])
	default:
		err = p.skip(size)
	}
	if err != nil {
		return 0, nil, err
	}
	if err := full(p.file, head[:blockTail]); err != nil {
		return 0, nil, err
	}
	if again := p.order.Uint32(head[:]); again != total {
		return 0, nil, fmt.Errorf("%w: a block begins with a length of %d bytes and ends with one of %d", ErrBroken, total, again)
	}
	if kind == blockSection {
		err = p.checkVersion(body)
	}
	return kind, body, err
}

func (p *pcapng) skip(size int) error {
	_, err := p.file.Discard(size)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// setOrder sets the byte order of a section.
func (p *pcapng) setOrder(magic []byte) error {
	switch {
	case binary.LittleEndian.Uint32(magic) == byteOrderMagic:
		p.order = binary.LittleEndian
	case binary.BigEndian.Uint32(magic) == byteOrderMagic:
		p.order = binary.BigEndian
	default:
		return fmt.Errorf("%w: a section header has % x for its byte order", ErrBroken, magic)
	}
	return nil
}

// checkVersion checks the version of a section: 1.0, or 1.2, which means the
// same (draft-ietf-opsawg-pcapng §4.1).
func (p *pcapng) checkVersion(body []byte) error {
	if len(body) < sectionFields {
		return fmt.Errorf("%w: a section header of %d bytes", ErrBroken, len(body)+blockHead+blockTail)
	}
	major, minor := p.order.Uint16(body[4:]), p.order.Uint16(body[6:])
	if major != 1 || minor != 0 && minor != 2 {
		return fmt.Errorf("%w: a pcapng of version %d.%d; want 1.0 or 1.2", ErrUnsupported, major, minor)
	}
	return nil
}

// describe adds an interface to the section.
func (p *pcapng) describe(body []byte) error {
	if len(body) < interfaceField {
		return fmt.Errorf("%w: an interface description of %d bytes", ErrBroken, len(body))
	}
	if len(p.section) == maxInterfaces {
		return fmt.Errorf("%w: more than %d interfaces", ErrUnsupported, maxInterfaces)
	}
	i := iface{linkType: linkType(p.order.Uint16(body)), snap: p.order.Uint32(body[4:]), units: 1e6}
	err := p.options(body[interfaceField:], func(code uint16, value []byte) error {
		switch {
		case code == optionResolution && len(value) == 1:
			var err error
			i.units, err = resolution(value[0])
			return err
		case code == optionTimeOffset && len(value) == 8:
			i.offset = int64(p.order.Uint64(value))
		case code == optionResolution, code == optionTimeOffset:
			return fmt.Errorf("%w: option %d has length %d", ErrBroken, code, len(value))
		case code == optionFCSLength && len(value) == 1:
			i.fcs = fcsBytes(value[0])
		}
		return nil
	})
	p.section = append(p.section, i)
	p.seen = max(p.seen, len(p.section))
	return err
}

// resolution returns the number of units per second, which the option has as a negative
// power of 10 or, with the highest bit, of 2.
func resolution(value byte) (uint64, error) {
	exponent := int(value & 0x7f)
	switch {
	case value&0x80 != 0 && exponent < 64:
		return 1 << exponent, nil
	case value&0x80 == 0 && exponent <= 19:
		units := uint64(1)
		for range exponent {
			units *= 10
		}
		return units, nil
	}
	return 0, fmt.Errorf("%w: a time resolution of %#02x", ErrUnsupported, value)
}

// fcsBytes returns the length in bytes of the frame check sequence. The interface's
// option has it in bits, or as some programs write it in bytes.
func fcsBytes(value byte) uint8 {
	if value == 8*ethernetFCS || value == ethernetFCS {
		return ethernetFCS
	}
	return 0
}

// options calls f for each option in b.
func (p *pcapng) options(b []byte, f func(code uint16, value []byte) error) error {
	for len(b) >= 4 {
		code, length := p.order.Uint16(b), int(p.order.Uint16(b[2:]))
		if code == optionEnd && length == 0 {
			return nil
		}
		padded := (length + 3) &^ 3
		if padded > len(b)-4 || code == optionEnd {
			return fmt.Errorf("%w: an option of length %d, but the rest of the block has length %d", ErrBroken, length, len(b)-4)
		}
		if err := f(code, b[4:][:length]); err != nil {
			return err
		}
		b = b[4+padded:]
	}
	return nil
}

// packet returns the frame of an enhanced packet block or of its predecessor. They differ
// in the size of the interface number.
func (p *pcapng) packet(kind uint32, body []byte, wanted func(int) bool) (Frame, error) {
	if len(body) < packetFields {
		return Frame{}, fmt.Errorf("%w: a packet block of %d bytes", ErrBroken, len(body))
	}
	number := p.order.Uint32(body)
	if kind == blockPacket {
		number = uint32(p.order.Uint16(body))
	}
	i, err := p.on(number)
	if err != nil {
		return Frame{}, err
	}
	captured, length := p.order.Uint32(body[12:]), p.order.Uint32(body[16:])
	data, rest, err := split(body[packetFields:], captured)
	if err != nil || !wanted(int(number)) {
		return Frame{Interface: int(number)}, err
	}
	if err := i.check(number); err != nil {
		return Frame{}, err
	}
	direction, fcs := Unknown, int(i.fcs)
	_ = p.options(rest, func(code uint16, value []byte) error { // options after a broken one are ignored
		if code == optionPacketFlags && len(value) == 4 {
			direction, fcs = packetFlags(p.order.Uint32(value), fcs)
		}
		return nil
	})
	f := finish(data, int(length), fcs)
	f.Interface, f.Direction = int(number), direction
	f.Time, err = i.time(uint64(p.order.Uint32(body[4:]))<<32 | uint64(p.order.Uint32(body[8:])))
	p.latest = f.Time
	return f, err
}

// packetFlags reads a packet's option with its direction and the length of its frame
// check sequence in bytes. If that is 0, the interface's length applies.
func packetFlags(flags uint32, fcs int) (Direction, int) {
	if flags>>5&0xf == ethernetFCS {
		fcs = ethernetFCS
	}
	switch d := Direction(flags & 3); d {
	case Inbound, Outbound:
		return d, fcs
	}
	return Unknown, fcs
}

// simple returns the frame of a simple packet block. It belongs to the first interface
// and has no time, so it gets the time of the previous frame.
func (p *pcapng) simple(body []byte, wanted func(int) bool) (Frame, error) {
	if len(body) < simpleFields {
		return Frame{}, fmt.Errorf("%w: a packet block of %d bytes", ErrBroken, len(body))
	}
	i, err := p.on(0)
	if err != nil {
		return Frame{}, err
	}
	length := p.order.Uint32(body)
	captured := length
	if i.snap != 0 {
		captured = min(captured, i.snap)
	}
	data, rest, err := split(body[simpleFields:], captured)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%w: a frame of length %d is followed by data of length %d", ErrBroken, captured, len(rest))
	}
	if err != nil || !wanted(0) {
		return Frame{}, err
	}
	f := finish(data, int(length), int(i.fcs))
	f.Time = p.latest
	return f, i.check(0)
}

// on returns the interface with a number in the current section.
func (p *pcapng) on(number uint32) (*iface, error) {
	if uint64(number) >= uint64(len(p.section)) {
		return nil, fmt.Errorf("%w: a frame of interface %d, but the number of described interfaces is %d", ErrBroken, number, len(p.section))
	}
	return &p.section[number], nil
}

// split returns the data of a packet, and the options after it.
func split(b []byte, captured uint32) (data, rest []byte, err error) {
	if err := checkLength(captured); err != nil {
		return nil, nil, err
	}
	if int(captured) > len(b) {
		return nil, nil, fmt.Errorf("%w: a frame of length %d, but the rest of the block has length %d", ErrBroken, captured, len(b))
	}
	return b[:captured], b[min(len(b), int(captured+3)&^3):], nil
}

// check returns an error if the interface is not Ethernet.
func (i *iface) check(number uint32) error {
	if err := checkLinkType(i.linkType); err != nil {
		return fmt.Errorf("interface %d: %w", number, err)
	}
	return nil
}

// time converts a number of units since 1970 to a time.
func (i *iface) time(units uint64) (time.Time, error) {
	seconds, rest := units/i.units, units%i.units
	// rest*1e9/i.units, in 128 bits
	high, low := bits.Mul64(rest, uint64(time.Second))
	nanoseconds, _ := bits.Div64(high, low, i.units)
	signed := int64(math.MaxInt64)
	if seconds <= math.MaxInt64/2 && i.offset <= math.MaxInt64/2 {
		signed = int64(seconds) + i.offset
	}
	return at(signed, int64(nanoseconds))
}
