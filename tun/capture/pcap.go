package capture

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// pcap reads a pcap (draft-ietf-opsawg-pcap).
type pcap struct {
	file   *bufio.Reader
	order  binary.ByteOrder
	unit   time.Duration // unit of the fractions of a second
	minor  uint16        // version 2.minor
	fcs    int           // bytes of the frame check sequence at the end of frames
	record [16]byte
	data   []byte
}

// Parts of a pcap's network field.
const (
	linkTypeMask  = 0x03ffffff
	fcsPresent    = 0x04000000
	fcsLengthBits = 28 // the bits above it have the length, in units of 16 bits
)

// Since version 2.3, a record has the captured length and then the length on the wire. Older
// versions have the reverse order. Version 2.3 has both orders.
const lengthsInOrder = 3

// latestMinor is the latest version, 2.4.
const latestMinor = 4

func newPcap(file *bufio.Reader) (*pcap, error) {
	p := &pcap{file: file, order: binary.LittleEndian, unit: time.Microsecond}
	var h [24]byte
	if err := full(file, h[:]); err != nil {
		return nil, err
	}
	switch binary.BigEndian.Uint32(h[:]) {
	case magicMicroseconds, magicNanoseconds:
		p.order = binary.BigEndian
	}
	if p.order.Uint32(h[:]) == magicNanoseconds {
		p.unit = time.Nanosecond
	}
	major := p.order.Uint16(h[4:])
	p.minor = p.order.Uint16(h[6:])
	if major != 2 || p.minor > latestMinor {
		return nil, fmt.Errorf("%w: a pcap of version %d.%d; want 2.0 to 2.4", ErrUnsupported, major, p.minor)
	}
	network := p.order.Uint32(h[20:])
	if network&fcsPresent != 0 && network>>fcsLengthBits != 0 {
		p.fcs = ethernetFCS
	}
	return p, checkLinkType(linkType(network & linkTypeMask))
}

func (p *pcap) interfaces() int { return 1 }

func (p *pcap) next(func(int) bool) (Frame, error) {
	if _, err := io.ReadFull(p.file, p.record[:]); err != nil {
		return Frame{}, err
	}
	seconds, fraction := p.order.Uint32(p.record[:]), p.order.Uint32(p.record[4:])
	captured, length := p.order.Uint32(p.record[8:]), p.order.Uint32(p.record[12:])
	if p.minor < lengthsInOrder || p.minor == lengthsInOrder && captured > length {
		captured, length = length, captured
	}
	if err := checkLength(captured); err != nil {
		return Frame{}, err
	}
	if cap(p.data) < int(captured) {
		p.data = make([]byte, max(captured, 2048))
	}
	data := p.data[:captured]
	if err := full(p.file, data); err != nil {
		return Frame{}, err
	}
	f := finish(data, int(length), p.fcs)
	var err error
	f.Time, err = at(int64(seconds), int64(fraction)*int64(p.unit))
	return f, err
}
