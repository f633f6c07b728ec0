package listing

import (
	"encoding/binary"
	"errors"
	"math"
	"net/netip"
)

// Flows are sent over the control socket in a binary encoding that is cheap for the box: the
// fields of each flow in order, without names. Integers are varints or big-endian.

// coder visits the fields of a record in order, to write or to read them.
type coder interface {
	number(*uint64)
	seconds(*float64)
	text(*string)
	address(*netip.Addr)
	small(**uint8)
	short(**uint16)
	flag(*bool)
	integer(*int)
	list(*[]uint16)
}

// code visits all fields of a flow.
func (r *Flow) code(c coder) {
	c.text(&r.From)
	c.list(&r.VLANs)
	c.text(&r.Protocol)
	c.address(&r.Src)
	c.short(&r.SrcPort)
	c.address(&r.Dst)
	c.short(&r.DstPort)
	c.small(&r.ICMPType)
	c.small(&r.ICMPCode)
	c.short(&r.ICMPID)
	c.text(&r.State)
	c.flag(&r.Replied)
	c.flag(&r.Assured)
	c.flag(&r.Denied)
	c.seconds(&r.Age)
	c.seconds(&r.Idle)
	c.seconds(&r.Expires)
	c.number(&r.OriginalPackets)
	c.number(&r.OriginalBytes)
	c.number(&r.ReplyPackets)
	c.number(&r.ReplyBytes)
	c.text(&r.Rule)
	c.integer(&r.Line)
	c.flag(&r.FastPath)
}

// batchSize is the size in bytes at which a batch of flows is sent.
const batchSize = 32 << 10

// Batch collects flows and sends many at once.
type Batch struct {
	Send    func([]byte) error
	encoder encoder
}

// Add adds a flow.
func (b *Batch) Add(f *Flow) error {
	f.code(&b.encoder)
	if len(b.encoder.b) < batchSize {
		return nil
	}
	return b.Flush()
}

// Flush sends what is left.
func (b *Batch) Flush() (err error) {
	if len(b.encoder.b) > 0 {
		err = b.Send(b.encoder.b)
	}
	b.encoder.b = b.encoder.b[:0]
	return err
}

// Reader decodes batches.
type Reader struct {
	decoder decoder
	flow    Flow
}

// errBatch is the error for a batch that cannot be decoded.
var errBatch = errors.New("not an answer from this version of fragwall")

// Read calls yield with each flow of a batch. The flow is valid until yield returns.
func (r *Reader) Read(batch []byte, yield func(*Flow) error) error {
	d := &r.decoder
	for d.b = batch; len(d.b) > 0; {
		r.flow.code(d)
		if d.broken {
			return errBatch
		}
		if err := yield(&r.flow); err != nil {
			return err
		}
	}
	return nil
}

// encoder appends fields.
type encoder struct{ b []byte }

func (e *encoder) number(n *uint64)   { e.b = binary.AppendUvarint(e.b, *n) }
func (e *encoder) seconds(s *float64) { e.b = binary.BigEndian.AppendUint64(e.b, math.Float64bits(*s)) }

func (e *encoder) address(a *netip.Addr) {
	e.b = append(e.b, byte(a.BitLen()/8))
	e.b, _ = a.AppendBinary(e.b) // never fails
}

func (e *encoder) text(s *string) {
	e.b = binary.AppendUvarint(e.b, uint64(len(*s)))
	e.b = append(e.b, *s...)
}

func (e *encoder) small(n **uint8) {
	if *n == nil {
		e.b = append(e.b, 0)
		return
	}
	e.b = append(e.b, 1, **n)
}

func (e *encoder) short(n **uint16) {
	if *n == nil {
		e.b = append(e.b, 0)
		return
	}
	e.b = binary.BigEndian.AppendUint16(append(e.b, 1), **n)
}

func (e *encoder) flag(f *bool) {
	if *f {
		e.b = append(e.b, 1)
		return
	}
	e.b = append(e.b, 0)
}

func (e *encoder) integer(n *int) { e.b = binary.AppendVarint(e.b, int64(*n)) }

func (e *encoder) list(l *[]uint16) {
	e.b = append(e.b, byte(len(*l)))
	for _, n := range *l {
		e.b = binary.BigEndian.AppendUint16(e.b, n)
	}
}
