package listing

import (
	"encoding/binary"
	"math"
	"net/netip"
)

// decoder reads fields from a batch. If the batch is malformed, broken is set and the rest of
// the batch is discarded.
type decoder struct {
	b      []byte
	broken bool
	texts  map[string]string // texts decoded before, because many flows share them
}

// take returns the next n bytes. If fewer are left, it sets broken and returns at most 256
// zeros.
func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.b, d.broken = nil, true
		return make([]byte, min(n, 1<<8))
	}
	taken := d.b[:n]
	d.b = d.b[n:]
	return taken
}

func (d *decoder) byte() int { return int(d.take(1)[0]) }

func (d *decoder) number(n *uint64) {
	var size int
	*n, size = binary.Uvarint(d.b)
	d.skip(size)
}

func (d *decoder) integer(n *int) {
	long, size := binary.Varint(d.b)
	*n = int(long)
	d.skip(size)
}

// skip drops the bytes of a varint. A size of 0 or less means that the varint is malformed.
func (d *decoder) skip(size int) {
	if size <= 0 {
		d.b, d.broken = nil, true
		return
	}
	d.b = d.b[size:]
}

func (d *decoder) seconds(s *float64) {
	*s = math.Float64frombits(binary.BigEndian.Uint64(d.take(8)))
}

func (d *decoder) address(a *netip.Addr) {
	var ok bool
	*a, ok = netip.AddrFromSlice(d.take(d.byte()))
	d.broken = d.broken || !ok
}

// maxTexts is the maximum number of cached texts.
const maxTexts = 10_000

func (d *decoder) text(s *string) {
	var length uint64
	d.number(&length)
	if length > uint64(len(d.b)) {
		d.b, d.broken = nil, true
		length = 0
	}
	b := d.take(int(length))
	if known, ok := d.texts[string(b)]; ok {
		*s = known
		return
	}
	*s = string(b)
	if d.texts == nil || len(d.texts) == maxTexts {
		d.texts = make(map[string]string)
	}
	d.texts[*s] = *s
}

func (d *decoder) small(n **uint8) {
	*n = nil
	if d.byte() != 0 {
		*n = number8(uint8(d.byte()))
	}
}

func (d *decoder) short(n **uint16) {
	*n = nil
	if d.byte() != 0 {
		*n = number16(binary.BigEndian.Uint16(d.take(2)))
	}
}

func (d *decoder) flag(f *bool) { *f = d.byte() != 0 }

func (d *decoder) list(l *[]uint16) {
	*l = nil
	for range d.byte() {
		*l = append(*l, binary.BigEndian.Uint16(d.take(2)))
	}
}
