package gvisor

import (
	"fmt"
	"math"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// pieceSize is up to how many bytes neighbouring fragments go into gVisor as one
// piece. For each, gVisor looks through those that it has
// (pkg/tcpip/network/internal/fragmentation, reassembler.process), so that a datagram in
// fragments of 8 bytes would cost the square of 8,192 steps; of pieces there are nine at
// most.
const pieceSize = 16 << 10

// Engine puts fragments together with gVisor's reassembly, which is one for IPv4 and
// IPv6. It sees no packet of the wire: the payloads of a datagram's fragments go in, one
// right after the other, once all of them came, so that between two datagrams gVisor
// holds nothing of them. An Engine is not safe for concurrent use.
type Engine struct {
	fragmentation *fragmentation
}

// Identifications of what goes in.
const (
	idDatagram = iota // of all datagrams, one after the other
	idKept            // of a fragment that gVisor always holds, see [Engine.open]
)

// fragmentUnit is of how many bytes the length of each fragment but the last is a multiple
// (RFC 791 §3.2, RFC 8200 §4.5).
const fragmentUnit = 8

// NewEngine returns an engine; [Engine.Close] frees it.
func NewEngine() *Engine {
	e := &Engine{}
	e.open()
	return e
}

// open panics where gVisor refuses a sound fragment: that is a mistake in the program,
// whatever the input.
func (e *Engine) open() {
	e.fragmentation = newFragmentation(fragmentUnit, math.MaxInt, math.MaxInt, time.Hour, frozenClock{}, nil)
	// gVisor starts a timer for each fragment that comes while it holds none.
	if _, err := e.feed(idKept, 0, true, buffer.NewViewSize(fragmentUnit)); err != nil {
		panic(fmt.Sprintf("gvisor: hold a fragment: %v", err))
	}
}

// Close frees what gVisor holds.
func (e *Engine) Close() { release(e.fragmentation) }

// Reassemble has gVisor put the fragments of a datagram together, which are in
// the order of their offsets. It reports false where gVisor does not find the
// datagram whole, with the last fragment and not before.
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
	e.Close() // frees what gVisor still holds
	e.open()
	return Whole{}, false
}

// Whole is the reassembled fragmentable part of a datagram. The zero Whole is
// none.
type Whole struct{ packet *stack.PacketBuffer }

// Size returns its length in bytes.
func (w Whole) Size() int { return w.packet.Data().Size() }

// Beginning returns its first n bytes, which stay valid until its release.
func (w Whole) Beginning(n int) []byte {
	b, _ := w.packet.Data().PullUp(n)
	return b
}

// Release frees it, where there is one.
func (w Whole) Release() {
	if w.packet != nil {
		w.packet.DecRef()
	}
}

// nextPiece returns how many of the fragments go in as one, with size bytes of
// payload: as many as fit, and at least one. The last fragment stays by itself, so
// that no datagram comes down to one piece, which gVisor would have nothing to do
// with.
func nextPiece(fragments []Fragment) (n, size int) {
	size = int(fragments[0].Length)
	for n = 1; n < len(fragments)-1 && size+int(fragments[n].Length) <= pieceSize; n++ {
		size += int(fragments[n].Length)
	}
	return n, size
}

// newPiece copies the payload of neighbouring fragments, size bytes.
func newPiece(fragments []Fragment, size int) *buffer.View {
	v := buffer.NewViewSize(size)
	b := v.AsSlice()
	for i := range fragments {
		b = b[copy(b, fragments[i].Data()):]
	}
	return v
}

// feed hands a piece to gVisor, and returns the datagram if that made it whole, or why
// gVisor has no place for the piece.
func (e *Engine) feed(id uint32, start uint16, more bool, piece *buffer.View) (*stack.PacketBuffer, error) {
	last := start + uint16(piece.Size()) - 1 // less than start beyond 65,535, which gVisor refuses
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(piece)})
	defer pkt.DecRef()
	whole, _, _, err := process(e.fragmentation, fragmentID{ID: id}, start, last, more, 0, pkt)
	return whole, err
}

// frozenClock stands still: time is the table's.
type frozenClock struct{}

func (frozenClock) Now() time.Time                              { return time.Unix(0, 0) }
func (frozenClock) NowMonotonic() tcpip.MonotonicTime           { return tcpip.MonotonicTime{} }
func (frozenClock) AfterFunc(time.Duration, func()) tcpip.Timer { return frozenTimer{} }

// frozenTimer never fires.
type frozenTimer struct{}

func (frozenTimer) Stop() bool          { return true }
func (frozenTimer) Reset(time.Duration) {}
