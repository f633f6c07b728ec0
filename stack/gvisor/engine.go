package gvisor

import (
	"fmt"
	"math"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// pieceSize is the maximum number of bytes of adjacent fragments that are passed to gVisor as
// one piece. For each piece, gVisor searches all pieces that it holds
// (pkg/tcpip/network/internal/fragmentation, reassembler.process). A datagram in fragments of 8
// bytes would otherwise take 8,192² steps. With pieces there are at most nine.
const pieceSize = 16 << 10

// Engine reassembles datagrams with gVisor's reassembly code, which is the same for IPv4 and
// IPv6. It passes no packet of the wire to gVisor, only payloads: those of all fragments of a
// datagram in one go, once they have all arrived. So gVisor holds nothing of any datagram
// between two calls. An Engine is not safe for concurrent use.
type Engine struct {
	fragmentation *fragmentation
}

// Identifications under which gVisor receives fragments.
const (
	idDatagram = iota // of every datagram
	idKept            // of a fragment that gVisor always holds, see [Engine.open]
)

// fragmentUnit is the unit of fragment offsets in bytes. The length of each fragment except the
// last is a multiple of it (RFC 791 §3.2, RFC 8200 §4.5).
const fragmentUnit = 8

// NewEngine returns an engine. [Engine.Close] frees it.
func NewEngine() *Engine {
	e := &Engine{}
	e.open()
	return e
}

// open panics if gVisor refuses a valid fragment: that is a bug in the program, whatever the
// input.
func (e *Engine) open() {
	e.fragmentation = newFragmentation(fragmentUnit, math.MaxInt, math.MaxInt, time.Hour, frozenClock{}, nil)
	// Without a kept fragment, gVisor would start a timer for each first fragment that it
	// receives.
	if _, err := e.feed(idKept, 0, true, buffer.NewViewSize(fragmentUnit)); err != nil {
		panic(fmt.Sprintf("gvisor: hold a fragment: %v", err))
	}
}

// Close frees all that gVisor holds.
func (e *Engine) Close() { release(e.fragmentation) }

// Reassemble passes the fragments of a datagram, in the order of their offsets, to gVisor. It
// returns false unless gVisor considers the datagram complete exactly at the last fragment.
func (e *Engine) Reassemble(fragments []Fragment) (w Whole, ok bool) {
	for len(fragments) > 0 {
		n, size := nextPiece(fragments)
		whole, err := e.feed(idDatagram, fragments[0].Start, fragments[n-1].More, newPiece(fragments[:n], size))
		fragments = fragments[n:]
		if whole != nil && len(fragments) == 0 {
			return Whole{whole}, true
		}
		if whole != nil {
			whole.DecRef()
		}
		if whole != nil || err != nil {
			break
		}
	}
	e.Close() // frees the fragments that gVisor still holds
	e.open()
	return Whole{}, false
}

// Whole is the reassembled fragmentable part of a datagram. The zero Whole is empty.
type Whole struct{ packet *stack.PacketBuffer }

// Size returns the length in bytes.
func (w Whole) Size() int { return w.packet.Data().Size() }

// Beginning returns the first n bytes, which stay valid until the Whole is released.
func (w Whole) Beginning(n int) []byte {
	b, _ := w.packet.Data().PullUp(n)
	return b
}

// Release frees the memory. On a zero Whole it does nothing.
func (w Whole) Release() {
	if w.packet != nil {
		w.packet.DecRef()
	}
}

// nextPiece returns the number of fragments in the next piece, at least one, and their payload
// length in bytes. The last fragment is always a piece of its own: gVisor needs at least two
// pieces to reassemble a datagram.
func nextPiece(fragments []Fragment) (n, size int) {
	size = int(fragments[0].Length)
	for n = 1; n < len(fragments)-1 && size+int(fragments[n].Length) <= pieceSize; n++ {
		size += int(fragments[n].Length)
	}
	return n, size
}

// newPiece copies the payloads of adjacent fragments, size bytes in all.
func newPiece(fragments []Fragment, size int) *buffer.View {
	v := buffer.NewViewSize(size)
	b := v.AsSlice()
	for i := range fragments {
		b = b[copy(b, fragments[i].Data()):]
	}
	return v
}

// feed passes a piece to gVisor. It returns the datagram if the piece completed it, or the
// reason why gVisor refused the piece.
func (e *Engine) feed(id uint32, start uint16, more bool, piece *buffer.View) (*stack.PacketBuffer, error) {
	last := start + uint16(piece.Size()) - 1 // wraps around to less than start beyond 65,535, which gVisor refuses
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(piece)})
	defer pkt.DecRef()
	whole, _, _, err := process(e.fragmentation, fragmentID{ID: id}, start, last, more, 0, pkt)
	return whole, err
}

// frozenClock stands still. The table handles the deadlines.
type frozenClock struct{}

func (frozenClock) Now() time.Time                              { return time.Unix(0, 0) }
func (frozenClock) NowMonotonic() tcpip.MonotonicTime           { return tcpip.MonotonicTime{} }
func (frozenClock) AfterFunc(time.Duration, func()) tcpip.Timer { return frozenTimer{} }

// frozenTimer never fires.
type frozenTimer struct{}

func (frozenTimer) Stop() bool          { return true }
func (frozenTimer) Reset(time.Duration) {}
